"""Pairs are validated at construction and joined by id."""

import numpy as np
import pytest

from coala_core.pairs import PairFeatures, require_same_width, require_separate_groups


def fields(**changes):
    """Three valid pairs in two groups, with some fields replaced."""
    return {
        "pair_ids": ["b", "a", "c"],
        "groups": ["g", "h", "g"],
        "chosen": np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32),
        "rejected": np.array([[0, 0], [1, 1], [2, 2]], dtype=np.float32),
        "chosen_length": np.array([10, 20, 30]),
        "rejected_length": np.array([11, 21, 31]),
    } | changes


def test_sorting_moves_every_field_with_its_id():
    pairs = PairFeatures(**fields()).sorted_by_id()
    assert pairs.pair_ids == ["a", "b", "c"]
    assert pairs.groups == ["h", "g", "g"]
    assert pairs.chosen.tolist() == [[3, 4], [1, 2], [5, 6]]
    assert pairs.rejected.tolist() == [[1, 1], [0, 0], [2, 2]]
    assert pairs.chosen_length.tolist() == [20, 10, 30]
    assert pairs.rejected_length.tolist() == [21, 11, 31]
    assert (len(pairs), pairs.width) == (3, 2)


EMPTY = np.zeros((0, 2), dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_ids": [], "groups": [], "chosen": EMPTY, "rejected": EMPTY}, r"pair_ids=.* at least one pair, got 0"),
        ({"pair_ids": ["a", "b", "a"]}, r"pair_ids=.* distinct, got 'a' 2 times"),
        ({"groups": ["g"]}, r"groups=.* one group per pair, got 1 for 3 pairs"),
        ({"chosen": np.zeros((3, 2))}, r"chosen=.* float32 of shape \(3, d\).* got float64"),
        ({"rejected": np.zeros((3, 5), dtype=np.float32)}, r"rejected=.* alike .* got float32 of shape \(3, 5\)"),
        ({"rejected": np.zeros((2, 2), dtype=np.float32)}, r"rejected=.*got float32 of shape \(2, 2\)"),
        ({"chosen": np.full((3, 2), np.nan, dtype=np.float32)}, r"chosen=.* finite, got 0 finite of 6 values"),
        ({"chosen_length": np.array([1, -1, 2])}, r"chosen_length=.* non-negative integers"),
        ({"rejected_length": np.array([1.0, 2.0, 3.0])}, r"rejected_length=.* got float64"),
        ({"rejected_length": np.array([1, 2])}, r"rejected_length=.* 3 non-negative integers.* \(2,\)"),
    ],
)
def test_fields_that_do_not_describe_the_same_pairs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PairFeatures(**fields(**changes))


def test_widths_are_compared_by_argument():
    pairs = PairFeatures(**fields())
    require_same_width("f", 2, train=pairs)
    with pytest.raises(ValueError, match=r"`f\(test=...\)` must have the 3 features .* got 2"):
        require_same_width("f", 3, test=pairs)


def test_a_group_in_two_splits_is_refused():
    train = PairFeatures(**fields())
    apart = PairFeatures(**fields(groups=["i", "j", "k"]))
    require_separate_groups("f", train=train, test=apart)
    with pytest.raises(ValueError, match=r"`f\(test=...\)` must share no group with `train`, got 'g' in both"):
        require_separate_groups("f", train=train, test=PairFeatures(**fields(groups=["i", "g", "k"])))
