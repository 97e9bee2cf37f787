import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.comparison import compare_paired, fewest_groups

SETTINGS = {"confidence": 0.95, "resamples": 400, "seed": 0}


def groups_of(count: int, size: int = 2) -> list[str]:
    return [f"g{i // size}" for i in range(count * size)]


def test_the_lead_is_the_difference_of_accuracies_and_ties_count_one_half():
    mine, theirs = [1.0, 1.0, 0.5, 0.0], [0.0, 1.0, 1.0, 0.0]
    found = compare_paired(mine, theirs, groups_of(4, 1), **SETTINGS)
    assert (found.lead, found.won, found.lost, found.pairs) == (0.125, 1, 1, 4)  # 2.5 of 4 against 2 of 4


def test_a_head_that_wins_everywhere_is_better_and_one_that_ties_everywhere_is_not():
    names = groups_of(6)
    better = compare_paired(np.ones(12), np.zeros(12), names, **SETTINGS)
    assert (better.interval, better.better) == ((1.0, 1.0), True)
    same = compare_paired(np.ones(12), np.ones(12), names, **SETTINGS)
    assert (same.interval, same.better) == ((0.0, 0.0), False)


def test_without_a_rival_it_is_compared_with_guessing():
    found = compare_paired([1.0, 1.0, 0.0, 0.5], None, groups_of(4, 1), **SETTINGS)
    assert found.lead == 2.5 / 4 - 0.5


@pytest.mark.parametrize(("groups", "told"), [(5, False), (6, True)])
def test_too_few_groups_tell_nothing_even_if_all_agree(groups, told):
    # All of 5 groups agree by chance in 2^-5 = 3.1 % of cases, more than the 2.5 % of each side; 6 in 1.6 %.
    found = compare_paired(np.ones(2 * groups), np.zeros(2 * groups), groups_of(groups), **SETTINGS)
    assert (found.interval is not None, found.better) == (told, told)


@given(st.floats(0.5, 0.999))
def test_the_fewest_groups_are_the_first_whose_agreement_is_rarer_than_a_miss(confidence):
    fewest = fewest_groups(confidence)
    miss = (1 - confidence) / 2
    assert 2.0**-fewest <= miss * (1 + 1e-9)
    assert fewest == 2 or 2.0 ** -(fewest - 1) > miss * (1 - 1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2), min_size=6, max_size=40))
def test_nobody_beats_whoever_beats_them(pairs):
    mine, theirs = zip(*pairs, strict=True)
    names = [f"g{i % 6}" for i in range(len(pairs))]
    ahead, behind = compare_paired(mine, theirs, names, **SETTINGS), compare_paired(theirs, mine, names, **SETTINGS)
    assert not (ahead.better and behind.better)
    assert ahead.lead == pytest.approx(-behind.lead)
    assert not ahead.better or ahead.lead > 0


def test_vectors_of_other_pairs_are_refused():
    with pytest.raises(ValueError, match=r"one entry per pair, at least 1, got shapes \(2,\), \(1,\) and 2 groups"):
        compare_paired([1.0, 0.0], [1.0], ["a", "b"], **SETTINGS)
    with pytest.raises(ValueError, match=r"inside \(0, 1\), got 95; use 0.95"):
        fewest_groups(95)
