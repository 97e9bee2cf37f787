"""What a model can do is found out by running it, and a model that cannot follow a tree says why."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from coala_core.config import EmbedConfig
from coala_core.embed import tree_attention
from coala_core.embed.language_model import LanguageModel, load_language_model
from coala_core.embed.model_probe import check_causal, why_unshared
from coala_core.embed.prefix_tree import PackedBatch
from tests.tiny_models import ARCHITECTURES, CHUNK, DEPTH, OTHERS, WINDOW, save_tiny_model

REASONS = {
    "gemma2": "its attention takes softcap",
    "gpt_oss": "its attention takes s_aux",
    "bloom": r"along a tree its states differ by \d\.\de[+-]\d+ from those of a plain forward pass",
    "mamba": "along a tree its states differ by",
    "rwkv": "along a tree its states differ by",
    "lfm2": "along a tree its states differ by",
    "llama4_text": rf"its attention is limited to {CHUNK} tokens by a mask of its own",
}


def config(**change: Any) -> EmbedConfig:
    return EmbedConfig(device="cpu", **{"dtype": "float32", "layers": (1, DEPTH), **change})


@pytest.fixture(scope="module")
def folders(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("others")
    return {**tiny_models, **{name: save_tiny_model(root / name, name) for name in OTHERS}}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mistral"])
def test_models_that_attend_as_usual_share(
    folders: dict[str, Path], architecture: str, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        model = load_language_model(folders[architecture], config(dtype=dtype))
    assert model.unshared is None
    assert caplog.records == []
    assert model.windows == ({WINDOW} if architecture == "mistral" else {None})


@pytest.mark.parametrize("architecture", REASONS)
def test_other_models_do_not_share_and_say_why(
    folders: dict[str, Path], architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="coala.model"):
        model = load_language_model(folders[architecture], config())
    assert model.unshared is not None
    (record,) = [record for record in caplog.records if record.name == "coala.model"]
    assert record.levelno == logging.WARNING
    name = type(model.model).__name__
    assert record.getMessage() == f"common prefixes are not shared with {name}: {model.unshared}"
    assert re.match(REASONS[architecture], model.unshared)


def test_every_other_model_is_of_one_kind_or_the_other() -> None:
    assert {"mistral", *REASONS} == set(OTHERS)


def test_a_wish_not_to_share_is_no_warning(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_language_model(folders["llama"], config(share_prefixes=False))
    assert model.unshared == "switched off by `embed.share_prefixes`"
    assert caplog.records == []


@pytest.mark.parametrize(("max_tokens", "shares"), [(CHUNK, True), (CHUNK + 1, False)])
def test_a_limit_beyond_the_longest_sequence_does_no_harm(
    folders: dict[str, Path], max_tokens: int, shares: bool
) -> None:
    model = load_language_model(folders["llama4_text"], config(max_tokens=max_tokens))
    assert (model.unshared is None) == shares


@pytest.fixture
def attention() -> Iterator[Callable[[Any], None]]:
    """Put another function in the place of the attention along chains, for one test."""
    yield lambda function: AttentionInterface.register(tree_attention.NAME, function)
    AttentionInterface.register(tree_attention.NAME, tree_attention.attend)


@pytest.mark.parametrize(("max_tokens", "shares"), [(100, True), (101, False)])
def test_a_window_that_layers_keep_to_themselves_is_found(
    folders: dict[str, Path], attention: Callable[[Any], None], max_tokens: int, shares: bool
) -> None:
    """A window of 100 tokens is longer than the probe's sequences, which therefore agree."""
    model = load_language_model(folders["mistral"], config(layers=(DEPTH,)))
    model.model.config.sliding_window = 100
    assert why_unshared(model, config(max_tokens=max_tokens)) is None, "it is handed over"

    def silent(*inputs: Any, sliding_window: int | None = None, **options: Any) -> Any:
        return tree_attention.attend(*inputs, **options)

    attention(silent)
    reason = why_unshared(model, config(max_tokens=max_tokens))
    assert reason == (None if shares else "its attention is limited to 100 tokens by a mask of its own")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_leak_is_found_beside_a_first_token_of_huge_norm(folders: dict[str, Path], dtype: str) -> None:
    """In trained models the first token's state may be a hundred times the others, and must not hide them."""
    model = load_language_model(folders["llama"], config(dtype=dtype, layers=(DEPTH,)))

    class Huge:
        """The first token's state is a thousand times as large, and one other token's state is wrong."""

        def __init__(self, leak: bool) -> None:
            self.leak = leak

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def hidden_states(self, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
            (states,) = model.hidden_states(ids)
            states[:, 0] *= 1000
            return (states,)

        def packed_states(self, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
            (states,) = model.packed_states(batch)
            states[batch.positions == 0] *= 1000
            if self.leak:
                states[batch.chains[1].start] *= 1.3
            return (states,)

    assert why_unshared(Huge(leak=False), config()) is None  # type: ignore[arg-type]
    reason = why_unshared(Huge(leak=True), config())  # type: ignore[arg-type]
    assert reason is not None and reason.startswith("along a tree its states differ by 3.")


def test_states_that_are_not_numbers_along_a_tree_are_not_taken_for_equal(folders: dict[str, Path]) -> None:
    model = load_language_model(folders["llama"], config())

    class Broken:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def packed_states(self, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
            return tuple(state * float("nan") for state in model.packed_states(batch))

    reason = why_unshared(Broken(), config())  # type: ignore[arg-type]
    assert reason == "along a tree its states differ by nan from those of a plain forward pass"


def test_attention_that_the_tree_never_reaches_is_built_in(folders: dict[str, Path]) -> None:
    model = load_language_model(folders["llama"], config())

    class BuiltIn:
        """Gives the right states without asking for attention along chains."""

        windows: set[int | None] = set()

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    assert why_unshared(BuiltIn(), config()) == "its attention is built in and cannot be replaced"  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *OTHERS])
def test_decoders_pass_the_check_of_causality(folders: dict[str, Path], architecture: str) -> None:
    model = load_language_model(folders[architecture], config(share_prefixes=False))
    check_causal(model, config())


def test_a_model_whose_tokens_see_later_ones_is_refused(folders: dict[str, Path]) -> None:
    model = load_language_model(folders["llama"], config())

    class Both(LanguageModel):
        """Adds the mean over the row, which later tokens are part of, in the second layer only."""

        def __init__(self) -> None:
            self.__dict__.update(model.__dict__)

        def hidden_states(self, token_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
            first, second = super().hidden_states(token_ids)
            return first, second + second.mean(dim=1, keepdim=True)

    with pytest.raises(ValueError, match=r"must be a causal language model, got LlamaModel, whose earlier states"):
        check_causal(Both(), config())
