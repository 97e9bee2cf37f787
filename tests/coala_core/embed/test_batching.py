"""Batches: every sequence once, within the budget, with little padding, and nothing leaks from padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coala_core.config import EmbedConfig
from coala_core.embed.batching import Batch, memory_is_short, padded_batches, shared_batches, similar_lengths
from coala_core.embed.language_model import LanguageModel, load_language_model
from tests.tiny_models import ARCHITECTURES, DEPTH

RNG = np.random.default_rng(0)
SEQUENCES = [
    tuple(RNG.integers(1, 300, size=length).tolist()) for length in (40, 39, 38, 40, 20, 19, 21, 3, 60, 39, 41)
]
NAMES = [100 + row for row in range(len(SEQUENCES))]


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 300), max_size=60), budget=st.integers(1, 3000))
@example(lengths=[20] * 30, budget=200)
@example(lengths=[100, 95, 94], budget=300)
def test_rows_of_similar_length_come_together(lengths: list[int], budget: int) -> None:
    batches = list(similar_lengths(lengths, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        own = [lengths[row] for row in batch]
        room = len(own) * max(own)
        assert len(batch) == 1 or (room <= budget and (room - sum(own)) / room <= 0.05)
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    # No batch could have taken the longest row of the next one as well.
    for batch, following in zip(batches, longest[1:], strict=False):
        own = [lengths[row] for row in batch] + [following]
        room = len(own) * max(own)
        assert room > budget or (room - sum(own)) / room > 0.05


def test_padding_of_mixed_lengths_is_small_in_all() -> None:
    lengths = np.random.default_rng(0).integers(20, 400, size=500).tolist()
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in similar_lengths(lengths, 4096))
    in_order = sum(10 * max(lengths[start : start + 10]) for start in range(0, 500, 10))
    assert 1 - sum(lengths) / padded < 0.05
    assert 1 - sum(lengths) / in_order > 0.3, "rows in order would pad far more"


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> LanguageModel:
    """The Qwen3-type model, of which two layers are read."""
    return load_language_model(tiny_models["qwen3"], EmbedConfig(device="cpu", dtype="float32", layers=(2, 1)))


def rows_of(batches: list[Batch], model: LanguageModel) -> dict[int, list[torch.Tensor]]:
    """States of each sequence, one tensor a layer."""
    found: dict[int, list[torch.Tensor]] = {}
    for batch in batches:
        with torch.no_grad():
            states = batch.states(model)
        for row, path in zip(batch.rows, batch.paths, strict=True):
            assert row not in found
            found[row] = [torch.cat([state[start : start + length] for start, length in path]) for state in states]
    return found


@pytest.mark.parametrize("plan", [padded_batches, shared_batches])
@pytest.mark.parametrize("budget", [1, 120, 10_000])
def test_states_equal_those_of_each_sequence_alone(model: LanguageModel, plan: Any, budget: int) -> None:
    batches = list(plan(SEQUENCES, NAMES, budget))
    found = rows_of(batches, model)
    assert sorted(found) == NAMES, "sequences go by the names that they were given"
    for name, sequence in zip(NAMES, SEQUENCES, strict=True):
        with torch.no_grad():
            alone = model.hidden_states(torch.tensor([sequence]))
        for states, expected in zip(found[name], alone, strict=True):
            torch.testing.assert_close(states, expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 400])
def test_padded_batches_count_tokens_padding_and_attention(budget: int) -> None:
    batches = list(padded_batches(SEQUENCES, NAMES, budget))
    assert any(batch.padding for batch in batches) == (budget == 400)
    for batch in batches:
        lengths = [len(SEQUENCES[row - 100]) for row in batch.rows]
        assert batch.computed == sum(lengths)
        assert batch.padding == sum(max(lengths) - length for length in lengths)
        assert batch.attended == sum(seen + 1 for length in lengths for seen in range(length))


def test_shared_batches_have_no_padding_and_count_what_they_share() -> None:
    trunk = tuple(range(30))
    (batch,) = shared_batches([(*trunk, 1, 2), (*trunk, 3), trunk], [5, 6, 7], 1000)
    # 30 tokens of the trunk see 1 + ... + 30 = 465 tokens, the others 31, 32 and 31.
    assert (batch.computed, batch.padding, batch.attended) == (33, 0, 465 + 31 + 32 + 31)
    assert sorted(batch.rows) == [5, 6, 7]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_token_sees_the_padding(tiny_models: dict[str, Path], architecture: str) -> None:
    """Whatever stands in padded positions, on the way in and on the way out, the sequences' states stay."""
    config = EmbedConfig(device="cpu", dtype="float32", layers=(DEPTH,))
    model = load_language_model(tiny_models[architecture], config)
    batches = list(padded_batches(SEQUENCES, NAMES, 1000))
    assert sum(batch.padding for batch in batches) > 5

    class OtherPadding:
        """Puts another id and NaN where id 0, which is padding only, was."""

        device = model.device

        def hidden_states(self, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
            states = model.hidden_states(torch.where(ids == 0, 77, ids))
            return tuple(torch.where((ids == 0).unsqueeze(-1), float("nan"), state) for state in states)

    plain, other = rows_of(batches, model), rows_of(batches, OtherPadding())  # type: ignore[arg-type]
    for name in NAMES:
        torch.testing.assert_close(other[name], plain[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_short_memory_is_told_from_other_failures(error: BaseException, short: bool) -> None:
    assert memory_is_short(error) is short


def test_a_real_failed_allocation_counts_as_short_memory() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(1 << 60)  # 4 EiB
    assert memory_is_short(failure.value)
