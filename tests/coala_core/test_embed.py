"""Features: what they are, that nothing leaks into them, and that interrupted work continues to the same bytes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.config import EmbedConfig
from coala_core.embed import (
    EmbedCounts,
    TextPair,
    embed_pairs,
    feature_table,
    pad_right,
    pool,
    read_features,
    token_batches,
    write_feature_table,
)
from coala_core.language_model import LanguageModel, load_language_model
from coala_core.rendering import Renderer, TokenSequence
from coala_core.storage import Store, Workspace
from tests.tiny_models import ARCHITECTURES, DEPTH, END

FORK = multiprocessing.get_context("fork")
POOLINGS = ("mean", "last", "mean+last")


def pair(name: str, question: str, chosen: str, rejected: str) -> TextPair:
    prompt = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": question})
    return TextPair(name, prompt, chosen, rejected)


PAIRS = [
    pair("p0", "Why?", "Look at the angle.", "I do not know."),
    pair("p1", "How do I solve this equation? " * 6, "Subtract three from both sides.", "No."),
    pair("p2", "12 cm² or 90°?", "x", "What happens when x becomes larger? " * 5),
    pair("p3", "I do not understand the second step.", "Let us look at it together: " * 3, "Try to draw a line."),
    pair("p4", "🙂", "Good question!", "Good question! Try again."),
    pair("p5", "Can you explain it again, please?", "First, parallel to the base.", "y" * 90),
    pair("p6", "Why does the sum equal 180 degrees?", "Draw a parallel.", "Because it is so."),
]


def config(**change: Any) -> EmbedConfig:
    return EmbedConfig(device="cpu", **{"max_tokens": 512, "batch_tokens": 256, "shard_rows": 2, **change})


def workspace(path: Path) -> Workspace:
    path.mkdir(parents=True, exist_ok=True)
    return Workspace(path)


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> LanguageModel:
    """The Qwen3-type model, cut at its second layer."""
    return load_language_model(tiny_models["qwen3"], config(), 2)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what a feature is -------------------------------------------------------------------------


@cache
def plain_states(folder: Path) -> list[tuple[tuple[torch.Tensor, ...], int]]:
    """One row at a time through the whole, untouched model: every layer's states and where the response begins."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, whole = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    names = {"system": "System", "user": "Student"}
    result = []
    for one in PAIRS:
        for response in (one.chosen, one.rejected):
            if tokenizer.chat_template is None:
                text = "".join(f"{names[m['role']]}: {m['content']}\n" for m in one.prompt) + "Tutor:"
                prompt = tokenizer(text)["input_ids"]  # with BOS where the tokenizer puts one
            else:
                text = tokenizer.apply_chat_template(list(one.prompt), add_generation_prompt=True, tokenize=False)
                prompt = tokenizer(text)["input_ids"]
            answer = tokenizer(response, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                output = whole(input_ids=torch.tensor([prompt + answer]), output_hidden_states=True)
            result.append((output.hidden_states, len(prompt)))
    return result


def expected_features(folder: Path, layer: int, pooling: str) -> np.ndarray:
    rows = []
    for states, start in plain_states(folder):
        own = states[layer][0, start:].numpy().astype(np.float64)
        parts = {"mean": [own.mean(0)], "last": [own[-1]], "mean+last": [own.mean(0), own[-1]]}[pooling]
        rows.append(np.concatenate(parts))
    return np.array(rows)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", [1, 2, DEPTH])
def test_features_equal_a_plain_forward_pass(
    tiny_models: dict[str, Path], tmp_path: Path, architecture: str, layer: int
) -> None:
    folder = tiny_models[architecture]
    model = load_language_model(folder, config(), layer)
    for pooling in POOLINGS:
        expected = expected_features(folder, layer, pooling)
        for batch_tokens in (64, 700, 100_000):
            space = workspace(tmp_path / f"{pooling}{batch_tokens}")
            embed_pairs(PAIRS, model, config(pooling=pooling, batch_tokens=batch_tokens, shard_rows=5), space)
            ids, chosen, rejected = read_features(space.path)
            assert ids == [one.pair_id for one in PAIRS]
            assert chosen.dtype == rejected.dtype == np.float32
            np.testing.assert_allclose(chosen, expected[0::2], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(rejected, expected[1::2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_oracle_tells_layers_and_poolings_apart(tiny_models: dict[str, Path], architecture: str) -> None:
    """Were the expected values alike, the test above could not fail."""
    folder = tiny_models[architecture]
    values = [expected_features(folder, layer, p) for layer in range(DEPTH + 1) for p in ("mean", "last")]
    gaps = [np.abs(a - b).max() for i, a in enumerate(values) for b in values[:i]]
    assert min(gaps) > 0.05


def test_a_feature_does_not_depend_on_its_neighbours(model: LanguageModel, tmp_path: Path) -> None:
    embed_pairs(PAIRS, model, config(batch_tokens=100_000, shard_rows=100), workspace(tmp_path / "together"))
    _, together, _ = read_features(tmp_path / "together")
    for row, one in enumerate(PAIRS):
        embed_pairs([one], model, config(), workspace(tmp_path / one.pair_id))
        _, alone, _ = read_features(tmp_path / one.pair_id)
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-5)


Where = Callable[[torch.Tensor], torch.Tensor]


class Spoilt:
    """A language model whose states are replaced where `where(token_ids)` holds; id 0, `PAD`, is padding only."""

    def __init__(self, model: LanguageModel, where: Where, value: float) -> None:
        self._model, self._where, self._value = model, where, value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden_states(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.where(self._where(ids).unsqueeze(-1), self._value, self._model.hidden_states(ids))


class OtherPadding(Spoilt):
    """A language model that sees another id in every padded position."""

    def hidden_states(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model.hidden_states(torch.where(ids == 0, 77, ids))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_padded_positions_do_not_leak(model: LanguageModel, tmp_path: Path, pooling: str, value: float) -> None:
    settings_ = config(pooling=pooling, batch_tokens=100_000, shard_rows=100)
    counts = embed_pairs(PAIRS, model, settings_, workspace(tmp_path / "clean"))
    assert counts.padding > 100
    spoilt: Any = Spoilt(model, lambda ids: ids == 0, value)
    embed_pairs(PAIRS, spoilt, settings_, workspace(tmp_path / "spoilt"))
    for clean, other in zip(read_features(tmp_path / "clean")[1:], read_features(tmp_path / "spoilt")[1:], strict=True):
        np.testing.assert_array_equal(clean, other)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_token_sees_the_padding(tiny_models: dict[str, Path], tmp_path: Path, architecture: str) -> None:
    model = load_language_model(tiny_models[architecture], config(), DEPTH)
    other: Any = OtherPadding(model, lambda ids: ids == 0, 0.0)
    for name, one in (("plain", model), ("other", other)):
        embed_pairs(PAIRS, one, config(batch_tokens=100_000, shard_rows=100), workspace(tmp_path / name))
    for plain, changed in zip(
        read_features(tmp_path / "plain")[1:], read_features(tmp_path / "other")[1:], strict=True
    ):
        np.testing.assert_allclose(plain, changed, rtol=1e-6, atol=1e-6)


def test_states_that_are_not_finite_are_refused_and_the_pair_is_named(model: LanguageModel, tmp_path: Path) -> None:
    shortest = min(len(s.token_ids) for s in _sequences(PAIRS[2:4], model))

    def one_row(ids: torch.Tensor) -> torch.Tensor:
        return ((ids != 0).sum(1) == shortest).unsqueeze(1).expand_as(ids)

    spoilt: Any = Spoilt(model, one_row, float("nan"))
    # Of p2's and p3's four sequences the shortest is p2's chosen one, a single letter.
    with pytest.raises(
        ValueError, match=r"finite hidden states, got NaN or infinity in 1 responses, first in pair p2;"
    ):
        embed_pairs(PAIRS[2:4], spoilt, config(batch_tokens=100_000), workspace(tmp_path))
    assert list(tmp_path.glob("shard*")) == []


def test_a_text_that_cannot_be_rendered_names_its_pair(model: LanguageModel, tmp_path: Path) -> None:
    broken = [*PAIRS[:1], pair("p-empty", "Why?", "", "No.")]
    with pytest.raises(ValueError, match=r"pair p-empty: `embed` needs responses of at least one token, got ''"):
        embed_pairs(broken, model, config(), workspace(tmp_path))


def test_no_pairs_are_refused(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold at least one pair, got none"):
        embed_pairs([], model, config(), workspace(tmp_path))


def test_pooling_by_hand() -> None:
    nan = float("nan")
    first = [[1.0, 2.0], [3.0, 4.0], [5.0, 9.0], [nan, nan]]
    second = [[7.0, 7.0], [8.0, 6.0], [nan, 1.0], [2.0, 2.0]]
    states = torch.tensor([first, second])
    mask = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]])
    # Row 0: mean of (3, 4) and (5, 9) is (4, 6.5), last (5, 9). Row 1: one token, (8, 6).
    assert pool(states, mask, "mean").tolist() == [[4.0, 6.5], [8.0, 6.0]]
    assert pool(states, mask, "last").tolist() == [[5.0, 9.0], [8.0, 6.0]]
    assert pool(states, mask, "mean+last").tolist() == [[4.0, 6.5, 5.0, 9.0], [8.0, 6.0, 8.0, 6.0]]


def test_pooling_of_half_precision_is_done_in_single() -> None:
    # In bfloat16 256 + 1 is 256, so a sum in half precision would give the mean 1 instead of 1 + 255/512.
    states = torch.ones((1, 512, 1), dtype=torch.bfloat16)
    states[0, 0] = 256
    pooled = pool(states, torch.ones((1, 512), dtype=torch.int64), "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx((256 + 511) / 512, rel=1e-6)


def test_padding_is_on_the_right_and_masks_follow_the_response() -> None:
    batch = [TokenSequence((5, 6, 7), 1, 0, 0, 0, 0), TokenSequence((8,), 0, 0, 0, 0, 0)]
    ids, response = (tensor.tolist() for tensor in pad_right(batch))
    assert ids == [[5, 6, 7], [8, 0, 0]]
    assert response == [[0, 1, 1], [1, 0, 0]]


# --- batches -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 300), max_size=60), budget=st.integers(64, 1000))
def test_batches_hold_every_row_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    sizes = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        assert size <= budget or len(batch) == 1
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    # No batch could have taken the longest row of the next one as well.
    for batch, size in zip(batches[:-1], longest[:-1], strict=True):
        assert (len(batch) + 1) * size > budget
    # Sorted rows: padding of a batch is at most its spread of lengths times its rows, and the spreads add up.
    spread = sum((max(lengths[r] for r in b) - min(lengths[r] for r in b)) * (len(b) - 1) for b in batches)
    assert sum(sizes) - sum(lengths) <= spread


def test_sorting_keeps_padding_small() -> None:
    lengths = np.random.default_rng(0).integers(20, 400, size=500).tolist()
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in token_batches(lengths, 4096))
    in_order = sum(10 * max(lengths[start : start + 10]) for start in range(0, 500, 10))
    assert 1 - sum(lengths) / padded < 0.05
    assert 1 - sum(lengths) / in_order > 0.3, "rows in order would pad far more"


# --- counts ------------------------------------------------------------------------------------


def _sequences(pairs: list[TextPair], model: LanguageModel, max_tokens: int = 512) -> list[TokenSequence]:
    render = Renderer(model.tokenizer, max_tokens, model.vocabulary).render_pair
    return [sequence for one in pairs for sequence in render(one.prompt, one.chosen, one.rejected)]


def test_counts_equal_a_plain_loop(model: LanguageModel, tmp_path: Path) -> None:
    turns = tuple({"role": role, "content": "Why? " * 10} for role in ("user", "assistant", "user"))
    pairs = [
        *PAIRS,
        TextPair("long", turns, f"yes{END}", "no"),
        pair("long response", "Why?", "x " * 80, f"{END}{END}"),
    ]
    settings_ = config(max_tokens=64, batch_tokens=200, shard_rows=4)
    counts = embed_pairs(pairs, model, settings_, workspace(tmp_path))
    sequences = _sequences(pairs, model, 64)
    padding = 0
    for start in range(0, len(sequences), 2 * 4):  # batches never cross a shard of 4 pairs
        lengths = [len(s.token_ids) for s in sequences[start : start + 8]]
        padding += sum(max(lengths[i] for i in b) - lengths[j] for b in token_batches(lengths, 200) for j in b)
    assert counts == EmbedCounts(
        pairs=len(pairs),
        tokens=sum(len(s.token_ids) for s in sequences),
        padding=padding,
        flops=sum(model.flops([len(s.token_ids)]) for s in sequences),
        prompts_cut=sum(s.turns_cut > 0 for s in sequences),
        turns_cut=sum(s.turns_cut for s in sequences),
        last_turns_cut=sum(s.prompt_tokens_cut > 0 for s in sequences),
        responses_cut=sum(s.response_tokens_cut > 0 for s in sequences),
        control_tokens=3,
        equal_features=0,
    )
    assert (counts.prompts_cut, counts.turns_cut) == (2, 4), "two sequences of `long` lose two turns each"
    lengths = [len(model.tokenizer(text)["input_ids"]) for one in PAIRS for text in (one.chosen, one.rejected)]
    # Of the two pairs added, only "x " * 80 is longer than the window.
    assert counts.responses_cut == sum(length > 64 for length in lengths) + 1
    assert all(
        getattr(counts, field.name) > 0 for field in dataclasses.fields(counts) if field.name != "equal_features"
    )


def test_counts_do_not_depend_on_the_shards(model: LanguageModel, tmp_path: Path) -> None:
    one = embed_pairs(PAIRS, model, config(shard_rows=1), workspace(tmp_path / "1"))
    all_ = embed_pairs(PAIRS, model, config(shard_rows=100), workspace(tmp_path / "100"))
    assert dataclasses.replace(one, padding=0) == dataclasses.replace(all_, padding=0)
    assert len(list((tmp_path / "1").glob("*.parquet"))) == len(PAIRS)


def test_equal_features_are_counted(model: LanguageModel, tmp_path: Path) -> None:
    # A window of 16 tokens leaves nothing of what tells these two responses apart.
    same = "a b c d e f g h i j k l m n o p q r s t u v w x y z "
    pairs = [
        pair("same", "Why?", same + "yes", same + "no"),
        PAIRS[0],
        pair("same too", "Why?", same + "1", same + "2"),
    ]
    counts = embed_pairs(pairs, model, config(max_tokens=16, shard_rows=10), workspace(tmp_path / "a"))
    assert counts.equal_features == 2
    counts = embed_pairs(pairs, model, config(max_tokens=512, shard_rows=10), workspace(tmp_path / "b"))
    assert counts.equal_features == 0


class OneDeadUnit(Spoilt):
    """A language model whose first hidden unit is always 0."""

    def hidden_states(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(self._model.hidden_states(ids)[..., 1:], (1, 0))


def test_features_that_share_some_values_are_not_equal(model: LanguageModel, tmp_path: Path) -> None:
    dead: Any = OneDeadUnit(model, lambda ids: ids == 0, 0.0)
    counts = embed_pairs(PAIRS, dead, config(), workspace(tmp_path))
    _, chosen, rejected = read_features(tmp_path)
    assert (chosen[:, 0] == rejected[:, 0]).all()
    assert counts.equal_features == 0


def test_progress_rises_to_the_number_of_pairs(model: LanguageModel, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    embed_pairs(PAIRS, model, config(batch_tokens=64), workspace(tmp_path), lambda *told_: told.append(told_))
    done = [d for d, _, _ in told]
    assert done == sorted(done)
    assert done[-1] == len(PAIRS)
    assert len(set(done)) == len(PAIRS) + (0 in done), "also inside a shard"
    assert {(total, what) for _, total, what in told} == {(len(PAIRS), "pairs")}


# --- resumption --------------------------------------------------------------------------------


class Stop(Exception):
    """Raised from the progress callback."""


@pytest.fixture(scope="module")
def undisturbed(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of a run that nothing interrupts: four shards of at most two pairs."""
    space = workspace(tmp_path_factory.mktemp("undisturbed"))
    embed_pairs(PAIRS, model, config(), space)
    content = bytes_of(space.path)
    assert len(content) == 2 * 4
    return content


def test_the_same_texts_give_the_same_bytes(
    model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    embed_pairs(PAIRS, model, config(), workspace(tmp_path))
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.parametrize("stop_at", range(len(PAIRS)))
def test_an_interrupted_run_continues_to_the_same_bytes(
    model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path, stop_at: int
) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done >= stop_at:
            raise Stop

    with pytest.raises(Stop):
        embed_pairs(PAIRS, model, config(batch_tokens=64), workspace(tmp_path), stop)
    left = bytes_of(tmp_path)
    assert len(left) < len(undisturbed)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(Stop):
        embed_pairs(PAIRS, model, config(), workspace(tmp_path), stop)
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    counts = embed_pairs(PAIRS, model, config(), workspace(tmp_path))
    assert bytes_of(tmp_path) == undisturbed
    assert counts.pairs == len(PAIRS)
    for name, stamp in stamps.items():
        assert (tmp_path / name).stat().st_mtime_ns == stamp, "a finished shard is not computed again"


def _embed_until_killed(model: LanguageModel, folder: Path, name: str, after: bool) -> None:
    """Die at the rename that makes `name` appear, just before it or just after."""
    torch.set_num_threads(1)
    replace = os.replace

    def die(source: Path, target: Path) -> None:
        if Path(target).name != name:
            return replace(source, target)
        if after:
            replace(source, target)
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = die  # type: ignore[assignment]
    embed_pairs(PAIRS, model, config(), Workspace(folder))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["shard-00000.parquet", "shard-00002.parquet", "shard-00002.json"])
def test_a_killed_process_is_continued_to_the_same_bytes(
    model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path, name: str, after: bool
) -> None:
    store = Store(tmp_path)
    folder = store.workspace("embed", "k").path
    process = FORK.Process(target=_embed_until_killed, args=(model, folder, name, after))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (name in bytes_of(folder)) == after
    assert any(key.endswith(".tmp") for key in bytes_of(folder)) != after
    assert set(bytes_of(folder)) < {*undisturbed, f".{name}.tmp"}

    space = store.workspace("embed", "k")
    assert set(bytes_of(space.path)) <= set(undisturbed), "half-written files are gone"
    embed_pairs(PAIRS, model, config(), space)
    assert bytes_of(space.path) == undisturbed
    listed = store.seal(space, "embed", "k", {}, {}, 1.0).manifest["files"]
    assert sorted(listed) == sorted(undisturbed)


def _truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


@pytest.mark.parametrize("spoil", [_flip, _truncate, lambda content: b""])
@pytest.mark.parametrize("name", ["shard-00000.parquet", "shard-00002.parquet", "shard-00001.json"])
def test_only_a_damaged_shard_is_rebuilt(
    model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path, name: str, spoil: Callable[[bytes], bytes]
) -> None:
    store = Store(tmp_path)
    space = store.workspace("embed", "k")
    embed_pairs(PAIRS, model, config(), space)
    folder = store.seal(space, "embed", "k", {}, {}, 1.0).path
    (folder / name).write_bytes(spoil(undisturbed[name]))
    assert not store.is_intact("embed", "k")

    space = store.workspace("embed", "k")
    stamps = {path.name: path.stat().st_mtime_ns for path in space.path.iterdir()}
    embed_pairs(PAIRS, model, config(), space)
    content = bytes_of(space.path)
    content.pop("timing.json", None)
    assert content == undisturbed
    stem = name.split(".")[0]
    for path in space.path.glob("shard-*"):
        same = stamps.get(path.name) == path.stat().st_mtime_ns
        assert same == (path.stem != stem)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"counts": {}}', '{"counts": {"other": 1}, "sha256": "0"}'])
def test_an_unreadable_sidecar_means_the_shard_is_made_again(
    model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path, text: str
) -> None:
    for name, content in undisturbed.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "shard-00001.json").write_text(text)
    embed_pairs(PAIRS, model, config(), workspace(tmp_path))
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.parametrize("spoil", [_flip, _truncate])
def test_a_shard_of_an_interrupted_run_that_differs_from_its_sidecar_is_made_again(
    model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    for name, content in undisturbed.items():
        (tmp_path / name).write_bytes(spoil(content) if name == "shard-00001.parquet" else content)
    embed_pairs(PAIRS, model, config(), workspace(tmp_path))
    assert bytes_of(tmp_path) == undisturbed


def test_a_left_over_temporary_file_is_overwritten(
    model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / ".shard-00001.parquet.tmp").write_bytes(b"x" * 1_000_000)
    embed_pairs(PAIRS, model, config(), workspace(tmp_path))
    assert bytes_of(tmp_path) == undisturbed


def test_sidecars_add_up_to_the_totals(model: LanguageModel, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    totals = embed_pairs(PAIRS, model, config(), workspace(tmp_path))
    notes = [json.loads(content)["counts"] for name, content in undisturbed.items() if name.endswith(".json")]
    assert {name: sum(note[name] for note in notes) for name in notes[0]} == dataclasses.asdict(totals)


# --- the files ---------------------------------------------------------------------------------


def matrices(rows: int, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    return chosen, -chosen - 0.5


def test_the_schema_has_fixed_size_lists_of_floats_that_are_never_null(tmp_path: Path) -> None:
    write_feature_table(feature_table(["a", "b"], *matrices(2)), tmp_path / "shard-00000.parquet")
    schema = pq.read_schema(tmp_path / "shard-00000.parquet")
    kind = pa.list_(pa.field("item", pa.float32(), nullable=False), 3)
    assert schema.names == ["pair_id", "chosen", "rejected"]
    assert schema.field("pair_id").type == pa.string()
    assert schema.field("chosen").type == schema.field("rejected").type == kind
    assert not schema.field("chosen").type.value_field.nullable
    in_memory = feature_table(["a", "b"], *matrices(2)).schema
    assert str(in_memory.field("chosen").type) == "fixed_size_list<item: float not null>[3]"


@pytest.mark.parametrize("rows", [1, 7, 20_000])
def test_features_survive_row_groups_and_shards(tmp_path: Path, rows: int) -> None:
    chosen, rejected = matrices(rows)
    names = [f"p{row}" for row in range(rows)]
    half = rows // 2
    parts = [slice(0, half), slice(half, rows)] if half else [slice(0, rows)]
    for index, part in enumerate(parts):
        table = feature_table(names[part], chosen[part], rejected[part])
        write_feature_table(table, tmp_path / f"shard-{index:05d}.parquet")
    if rows > 2 * 8192:
        assert pq.ParquetFile(tmp_path / "shard-00000.parquet").num_row_groups > 1
    ids, one, two = read_features(tmp_path)
    assert ids == names
    np.testing.assert_array_equal(one, chosen)
    np.testing.assert_array_equal(two, rejected)


def test_features_survive_slicing(tmp_path: Path) -> None:
    chosen, rejected = matrices(10)
    whole = feature_table([f"p{row}" for row in range(10)], chosen, rejected)
    pieces = pa.concat_tables([whole.slice(3, 2), whole.slice(8, 2), whole.slice(0, 0), whole.slice(5, 1)])
    pq.write_table(pieces, tmp_path / "shard-00000.parquet", row_group_size=2)
    ids, one, two = read_features(tmp_path)
    order = [3, 4, 8, 9, 5]
    assert ids == [f"p{row}" for row in order]
    np.testing.assert_array_equal(one, chosen[order])
    np.testing.assert_array_equal(two, rejected[order])


def test_features_survive_a_reader_that_hands_out_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, rejected = matrices(10)
    whole = feature_table([f"p{row}" for row in range(10)], chosen, rejected)
    (tmp_path / "shard-00000.parquet").touch()
    monkeypatch.setattr(pq, "read_table", lambda path: whole.slice(3, 4))
    ids, one, two = read_features(tmp_path)
    assert ids == ["p3", "p4", "p5", "p6"]
    np.testing.assert_array_equal(one, chosen[3:7])
    np.testing.assert_array_equal(two, rejected[3:7])


def test_a_table_of_strided_features_holds_their_values() -> None:
    both = np.arange(24, dtype=np.float32).reshape(4, 6)
    table = feature_table(["a", "b"], both[0::2], both[1::2])
    assert table.column("chosen").to_pylist() == [[0, 1, 2, 3, 4, 5], [12, 13, 14, 15, 16, 17]]
    assert table.column("rejected").to_pylist() == [[6, 7, 8, 9, 10, 11], [18, 19, 20, 21, 22, 23]]
