"""Which pairs a sample holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from coala_core.quality.sample import CHARACTERS, SHOWN, SampleCollector
from tests.hand_pairs import Pair, batches

PAIRS = [Pair(f"c{at:03}", 1 + at % 2, ["hello", "yes", f"q{at}"], f"a{at}", f"b{at}") for at in range(40)]


def sample(tmp_path: Path, size: int, seed: int, rows: int = 7) -> SampleCollector:
    collector = SampleCollector(len(PAIRS), size, seed)
    for batch in batches(tmp_path, PAIRS, rows):
        collector.add(batch)
    return collector


def test_small_data_is_taken_whole(tmp_path: Path) -> None:
    drawn = sample(tmp_path, 1000, seed=0)
    assert [pair.pair_id for pair in drawn.sampled] == [f"c{at:03}#{1 + at % 2}" for at in range(40)]
    assert len(drawn.shown) == SHOWN
    third = drawn.sampled[2]
    assert third == ("c002", "c002#1", 1, 3, "q2", "a2", "b2")


def test_a_sample_is_drawn_without_replacement_and_by_its_seed(tmp_path: Path) -> None:
    ten = sample(tmp_path, 10, seed=1)
    assert len({pair.pair_id for pair in ten.sampled}) == 10
    assert ten.sampled == sample(tmp_path, 10, seed=1, rows=3).sampled
    assert ten.sampled != sample(tmp_path, 10, seed=2).sampled
    assert set(ten.shown) <= set(ten.sampled)


def test_every_pair_is_as_likely_as_any_other(tmp_path: Path) -> None:
    counts = dict.fromkeys(range(40), 0)
    for seed in range(400):
        for row in SampleCollector(40, 10, seed)._rows.tolist():
            counts[row] += 1
    # 400 draws of 10 in 40: 100 a pair, and a deviation of at most five standard ones, sqrt(400 * 1/4 * 3/4) = 8.7.
    assert all(count == pytest.approx(100, abs=44) for count in counts.values())


def test_long_texts_are_cut(tmp_path: Path) -> None:
    collector = SampleCollector(1, 1, 0)
    for batch in batches(tmp_path, [Pair("a", 1, ["q"], "x" * (CHARACTERS + 5), "y")]):
        collector.add(batch)
    assert len(collector.sampled[0].chosen) == CHARACTERS
