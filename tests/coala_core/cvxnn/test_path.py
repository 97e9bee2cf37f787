import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import Status, fit_head, fit_path, sample_gates
from coala_core.cvxnn.features import fit_standardiser
from coala_core.cvxnn.problem import convex_problem
from tests.dense import network_score, optimum
from tests.problems import random_features

FEATURES, LABELS = random_features(90, 5, 0)
CONFIG = SolveConfig(gates=6, probe_gates=3, tolerance=1e-4, max_cone_violation=1e-5, max_sweeps=5000)


@pytest.fixture(scope="module")
def path():
    return fit_path(FEATURES, LABELS, CONFIG)


def head_bytes(head):
    return head.first_weight.tobytes() + head.first_bias.tobytes() + head.second_weight.tobytes()


def test_every_weight_agrees_with_cvxpy(path):
    z = fit_standardiser(FEATURES).apply(FEATURES)
    patterns = (z @ sample_gates(z, LABELS, CONFIG) >= 0).astype(float)
    assert [s.lasso_weight for s in path.solutions] == [share * path.zero_weight for share in CONFIG.path]
    for solution in path.solutions[::3]:
        expected, _ = optimum(z, LABELS, patterns, solution.lasso_weight)
        assert solution.status is Status.CONVERGED
        assert solution.lower_bound <= expected * (1 + 1e-7)
        assert solution.upper_bound == pytest.approx(expected, rel=2e-4)
        assert abs(solution.gap) <= 1e-4
        assert solution.network_objective == pytest.approx(solution.upper_bound, rel=1e-3)


def test_head_on_raw_features_is_the_convex_prediction(path):
    solution = path.solutions[-1]
    score = solution.head.score(FEATURES)
    # On the cones the objective is loss + lasso, and the network's decay equals the lasso.
    weights = fit_standardiser(FEATURES)
    head = solution.head
    theta = np.hstack([head.first_weight * (1 / weights.inverse_scale), np.zeros((len(head.first_bias), 1))])
    theta[:, -1] = head.first_bias + head.first_weight @ weights.mean
    lasso = (np.linalg.norm(theta, axis=1) * np.abs(head.second_weight)).sum()
    loss = 0.5 * ((score - LABELS) ** 2).sum()
    assert loss + solution.lasso_weight * lasso == pytest.approx(solution.upper_bound, rel=1e-3)
    assert_allclose(score, network_score(head.first_weight, head.first_bias, head.second_weight, FEATURES), rtol=1e-9)
    assert np.mean(np.sign(score) == LABELS) > 0.8
    assert head.first_weight.dtype == head.first_bias.dtype == head.second_weight.dtype == np.float32


def test_head_matches_the_point_of_the_program():
    z = fit_standardiser(FEATURES).apply(FEATURES)
    gates = sample_gates(z, LABELS, CONFIG)
    problem = convex_problem(z, LABELS, gates)
    solution = fit_head(FEATURES, LABELS, CONFIG, gates=gates, lasso_weight=1.0)
    v, w = optimum(z, LABELS, problem.patterns, 1.0)[1]
    prediction = (problem.patterns * (z @ (v - w))).sum(axis=1)
    assert np.linalg.norm(solution.head.score(FEATURES) - prediction) < 0.03 * np.linalg.norm(prediction)


def test_rows_and_scale_of_features_do_not_matter():
    gates = np.random.default_rng(0).standard_normal((6, 4))
    tight = CONFIG.model_copy(update={"tolerance": 1e-7, "max_cone_violation": 1e-7})
    base = fit_head(FEATURES, LABELS, tight, gates=gates, lasso_weight=2.0)
    order = np.random.default_rng(1).permutation(len(LABELS))
    shuffled = fit_head(FEATURES[order], LABELS[order], tight, gates=gates, lasso_weight=2.0)
    scaled = fit_head(FEATURES * 8.0 + 16.0, LABELS, tight, gates=gates, lasso_weight=2.0)
    assert_allclose(shuffled.head.score(FEATURES), base.head.score(FEATURES), atol=1e-4)
    assert_allclose(scaled.head.score(FEATURES * 8.0 + 16.0), base.head.score(FEATURES), atol=1e-4)


def test_same_seed_same_bytes(path):
    again = fit_path(FEATURES, LABELS, CONFIG)
    assert [head_bytes(s.head) for s in again.solutions] == [head_bytes(s.head) for s in path.solutions]
    assert [s.history for s in again.solutions] == [s.history for s in path.solutions]


