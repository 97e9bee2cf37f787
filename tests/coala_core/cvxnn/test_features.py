import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.cvxnn.features import check_features, fit_standardiser

GOOD = np.arange(6.0).reshape(3, 2)
LABELS = np.array([1.0, -1.0, 1.0])


def with_entry(value, dtype=np.float32):
    features = GOOD.astype(dtype)
    features[1:, 1] = value
    return features


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (GOOD[0], LABELS, r"`fit_head\(features=...\)` must be a matrix .*, got shape \(2,\); pass one row"),
        (GOOD[:, :0], LABELS, r"at least one row and one column, got shape \(3, 0\)"),
        (GOOD[:0], LABELS[:0], r"got shape \(0, 2\)"),
        (GOOD, LABELS[:2], r"one label per row of features, got shape \(2,\) for 3 rows"),
        (GOOD, np.array([0, 1, 1]), r"`fit_head\(labels=...\)` must hold only -1 and \+1, got \{0, 1\}; map rejected"),
        (GOOD, np.array([np.nan, 1, 1]), r"must hold only -1 and \+1, got \{1, nan\}"),
        (GOOD, np.ones(3), r"must hold both classes, got only \+1; pass chosen and rejected"),
        (with_entry(np.nan), LABELS, r"must be finite in float32, got 2 entries that are not, first in row 1"),
        (with_entry(np.inf), LABELS, r"got 2 entries that are not, first in row 1; embed again: check that stage"),
        (with_entry(1e39, np.float64), LABELS, r"must be finite in float32, got 2 entries"),
        (with_entry(np.inf, np.float16), LABELS, r"float16 overflows above 65504, use float32"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(features, labels, message):
    with pytest.raises(ValueError, match=message):
        check_features(features, labels, "fit_head")


def test_good_input_passes_whatever_its_number_type():
    check_features(GOOD.astype(np.float16), LABELS.astype(int), "fit_head")


def test_columns_get_mean_zero_and_spread_one_and_a_constant_follows(xp):
    # Column (1, 3, 5): mean 3, standard deviation sqrt(8/3). The constant column maps to 0.
    features = xp.asarray([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]])
    z = fit_standardiser(features).apply(features)
    far = 2 / np.sqrt(8 / 3)
    assert_allclose(z.tolist(), [[-far, 0, 1], [0, 0, 1], [far, 0, 1]], atol=1e-15)


def test_rounding_noise_counts_as_constant():
    features = np.full((5, 1), 1000.0)
    features[::2] *= 1 + 1e-8
    assert fit_standardiser(features).inverse_scale.tolist() == [0.0]


def test_folded_weights_give_the_same_preactivations():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((8, 3)) * [1, 50, 1] + [0, 900, 7]
    features[:, 2] = 7
    standardiser = fit_standardiser(features)
    weights = rng.standard_normal((4, 2))
    raw, bias = standardiser.fold(weights)
    assert_allclose(features @ raw.T + bias, standardiser.apply(features) @ weights, atol=1e-10)
