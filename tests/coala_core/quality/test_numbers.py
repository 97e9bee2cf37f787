"""Lengths, sizes and groups, on tables small enough to count by eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coala_core.quality.batches import count_pairs, read_batches
from coala_core.quality.numbers import (
    NumberCollector,
    PairNumbers,
    distribution,
    largest_groups,
    last_turns,
    size_report,
)
from tests.hand_pairs import Pair, batches, write_pairs

PAIRS = [
    Pair("a", 1, ["Why?"], "Because so.", "No", group="x"),
    Pair("a", 2, ["Why?", "Because so.", "And?"], "No", " No\n", group="x"),
    Pair("b", 1, ["Ünd 你好 ?"], "ß", "five little words stand here", group="y"),
    Pair("c", 1, ["q"], "same", "same", group="x"),
    Pair("c", 2, ["q", "same", "q"], "same", "other", group="x", pair_id="c#2-4"),
]


def collect(path: Path, rows: int) -> PairNumbers:
    collector = NumberCollector()
    for batch in read_batches(path, rows):
        collector.add(batch)
    return collector.numbers()


@pytest.mark.parametrize("rows", [1, 2, 4, 99])
def test_numbers_of_every_pair(tmp_path: Path, rows: int) -> None:
    numbers = collect(write_pairs(tmp_path / "t.parquet", PAIRS), rows)
    # Why? is 4 characters, "Because so." 11, "And?" 4: the second prompt has 19 in 4 words.
    assert numbers.characters["prompt"].tolist() == [4, 19, 8, 1, 6]
    assert numbers.words["prompt"].tolist() == [1, 4, 3, 1, 3]
    assert numbers.characters["chosen"].tolist() == [11, 2, 1, 4, 4]
    assert numbers.characters["rejected"].tolist() == [2, 4, 28, 4, 5]
    assert numbers.words["rejected"].tolist() == [1, 1, 5, 1, 1]
    assert numbers.messages.tolist() == [1, 3, 1, 1, 3]
    assert numbers.identical.tolist() == [False, True, False, True, False]
    assert (numbers.turn.tolist(), numbers.later.tolist()) == ([1, 2, 1, 1, 2], [2, 3, 2, 2, 4])
    assert (len(numbers), numbers.conversations, numbers.groups) == (5, 3, 2)
    assert sorted(np.bincount(numbers.conversation)) == [1, 2, 2]
    assert last_turns(numbers)[numbers.conversation].tolist() == [2, 2, 1, 2, 2]


def test_sizes(tmp_path: Path) -> None:
    report = size_report(collect(write_pairs(tmp_path / "t.parquet", PAIRS), 2))
    assert (report["pairs"], report["conversations"], report["groups"]) == (5, 3, 2)
    # Group x has four of five pairs.
    assert report["largest_group_share"] == 0.8
    assert report["pairs_per_group"] == {
        "min": 1.0, "lower_quartile": 1.75, "median": 2.5, "upper_quartile": 3.25, "max": 4.0, "mean": 2.5,
    }  # fmt: skip
    assert report["pairs_per_conversation"]["mean"] == pytest.approx(5 / 3)
    assert (report["identical_pairs"], report["identical_share"]) == (2, 0.4)


def test_largest_groups_come_first_and_ties_by_their_first_row(tmp_path: Path) -> None:
    pairs = [Pair(name, 1, ["q"], "a", "b", group=name[0]) for name in ("u1", "v1", "v2", "w1", "w2")]
    numbers = collect(write_pairs(tmp_path / "t.parquet", pairs), 3)
    assert largest_groups(numbers, 2) == [(1, 2), (3, 2)]
    assert largest_groups(numbers, 9) == [(1, 2), (3, 2), (0, 1)]


def test_a_distribution_has_the_quartiles_of_its_values() -> None:
    assert distribution(np.array([1, 2, 3, 4, 10])) == {
        "min": 1.0, "lower_quartile": 2.0, "median": 3.0, "upper_quartile": 4.0, "max": 10.0, "mean": 4.0,
    }  # fmt: skip


def test_batches_hold_each_text_once_and_find_it_again(tmp_path: Path) -> None:
    seen = []
    for batch in batches(tmp_path, PAIRS, rows=2):
        texts = batch.texts.to_pylist()
        assert len(texts) == len(set(texts))
        for at in range(len(batch)):
            prompt = [texts[place] for place in batch.prompt[batch.prompt_pair == at]]
            assert texts[batch.last_message[at]] == prompt[-1]
            seen.append((prompt, texts[batch.chosen[at]], texts[batch.rejected[at]]))
    assert seen == [(list(pair.prompt), pair.chosen, pair.rejected) for pair in PAIRS]
    assert count_pairs(tmp_path / "triplets.parquet") == 5


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
some_pairs = st.lists(st.tuples(st.lists(text, min_size=1, max_size=4), text, text), min_size=1, max_size=8)


@given(some_pairs, st.integers(1, 9))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_lengths_are_those_of_plain_python(
    tmp_path: Path, rows: list[tuple[list[str], str, str]], batch_rows: int
) -> None:
    pairs = [Pair(str(at), 1, *row) for at, row in enumerate(rows)]
    numbers = collect(write_pairs(tmp_path / "t.parquet", pairs), batch_rows)
    assert numbers.characters["prompt"].tolist() == [sum(map(len, prompt)) for prompt, _, _ in rows]
    assert numbers.words["prompt"].tolist() == [sum(len(t.split()) for t in prompt) for prompt, _, _ in rows]
    assert numbers.characters["rejected"].tolist() == [len(rejected) for _, _, rejected in rows]
    assert numbers.identical.tolist() == [chosen.strip() == rejected.strip() for _, chosen, rejected in rows]