def test_every_weight_agrees_with_a_cold_start(path):
    for warm in path.solutions:
        cold = fit_head(FEATURES, LABELS, CONFIG, lasso_weight=warm.lasso_weight)
        assert cold.status is warm.status is Status.CONVERGED
        # Both objectives are within their gaps of one optimum, and each bound lies below the other's objective.
        within = sum(abs(s.gap) * max(1.0, s.upper_bound) for s in (warm, cold))
        assert abs(warm.upper_bound - cold.upper_bound) <= within
        assert warm.lower_bound <= cold.upper_bound + 1e-4 * max(1.0, cold.upper_bound)
        assert cold.lower_bound <= warm.upper_bound + 1e-4 * max(1.0, warm.upper_bound)


def test_warm_starts_cost_fewer_sweeps_than_cold_ones(path):
    cold = [fit_head(FEATURES, LABELS, CONFIG, lasso_weight=s.lasso_weight).sweeps for s in path.solutions]
    assert sum(s.sweeps for s in path.solutions) < sum(cold)


def test_a_head_can_start_from_its_neighbour():
    first = fit_head(FEATURES, LABELS, CONFIG, lasso_weight=2.0)
    second = fit_head(FEATURES, LABELS, CONFIG, lasso_weight=1.9, warm_start=first.warm_start)
    cold = fit_head(FEATURES, LABELS, CONFIG, lasso_weight=1.9)
    assert second.sweeps <= cold.sweeps
    assert second.upper_bound == pytest.approx(cold.upper_bound, rel=3e-4)


def test_constant_and_repeated_columns_do_no_harm():
    features = np.hstack([FEATURES, np.full((90, 1), 3.0), FEATURES[:, :1]]).astype(np.float32)
    solution = fit_head(features, LABELS, CONFIG, lasso_weight=1.0)
    assert solution.status is Status.CONVERGED
    assert (solution.head.first_weight[:, 5] == 0).all()
    assert np.isfinite(solution.head.score(features)).all()


def test_more_features_than_rows():
    features, labels = random_features(20, 40, 3)
    solution = fit_head(features, labels, CONFIG, lasso_weight=1.0)
    assert solution.status is Status.CONVERGED
    assert solution.head.first_weight.shape[1] == 40
    assert (np.sign(solution.head.score(features)) == labels).all()


def test_one_weight_instead_of_the_path():
    seen = []
    path = fit_path(
        FEATURES,
        LABELS,
        CONFIG.model_copy(update={"lasso_weight": 3.0}),
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    assert [s.lasso_weight for s in path.solutions] == [3.0]
    assert path.zero_weight > 3.0
    assert seen == [(0, 1, "weights"), (1, 1, "weights")]
    assert fit_head(FEATURES, LABELS, CONFIG.model_copy(update={"lasso_weight": 3.0})).lasso_weight == 3.0


def test_history_holds_no_time(path):
    names = {field.name for field in dataclasses.fields(path.solutions[0].history[0])}
    assert names == {
        "sweep",
        "primal_residual",
        "dual_residual",
        "penalty",
        "objective",
        "lower_bound",
        "upper_bound",
        "gap",
        "cone_violation",
        "refactorisations",
        "bits",
    }


@pytest.mark.parametrize("weight", [None, 0.0, -1.0, np.inf, np.nan])
def test_a_weight_is_needed(weight):
    with pytest.raises(ValueError, match=r"`fit_head\(lasso_weight=...\)` must be a finite number above 0, got"):
        fit_head(FEATURES, LABELS, CONFIG, lasso_weight=weight)


def test_bad_input_names_the_function_that_was_called():
    with pytest.raises(ValueError, match=r"`fit_path\(labels=...\)` must hold only"):
        fit_path(FEATURES, LABELS * 2, CONFIG)
    with pytest.raises(ValueError, match=r"`fit_head\(gates=...\)` must hold one direction per column with 6 entries"):
        fit_head(FEATURES, LABELS, CONFIG, lasso_weight=1.0, gates=np.ones((5, 2)))
    first = fit_head(FEATURES, LABELS, CONFIG, lasso_weight=5.0)
    with pytest.raises(ValueError, match=r"`fit_head\(warm_start=...\)` must come from the same data and gates"):
        fit_head(FEATURES[1:], LABELS[1:], CONFIG, lasso_weight=5.0, warm_start=first.warm_start)


@pytest.mark.slow
def test_how_often_is_checked_hardly_changes_the_sweeps():
    features, labels = random_features(300, 12, 0)
    totals = {}
    for check_every in (5, 10, 25, 40):
        config = SolveConfig(gates=6, probe_gates=0, check_every=check_every, max_sweeps=3000)
        path = fit_path(features, labels, config)
        totals[check_every] = sum(solution.sweeps for solution in path.solutions)
    # Each of ten weights ends on a multiple of what is checked, so up to 400 sweeps later.
    assert max(totals.values()) < 1.15 * min(totals.values()), totals
