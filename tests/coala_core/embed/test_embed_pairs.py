"""Features: they equal a plain forward pass, however tokens are shared, batched, or short of memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from coala_core.config import EmbedConfig
from coala_core.embed.batching import padded_batches
from coala_core.embed.embed_pairs import FACTS, TextPair, Work, embed_pairs
from coala_core.embed.language_model import LanguageModel, load_language_model
from coala_core.embed.prefix_tree import PackedBatch, pack_batches
from coala_core.embed.rendering import Renderer, TokenSequence
from tests.plain_forward import PAIRS, POOLINGS, check_features, expected_features, pair, plain_states, prefixes, say
from tests.tiny_models import ARCHITECTURES, DEPTH, END, OTHERS, START, WINDOW, save_tiny_model

ALL_LAYERS = tuple(range(1, DEPTH + 1))


def config(**change: Any) -> EmbedConfig:
    usual = {"max_tokens": 512, "batch_tokens": 256, "dtype": "float32", "layers": (2,), "poolings": POOLINGS}
    return EmbedConfig(device="cpu", **{**usual, **change})


@pytest.fixture(scope="module")
def folder_of(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models of every architecture, made when first asked for."""
    made, root = dict(tiny_models), tmp_path_factory.mktemp("others")

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = save_tiny_model(root / architecture, architecture)
        return made[architecture]

    return folder


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> LanguageModel:
    """The Qwen3-type model, cut at its second layer."""
    return load_language_model(tiny_models["qwen3"], config())


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mistral"])
@pytest.mark.parametrize("layers", [(1,), (DEPTH,), (3, 1, DEPTH, 2)])
def test_features_along_trees_equal_a_plain_forward_pass(
    folder_of: Callable[[str], Path], architecture: str, layers: tuple[int, ...]
) -> None:
    folder = folder_of(architecture)
    model = load_language_model(folder, config(layers=layers))
    assert model.unshared is None
    total = sum(len(ids) for _, _, ids in plain_states(folder))
    for batch_tokens in (64, 300, 100_000):
        embedded = embed_pairs(PAIRS, model, config(batch_tokens=batch_tokens))
        check_features(embedded, folder, layers)
        work = embedded.work
        assert (work.tokens, work.distinct_tokens, work.padding) == (total, prefixes(folder), 0)
        if batch_tokens == 100_000:
            assert (work.computed_tokens, work.batches) == (prefixes(folder), 1)
            assert work.computed_tokens < 0.5 * total
        else:
            assert prefixes(folder) < work.computed_tokens < total
    if architecture == "mistral":
        assert model.windows == {WINDOW}
        assert min(len(ids) for _, _, ids in plain_states(folder)) > WINDOW


@pytest.mark.parametrize("architecture", [name for name in OTHERS if name != "mistral"])
def test_models_that_cannot_follow_a_tree_give_the_same_features(
    folder_of: Callable[[str], Path], architecture: str
) -> None:
    folder = folder_of(architecture)
    model = load_language_model(folder, config(layers=ALL_LAYERS))
    assert model.unshared
    for batch_tokens in (64, 2000):
        embedded = embed_pairs(PAIRS, model, config(batch_tokens=batch_tokens))
        check_features(embedded, folder, ALL_LAYERS)
        assert embedded.work.computed_tokens == embedded.work.tokens == sum(len(i) for *_, i in plain_states(folder))
        assert embedded.work.distinct_tokens == prefixes(folder)
        assert embedded.work.flops > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_without_sharing_are_the_same(tiny_models: dict[str, Path], architecture: str) -> None:
    folder = tiny_models[architecture]
    settings = config(layers=(3, 1), share_prefixes=False, batch_tokens=2000)
    embedded = embed_pairs(PAIRS, load_language_model(folder, settings), settings)
    check_features(embedded, folder, (3, 1))
    assert embedded.work.computed_tokens == embedded.work.tokens


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_oracle_tells_layers_poolings_and_places_apart(tiny_models: dict[str, Path], architecture: str) -> None:
    """Were the expected values alike, the tests above could not fail."""
    folder = tiny_models[architecture]
    cases = [(layer, pooling, shift) for layer in range(DEPTH + 1) for pooling in POOLINGS for shift in (0, 1)]
    values = [expected_features(folder, *case) for case in cases]
    assert min(np.abs(a - b).max() for i, a in enumerate(values) for b in values[:i]) > 0.05


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mistral"])
def test_bfloat16_is_close_and_finite(folder_of: Callable[[str], Path], architecture: str) -> None:
    folder = folder_of(architecture)
    settings = config(layers=ALL_LAYERS, dtype="bfloat16", batch_tokens=100_000)
    model = load_language_model(folder, settings)
    assert model.unshared is None
    features = embed_pairs(PAIRS, model, settings).features
    for layer in ALL_LAYERS:
        for pooling in POOLINGS:
            expected = expected_features(folder, layer, pooling)[0::2]
            error = np.linalg.norm(features[f"chosen_layer{layer}_{pooling}"] - expected) / np.linalg.norm(expected)
            assert 1e-4 < error < 5e-2, "less would mean that it was computed in float32"
    assert all(np.isfinite(values).all() for values in features.values())


