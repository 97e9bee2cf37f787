"""Length and position bias, by counts that stand in the test."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from coala_core.quality.lengths import by_position, by_turn, effective_pairs, length_bias, length_by_turn
from coala_core.quality.numbers import NumberCollector, PairNumbers
from tests.hand_pairs import Pair, batches


def numbers_of(tmp_path: Path, pairs: list[Pair]) -> PairNumbers:
    collector = NumberCollector()
    for batch in batches(tmp_path, pairs):
        collector.add(batch)
    return collector.numbers()


def test_longer_shorter_and_equal_ones_are_counted() -> None:
    # Longer, longer, longer, shorter, equal; every pair a group of its own.
    bias = length_bias([8, 4, 9, 2, 5], [4, 2, 3, 4, 5], range(5))
    assert (bias["longer_share"], bias["shorter_share"], bias["equal_share"]) == (0.6, 0.2, 0.2)
    # Three right and a tie of five.
    assert (bias["longer_wins"], bias["shorter_wins"]) == pytest.approx((0.7, 0.3))
    assert bias["effective_pairs"] == 5
    assert bias["wilson"] == pytest.approx(list(proportion_confint(3.5, 5, method="wilson")))
    # Ratios 2, 2, 3, 1/2 and 1 have the product 6.
    assert bias["mean_log_ratio"] == pytest.approx(math.log(6) / 5)
    assert bias["typical_ratio"] == pytest.approx(6**0.2)


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_copies_of_a_pair_in_its_group_say_nothing_new(copies: int) -> None:
    outcomes = np.array([1.0, 0, 0, 1, 1, 0.5])
    assert effective_pairs(np.repeat(outcomes, copies), np.repeat(np.arange(6), copies)) == 6
    once, often = (
        length_bias(np.repeat([2, 1, 1], n), np.repeat([1, 2, 2], n), np.repeat([0, 1, 2], n)) for n in (1, copies)
    )
    assert often["wilson"] == pytest.approx(once["wilson"])


def test_effective_pairs_at_the_ends() -> None:
    # All alike: a group counts once. Groups that balance exactly: never more than there are.
    assert effective_pairs(np.ones(6), np.array([0, 0, 0, 1, 1, 2])) == 3
    assert effective_pairs(np.array([1.0, 0, 1, 0]), np.array([5, 5, 9, 9])) == 4


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(0, 4)), min_size=1, max_size=40))
def test_shares_add_up_and_the_interval_holds_the_share(rows: list[tuple[int, int, int]]) -> None:
    bias = length_bias(*zip(*rows, strict=True))
    assert bias["longer_share"] + bias["shorter_share"] + bias["equal_share"] == pytest.approx(1)
    assert bias["longer_wins"] == pytest.approx(bias["longer_share"] + bias["equal_share"] / 2)
    low, high = bias["wilson"]
    assert 0 <= low <= bias["longer_wins"] + 1e-12 and bias["longer_wins"] - 1e-12 <= high <= 1
    assert 1 <= bias["effective_pairs"] <= len(rows)


REPLIES = ["1", "333", "22"]
ONE = [Pair("a", turn, ["q"], REPLIES[turn - 1], REPLIES[turn]) for turn in (1, 2)]


def test_turns_and_positions_of_adjacent_pairs(tmp_path: Path) -> None:
    numbers = numbers_of(tmp_path, [*ONE, Pair("b", 1, ["q"], "4444", "55555")])
    first, second = by_turn(numbers)
    # Turn 1: 1 against 3 and 4 against 5 characters; turn 2: 3 against 2.
    assert (first["pairs"], first["chosen_characters"], first["rejected_characters"]) == (2, 2.5, 4.0)
    assert (first["longer_wins"], second["longer_wins"], second["pairs"]) == (0.0, 1.0, 1)
    assert not first["and_later"]
    # In turn 1 the shorter one is right both times, in turn 2 the longer one.
    assert length_by_turn([first, second]) == 1.0
    assert [(row["position"], row["chosen"], row["rejected"]) for row in by_position(numbers)] == [
        (1, 2, 0),
        (2, 1, 2),
        (3, 0, 1),
    ]
    assert [row["chosen_share"] for row in by_position(numbers)] == pytest.approx([1, 1 / 3, 0])
    # Place 2: "333" chosen once and rejected once, "55555" rejected.
    assert [row["characters"] for row in by_position(numbers)] == pytest.approx([2.5, 11 / 3, 2])


def test_positions_of_all_later_pairs(tmp_path: Path) -> None:
    distant = Pair("a", 1, ["q"], REPLIES[0], REPLIES[2], pair_id="a#1-3")
    # Reply 1 is chosen twice, reply 2 once and rejected once, reply 3 rejected twice.
    counted = by_position(numbers_of(tmp_path, [ONE[0], distant, ONE[1]]))
    assert [(row["chosen"], row["rejected"]) for row in counted] == [(2, 0), (1, 1), (0, 2)]


def test_late_turns_are_one_row(tmp_path: Path) -> None:
    pairs = [Pair("a", turn, ["q"], "x" * turn, "x") for turn in range(1, 16)]
    rows = by_turn(numbers_of(tmp_path, pairs))
    assert len(rows) == 12
    assert (rows[-1]["turn"], rows[-1]["and_later"], rows[-1]["pairs"]) == (12, True, 4)
    # Of 12, 13, 14 and 15 characters.
    assert rows[-1]["chosen_characters"] == 13.5
    assert sum(row["pairs"] for row in rows) == 15
    positions = by_position(numbers_of(tmp_path, pairs))
    assert [row["position"] for row in positions] == list(range(1, 13))
    assert positions[11]["chosen"] == 1
