"""Attention along chains equals attention over each sequence alone, by a plain loop over tokens."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coala_core.config import EmbedConfig
from coala_core.embed import tree_attention
from coala_core.embed.language_model import load_language_model
from coala_core.embed.prefix_tree import Chain, PackedBatch, pack_batches
from coala_core.embed.tree_attention import attend, attention_plan
from tests.tiny_models import DEPTH

FOREST = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 9), (1, 2, 3, 9, 8, 7), (1, 2, 3, 4), (5, 5), (5, 5, 5), (5, 5)]


def states(batch: PackedBatch, heads: int, key_heads: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Random queries, keys and values; values are wider than keys, as in some models."""
    generator = torch.Generator().manual_seed(seed)
    count = len(batch.token_ids)
    shapes = ((1, heads, count, 6), (1, key_heads, count, 6), (1, key_heads, count, 5))
    return tuple(2 * torch.randn(shape, generator=generator) for shape in shapes)


def by_loop(
    batch: PackedBatch, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None
) -> np.ndarray:
    """Softmax attention of every token of every sequence over the tokens before it, one by one in double."""
    q, k, v = (tensor[0].double().numpy() for tensor in (query, key, value))
    groups = len(q) // len(k)
    result = np.full((q.shape[1], len(q), v.shape[2]), np.nan)
    for path in batch.paths:
        own = [position for start, length in path for position in range(start, start + length)]
        for index, position in enumerate(own):
            seen = own[max(0, index + 1 - window) if window else 0 : index + 1]
            for head in range(len(q)):
                scores = k[head // groups, seen] @ q[head, position] * scale
                weights = np.exp(scores - scores.max())
                result[position, head] = weights @ v[head // groups, seen] / weights.sum()
    return result


def run(batch: PackedBatch, tensors: tuple[torch.Tensor, ...], **options: Any) -> np.ndarray:
    with attention_plan(batch.chains):
        output, weights = attend(torch.nn.Identity(), *tensors, None, **options)
    assert weights is None
    assert output.is_contiguous()
    return output[0].numpy()


sequences = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9).map(tuple), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    forest=sequences,
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1), (2, 2)]),
    window=st.sampled_from([None, 1, 2, 4, 100]),
    scale=st.sampled_from([None, 0.3]),
)
@example(forest=FOREST, heads=(4, 2), window=None, scale=None)
@example(forest=FOREST, heads=(4, 2), window=3, scale=None)
def test_attention_along_chains_equals_a_loop_over_tokens(
    forest: list[tuple[int, ...]], heads: tuple[int, int], window: int | None, scale: float | None
) -> None:
    (batch,) = pack_batches(forest, budget=1000)
    tensors = states(batch, *heads)
    expected = by_loop(batch, *tensors, scale or 1 / math.sqrt(6), window)
    output = run(batch, tensors, scaling=scale, sliding_window=window)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_the_loop_tells_windows_and_scales_apart() -> None:
    (batch,) = pack_batches(FOREST, budget=1000)
    tensors = states(batch, 4, 2)
    results = [by_loop(batch, *tensors, scale, window) for scale in (0.3, 0.41) for window in (None, 3, 2)]
    assert min(np.abs(a - b).max() for i, a in enumerate(results) for b in results[:i]) > 0.05


def test_half_precision_stays_half_and_close() -> None:
    (batch,) = pack_batches(FOREST, budget=1000)
    tensors = states(batch, 4, 2)
    with attention_plan(batch.chains):
        output, _ = attend(torch.nn.Identity(), *(tensor.bfloat16() for tensor in tensors), None)
    assert output.dtype == torch.bfloat16
    expected = torch.from_numpy(run(batch, tensors))
    assert float((output[0].float() - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("option", ["softcap", "s_aux", "position_bias", "sinks", "indices", "block_indices"])
def test_what_cannot_be_done_along_a_tree_is_refused(option: str) -> None:
    (batch,) = pack_batches(FOREST, budget=1000)
    tensors = states(batch, 2, 2)
    with pytest.raises(NotImplementedError, match=f"its attention takes {option}"):
        run(batch, tensors, **{option: 1.0})
    run(batch, tensors, **{option: None})


def test_a_mask_is_refused() -> None:
    (batch,) = pack_batches(FOREST, budget=1000)
    with attention_plan(batch.chains), pytest.raises(NotImplementedError, match="takes a mask of its own"):
        attend(torch.nn.Identity(), *states(batch, 2, 2), torch.zeros(1))


def test_the_plan_ends_with_its_block_and_notes_the_windows() -> None:
    (batch,) = pack_batches(FOREST, budget=1000)
    tensors = states(batch, 2, 2)
    with attention_plan(batch.chains) as plan:
        for window in (None, 3, 3):
            attend(torch.nn.Identity(), *tensors, None, sliding_window=window)
    assert plan.windows == {None, 3}
    with pytest.raises(LookupError):
        attend(torch.nn.Identity(), *tensors, None)


def _positions_in_the_row(batch: PackedBatch) -> PackedBatch:
    return dataclasses.replace(batch, positions=np.arange(len(batch.positions)))


def _chains_that_see_the_whole_row(batch: PackedBatch) -> PackedBatch:
    chains = tuple(Chain(((0, c.start),) if c.start else (), c.start, c.length) for c in batch.chains)
    return dataclasses.replace(batch, chains=chains)


def _chains_without_their_prefix(batch: PackedBatch) -> PackedBatch:
    return dataclasses.replace(batch, chains=tuple(Chain((), c.start, c.length) for c in batch.chains))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "spoil", [None, _positions_in_the_row, _chains_that_see_the_whole_row, _chains_without_their_prefix]
)
def test_a_model_s_states_depend_on_positions_and_chains(
    tiny_models: dict[str, Path], architecture: str, spoil: Any
) -> None:
    """Equal to states alone with the right ones, and far from them with wrong ones."""
    model = load_language_model(
        tiny_models[architecture], EmbedConfig(device="cpu", dtype="float32", layers=(1, DEPTH))
    )
    (batch,) = pack_batches(FOREST, budget=1000)
    with torch.no_grad():
        packed = model.packed_states(spoil(batch) if spoil else batch)
        gaps = [0.0] * 2
        for row, path in zip(batch.rows, batch.paths, strict=True):
            alone = model.hidden_states(torch.tensor([FOREST[row]]))
            own = [position for start, length in path for position in range(start, start + length)]
            gaps = [max(gap, float((t[own] - a[0]).abs().max())) for gap, t, a in zip(gaps, packed, alone, strict=True)]
    assert model.model.config._attn_implementation != tree_attention.NAME, "rows alone use the model's own attention"
    if spoil:
        assert min(gaps) > 0.05
    else:
        assert max(gaps) < 1e-5