class Other:
    """A language model that stands before another one."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class Small(Other):
    """A language model for which memory is short in passes of more than `most` positions."""

    def __init__(self, model: LanguageModel, most: int, error: BaseException) -> None:
        super().__init__(model)
        self.most, self.error, self.failed, self.passed = most, error, 0, 0

    def _allow(self, size: int) -> None:
        self.failed += size > self.most
        self.passed += size <= self.most
        if size > self.most:
            raise self.error

    def hidden_states(self, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._allow(ids.numel())
        return self.model.hidden_states(ids)

    def packed_states(self, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
        self._allow(len(batch.token_ids))
        return self.model.packed_states(batch)


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("share", [True, False])
def test_short_memory_halves_the_budget_and_changes_no_feature(
    tiny_models: dict[str, Path], error: BaseException, share: bool
) -> None:
    settings = config(batch_tokens=100_000, share_prefixes=share)
    small: Any = Small(load_language_model(tiny_models["qwen3"], settings), 250, error)
    told: list[tuple[int, int, str]] = []
    embedded = embed_pairs(PAIRS, small, settings, lambda *report: told.append(report))
    check_features(embedded, tiny_models["qwen3"], (2,))
    assert embedded.work.memory_halvings == small.failed > 0
    assert embedded.work.batches == small.passed > 1
    assert told[-1] == (len(PAIRS), len(PAIRS), "pairs")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_a_sequence_for_which_there_is_no_memory_is_refused_in_one_sentence(model: LanguageModel) -> None:
    longest = max(len(s.token_ids) for s in sequences(PAIRS, model))
    small: Any = Small(model, longest - 1, OUT_OF_MEMORY[0])
    with pytest.raises(MemoryError, match=rf"memory for one sequence of {longest} tokens, got none; lower `embed\.max"):
        embed_pairs(PAIRS, small, config())
    embed_pairs(PAIRS, Small(model, longest, OUT_OF_MEMORY[0]), config())  # type: ignore[arg-type]


def test_any_other_failure_passes_through(model: LanguageModel) -> None:
    small: Any = Small(model, 100, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="^mat1 and mat2 shapes cannot be multiplied$"):
        embed_pairs(PAIRS, small, config())
    assert small.failed == 1


class Spoilt(Other):
    """A language model with a wrong value in the states of one token."""

    token, value = 0, 0.0

    def packed_states(self, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
        (states,) = self.model.packed_states(batch)
        states[torch.from_numpy(batch.token_ids == self.token)] = self.value
        return (states,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_states_that_are_not_finite_are_refused_and_the_first_pair_is_named(model: LanguageModel, value: float) -> None:
    spoilt: Any = Spoilt(model)
    # The letter x alone is the chosen response of the last two pairs, and no token of the first one.
    (spoilt.token,), spoilt.value = model.tokenizer("x")["input_ids"], value
    pairs = [PAIRS[0], PAIRS[-2], PAIRS[-1]]
    with pytest.raises(ValueError, match=r"finite hidden states, got NaN or infinity in 2 pairs, first in pair other;"):
        embed_pairs(pairs, spoilt, config(batch_tokens=64))
    embed_pairs(pairs[:1], spoilt, config(batch_tokens=64))


def test_a_text_that_cannot_be_rendered_names_its_pair(model: LanguageModel) -> None:
    broken = [*PAIRS[:1], TextPair("p-empty", (), "Yes.", "No.")]
    with pytest.raises(ValueError, match=r"pair p-empty: `embed` needs prompts of at least one turn, got none"):
        embed_pairs(broken, model, config())
    with pytest.raises(ValueError, match=r"must hold at least one pair, got none"):
        embed_pairs([], model, config())


def test_an_empty_response_has_the_state_of_the_end_of_its_turn(tiny_models: dict[str, Path]) -> None:
    folder = tiny_models["qwen3"]
    blank = TextPair("blank", (say("user", "Why?"),), "", "No.")
    features = embed_pairs([blank], load_language_model(folder, config()), config()).features
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(f"{START}user\nWhy?{END}\n{START}assistant\n{END}", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        state = plain(ids, output_hidden_states=True).hidden_states[2][0, -1].numpy()
    for pooling in POOLINGS:
        np.testing.assert_allclose(features[f"chosen_layer2_{pooling}"][0], state, rtol=1e-4, atol=1e-4)
    assert np.abs(features["rejected_layer2_mean"][0] - state).max() > 0.05


def sequences(pairs: list[TextPair], model: LanguageModel, max_tokens: int = 512) -> list[TokenSequence]:
    render = Renderer(model.tokenizer, max_tokens, model.vocabulary).render_pair
    return [sequence for one in pairs for sequence in render(one.prompt, one.chosen, one.rejected)]


@pytest.mark.parametrize("share", [True, False])
def test_work_and_facts_equal_a_plain_loop(tiny_models: dict[str, Path], share: bool) -> None:
    turns = tuple(say(role, "Why? " * 10) for role in ("user", "assistant", "user"))
    pairs = [
        *PAIRS,
        TextPair("long", turns, f"yes{END}", "no"),
        pair("long response", "Why?", "x " * 80, f"{END}{END}"),
    ]
    settings = config(max_tokens=64, batch_tokens=200, share_prefixes=share)
    model = load_language_model(tiny_models["qwen3"], settings)
    embedded = embed_pairs(pairs, model, settings)
    rendered = sequences(pairs, model, 64)
    ids = [s.token_ids for s in rendered]
    batches: list[Any] = pack_batches(ids, 200) if share else list(padded_batches(ids, range(len(ids)), 200))
    computed = [len({ids[row][:n] for row in batch.rows for n in range(1, len(ids[row]) + 1)}) for batch in batches]
    if not share:
        computed = [sum(len(ids[row]) for row in batch.rows) for batch in batches]
    assert embedded.work == Work(
        tokens=sum(map(len, ids)),
        distinct_tokens=len({row[:n] for row in ids for n in range(1, len(row) + 1)}),
        computed_tokens=sum(computed),
        padding=0 if share else sum(max(len(ids[r]) for r in b.rows) - len(ids[r]) for b in batches for r in b.rows),
        flops=sum(model.flops(count, batch.attended) for count, batch in zip(computed, batches, strict=True)),
        batches=len(batches),
    )
    assert (embedded.work.padding > 0) == (not share)
    facts = [
        [len(s.token_ids), s.turns_cut > 0, s.turns_cut, s.prompt_tokens_cut > 0, s.response_tokens_cut > 0]
        for s in rendered
    ]
    for row, (one, two) in enumerate(zip(facts[0::2], facts[1::2], strict=True)):
        assert [embedded.facts[name][row] for name in FACTS[:5]] == [a + b for a, b in zip(one, two, strict=True)]
    assert tuple(embedded.facts) == FACTS
    assert embedded.facts["control_tokens"].tolist() == [0] * len(PAIRS) + [1, 2]
    assert embedded.facts["turns_cut"][-2:].tolist() == [4, 0], "both sequences of `long` lose two turns"
    assert {values.dtype for values in embedded.facts.values()} == {np.dtype(np.int32)}


def test_work_adds_up() -> None:
    one, two = (Work(*range(start, start + len(dataclasses.fields(Work)))) for start in (1, 10))
    one.add(two)
    assert dataclasses.astuple(one) == (11, 13, 15, 17, 19, 21, 23)


class OneDeadUnit(Other):
    """A language model whose first hidden unit is always 0."""

    def packed_states(self, batch: PackedBatch) -> tuple[torch.Tensor, ...]:
        return tuple(torch.nn.functional.pad(s[..., 1:], (1, 0)) for s in self.model.packed_states(batch))


def test_pairs_with_equal_features_are_marked(model: LanguageModel) -> None:
    # A window of 16 tokens leaves nothing of what tells these two responses apart.
    same = "a b c d e f g h i j k l m n o p q r s t u v w x y z "
    pairs = [pair("same", "Why?", same + "yes", same + "no"), PAIRS[0], pair("too", "Why?", same + "1", same + "2")]
    short, long = (embed_pairs(pairs, model, config(max_tokens=size)) for size in (16, 512))
    assert short.facts["equal_features"].tolist() == [1, 0, 1]
    assert long.facts["equal_features"].tolist() == [0, 0, 0]
    dead: Any = OneDeadUnit(model)
    embedded = embed_pairs(pairs, dead, config())
    assert (embedded.features["chosen_layer2_mean"][:, 0] == embedded.features["rejected_layer2_mean"][:, 0]).all()
    assert embedded.facts["equal_features"].tolist() == [0, 0, 0], "some equal values are not enough"


def test_progress_rises_to_the_number_of_pairs(model: LanguageModel) -> None:
    told: list[tuple[int, int, str]] = []
    embed_pairs(PAIRS, model, config(batch_tokens=64), lambda *report: told.append(report))
    done = [d for d, _, _ in told]
    assert done == sorted(done) and done[-1] == len(PAIRS)
    assert len(set(done)) > 3, "also in between"
    assert {(total, what) for _, total, what in told} == {(len(PAIRS), "pairs")}
