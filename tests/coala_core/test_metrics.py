"""Metrics against arithmetic in sight, plain loops and known intervals."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.metrics import (
    PairAccuracy,
    group_bootstrap_interval,
    margin_summary,
    pair_accuracy,
    pair_metrics,
    pair_outcomes,
    wilson_interval,
)


def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + math.exp(-x))


def test_pair_metrics_by_hand():
    # differences 2, 0, -1; rewards are twice the scores
    metrics = pair_metrics([3, 1, 0], [1, 1, 1], beta=2)
    assert metrics == pytest.approx(
        {
            "rewards/chosen": 2 * (3 + 1 + 0) / 3,
            "rewards/rejected": 2 * (1 + 1 + 1) / 3,
            "rewards/margins": 2 * (2 + 0 - 1) / 3,
            "rewards/margins_min": 2 * -1,
            "rewards/margins_max": 2 * 2,
            "rewards/accuracies": 1 / 3,  # the tie is a miss, as in TRL
            "probability_margin": (sigmoid(2) + 0.5 + sigmoid(-1)) / 3,  # without beta
        }
    )


def test_pair_accuracy_counts_ties_one_half():
    # two wins, one tie, one loss: (2 + 1/2) / 4
    assert pair_accuracy([2, 5, 1, 0], [1, 4, 1, 3]) == PairAccuracy(accuracy=0.625, successes=2.5, ties=1, pairs=4)
    assert pair_outcomes([2, 5, 1, 0], [1, 4, 1, 3]).tolist() == [1, 1, 0.5, 0]


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=30))
def test_accuracies_of_both_directions_sum_to_one(pairs):
    chosen, rejected = zip(*pairs, strict=True)
    forward, backward = pair_accuracy(chosen, rejected), pair_accuracy(rejected, chosen)
    assert forward.accuracy + backward.accuracy == pytest.approx(1)
    assert forward.ties == sum(a == b for a, b in pairs)


def test_margin_summary_by_hand():
    # mean 2, squared deviations 4, 1, 0, 9 with mean 3.5; middle values 1 and 2
    summary = margin_summary([0, 1, 2, 5])
    assert (summary.mean, summary.min, summary.median, summary.max) == (2, 0, 1.5, 5)
    assert summary.std == pytest.approx(math.sqrt(3.5))


def test_wilson_interval_by_its_formula():
    z, n, p = 1.959963984540054, 20, 15 / 20
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson_interval(15, 20, 0.95) == pytest.approx((centre - half, centre + half), rel=1e-10)


def test_wilson_interval_takes_half_successes():
    low, high = wilson_interval(2.5, 4, 0.95)
    assert wilson_interval(2, 4, 0.95)[0] < low < wilson_interval(3, 4, 0.95)[0]
    assert wilson_interval(2, 4, 0.95)[1] < high < wilson_interval(3, 4, 0.95)[1]


@given(st.integers(1, 500), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_interval_holds_the_proportion_and_stays_in_range(n, share, confidence):
    successes = round(2 * share * n) / 2
    low, high = wilson_interval(successes, n, confidence)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1


def test_group_bootstrap_interval_of_two_groups_by_enumeration():
    # Groups a: (1, 1), b: (0). Draws aa, ab, ba, bb give means 1, 2/3, 2/3, 0 with probability 1/4 each:
    # the 10 % and 90 % quantiles are 0 and 1, the 30 % and 70 % quantiles both 2/3.
    outcomes, groups = [1, 0, 1], ["a", "b", "a"]
    assert group_bootstrap_interval(outcomes, groups, 0.8, 4000, seed=0) == (0, 1)
    assert group_bootstrap_interval(outcomes, groups, 0.4, 4000, seed=0) == pytest.approx((2 / 3, 2 / 3))


def test_group_bootstrap_interval_agrees_with_a_plain_loop():
    rng = np.random.default_rng(1)
    groups = [f"g{i}" for i in rng.integers(40, size=150)]
    outcomes = rng.integers(3, size=150) / 2
    rows = {name: [o for o, g in zip(outcomes, groups, strict=True) if g == name] for name in groups}
    draw, means = random.Random(5), []
    for _ in range(4000):
        drawn = [o for name in draw.choices(sorted(rows), k=len(rows)) for o in rows[name]]
        means.append(sum(drawn) / len(drawn))
    expected = np.quantile(means, [0.05, 0.95])
    # both are Monte Carlo: the standard error of such a quantile is about 0.002 here
    assert group_bootstrap_interval(outcomes, groups, 0.9, 4000, seed=0) == pytest.approx(expected, abs=0.01)


def test_group_bootstrap_interval_is_wider_where_groups_repeat_an_outcome():
    outcomes = np.repeat(np.random.default_rng(0).normal(size=40), 9)
    grouped = group_bootstrap_interval(outcomes, [str(i // 9) for i in range(360)], 0.95, 4000, seed=0)
    single = group_bootstrap_interval(outcomes, [str(i) for i in range(360)], 0.95, 4000, seed=0)
    # nine copies of each outcome: the standard error is sqrt(9) times that of 360 free rows
    ratio = (grouped[1] - grouped[0]) / (single[1] - single[0])
    assert ratio == pytest.approx(3, rel=0.1)


def test_group_bootstrap_interval_depends_on_the_seed_and_not_on_the_order():
    rng = np.random.default_rng(2)
    outcomes, groups = rng.integers(2, size=99), [f"g{i % 13}" for i in range(99)]
    order = rng.permutation(99)
    first = group_bootstrap_interval(outcomes, groups, 0.95, 500, seed=3)
    assert first == group_bootstrap_interval(outcomes[order], [groups[i] for i in order], 0.95, 500, seed=3)
    assert first != group_bootstrap_interval(outcomes, groups, 0.95, 500, seed=4)


def test_group_bootstrap_in_blocks_agrees_with_one_block(monkeypatch):
    rng = np.random.default_rng(2)
    outcomes, groups = rng.integers(2, size=400), [f"g{i % 50}" for i in range(400)]
    whole = group_bootstrap_interval(outcomes, groups, 0.95, 3000, seed=3)
    monkeypatch.setattr("coala_core.metrics._DRAWS_PER_BLOCK", 7 * 50 + 1)
    assert group_bootstrap_interval(outcomes, groups, 0.95, 3000, seed=3) == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_metrics([1, 2], [1], 1), r"`pair_metrics\(.*one length.* \(2,\) and \(1,\)"),
        (lambda: pair_metrics([1], [1], 0), r"beta=.* above 0, got 0"),
        (lambda: pair_accuracy([], []), r"at least 1, got shapes \(0,\)"),
        (lambda: margin_summary([]), r"non-empty vector, got shape \(0,\)"),
        (lambda: wilson_interval(3, 2, 0.95), r"0 <= successes <= n .* got 3 and 2"),
        (lambda: wilson_interval(0, 0, 0.95), r"n >= 1, got 0 and 0"),
        (lambda: wilson_interval(1, 2, 95), r"`wilson_interval\(confidence=.* inside \(0, 1\), got 95"),
        (lambda: group_bootstrap_interval([1, 0], ["a"], 0.9, 9, 0), r"one group per outcome, got 1"),
        (lambda: group_bootstrap_interval([1, 0], ["a", "a"], 0.9, 9, 0), r"at least 2 groups .* got 1 and 9"),
        (lambda: group_bootstrap_interval([1, 0], ["a", "b"], 0.9, 0, 0), r"1 resample, got 2 and 0"),
        (lambda: group_bootstrap_interval([1, 0], ["a", "b"], 1, 9, 0), r"confidence=.* inside \(0, 1\), got 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
