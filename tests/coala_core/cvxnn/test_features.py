import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import fit_head, fit_path, path
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


FLOATS, SIGNS = np.random.default_rng(0).standard_normal((12, 3)), np.repeat([1.0, -1.0], 6)
CONFIG = SolveConfig(gates=2, probe_gates=0, backend="numpy", max_sweeps=20)


@pytest.mark.parametrize("fit", [fit_head, fit_path])
@pytest.mark.parametrize("settings", [{}, {"rows": "pairwise"}, {"activation": "gated_relu"}])
@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (
            np.full((12, 3), np.nan),
            SIGNS,
            r"features=...\)` must be finite in float32, got 36 .*, first in row 0; embed",
        ),
        (np.full((12, 3), np.inf), SIGNS, r"features=...\)` must be finite in float32, got 36 entries"),
        (
            np.where(FLOATS > 1, np.inf, FLOATS).astype(np.float16),
            SIGNS,
            r"features=...\)` must be finite .* float16 overflows above 65504, use",
        ),
        (FLOATS, np.repeat([1.0, 0.0], 6), r"labels=...\)` must hold only -1 and \+1, got \{0, 1\}; map"),
        (FLOATS, np.ones(12), r"labels=...\)` must hold both classes, got only \+1; pass"),
        (FLOATS[:, :0], SIGNS, r"features=...\)` must be a matrix .*, got shape \(12, 0\); pass one row"),
        (FLOATS[:0], SIGNS[:0], r"features=...\)` must be a matrix .*, got shape \(0, 3\); pass one row"),
        (FLOATS.astype(int), SIGNS, r"features=...\)` must hold floating-point numbers, got dtype int64; convert it"),
        (FLOATS.astype(object), SIGNS, r"features=...\)` must hold floating-point numbers, got dtype object; convert"),
        (FLOATS.astype(complex), SIGNS, r"features=...\)` must hold floating-point numbers, got dtype complex128"),
        ([["a"] * 3] * 12, SIGNS, r"features=...\)` must hold floating-point numbers, got dtype <U1; convert"),
        (FLOATS, SIGNS.astype(object), r"labels=...\)` must hold real numbers, got dtype object; convert"),
        (FLOATS, SIGNS > 0, r"labels=...\)` must hold real numbers, got dtype bool; convert"),
        (
            FLOATS,
            SIGNS[:, None],
            r"labels=...\)` must hold one label per row .*, got shape \(12, 1\) for 12 rows; pass",
        ),
    ],
)
def test_both_doors_refuse_bad_input_and_compute_nothing(monkeypatch, fit, settings, features, labels, message):
    monkeypatch.setattr(path, "solve", lambda *_args, **_kwargs: pytest.fail("something was solved"))
    config = CONFIG.model_copy(update={"lasso_weight": 1.0, **settings})
    with pytest.raises(ValueError, match=rf"^`{fit.__name__}\({message}") as refused:
        fit(features, labels, config)
    assert str(refused.value).count(". ") == 0
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_gates_that_are_no_numbers_or_too_many_are_refused(activation):
    config = CONFIG.model_copy(update={"activation": activation})
    with pytest.raises(ValueError, match=r"`fit_head\(gates=...\)` must hold real numbers, got dtype object; convert"):
        fit_head(FLOATS, SIGNS, config, gates=np.ones((4, 2), dtype=object), lasso_weight=1.0)
    with pytest.raises(ValueError, match="must find 9 distinct activation patterns, found 3 in .*; lower"):
        fit_head(FLOATS[[0, 6], :1], SIGNS[[0, 6]], config.model_copy(update={"gates": 9}), lasso_weight=1.0)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_columns_that_do_not_vary_are_counted_and_get_no_weight(activation):
    constant, tiny = np.full((12, 2), 7.0), FLOATS[:, :1] * 1e-40
    features = np.hstack([FLOATS, constant, tiny])
    config = CONFIG.model_copy(update={"activation": activation})
    solution = fit_head(features, SIGNS, config, lasso_weight=0.5)
    plain = fit_head(FLOATS, SIGNS, config, lasso_weight=0.5)
    assert (solution.constant_columns, plain.constant_columns) == (3, 0)
    assert len(solution.head.second_weight)
    assert (solution.head.first_weight[:, 3:] == 0).all()
    assert np.isfinite(solution.head.score(features)).all()
    if activation == "gated_relu":
        assert (solution.head.gate_weight[:, 3:] == 0).all()


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
