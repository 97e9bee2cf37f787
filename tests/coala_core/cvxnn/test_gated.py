"""The gated-ReLU program: no cones, one free vector per gate, gates stored with the head."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import Status, fit_head, fit_path, sample_gates, solve
from coala_core.cvxnn.certificate import certify, lower_bound
from coala_core.cvxnn.features import fit_standardiser
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.looks import Duals
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.zero import zero_head_weight
from tests.dense import dense_half, gated_optimum, gated_score, optimum, stack_columns
from tests.problems import random_features, random_problem

TIGHT = SolveConfig(tolerance=1e-6, max_sweeps=20_000)
FEATURES, LABELS = random_features(90, 5, 0)
CONFIG = SolveConfig(gates=6, probe_gates=3, activation="gated_relu", tolerance=1e-5, max_sweeps=5000, backend="numpy")


def gated_problem(n, d, gates, seed, paired=False):
    """A random gated program."""
    x, y, h = random_problem(n, d, gates, seed)
    return convex_problem(x, np.ones(n // 2) if paired else y, h, paired=paired, kind=GatedProblem)


NO_DUALS = Duals(np.zeros((0, 3)), 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.booleans(), st.integers(0, 2**32 - 1))
def test_operators_agree_with_their_adjoints_and_with_a_matrix(pairs, d, gates, paired, seed):
    problem = gated_problem(2 * pairs, d, gates, seed, paired)
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((1, problem.shape[1], gates))
    r = rng.standard_normal(len(problem.labels))
    assert_allclose(problem.apply_f(u) @ r, np.vdot(u, problem.apply_f_adjoint(r)), rtol=1e-9, atol=1e-9)
    assert_allclose(problem.apply_f(u), dense_half(problem) @ stack_columns(u), rtol=1e-9, atol=1e-9)
    assert problem.apply_g(u).shape == (1, 0, gates)
    assert not problem.apply_g_adjoint(problem.apply_g(u)).any()
    assert problem.apply_g_adjoint(problem.apply_g(u)).shape == u.shape
    assert problem.cone_violation(u) == 0.0


@pytest.mark.parametrize(
    ("n", "d", "gates", "seed", "shares"),
    [(40, 4, 3, 0, (0.9, 0.2, 0.01)), (120, 8, 6, 1, (0.5, 0.05)), (15, 20, 3, 3, (0.1,))],
)
def test_optimum_agrees_with_cvxpy_and_lies_between_the_bounds(n, d, gates, seed, shares):
    x, y, h = random_problem(n, d, gates, seed)
    problem = gated_problem(n, d, gates, seed)
    patterns = (x @ h >= 0).astype(float)
    for share in shares:
        weight = share * max(np.linalg.norm(x.T @ (pattern * y)) for pattern in patterns.T)
        expected, _ = gated_optimum(x, y, patterns, weight)
        found = solve(problem, weight, TIGHT)
        assert found.status is Status.CONVERGED
        assert found.certificate.lower_bound <= expected * (1 + 1e-7)
        assert expected * (1 - 1e-7) <= found.certificate.upper_bound <= expected * (1 + 2e-6)
        assert found.certificate.cone_violation == found.certificate.violation_price == 0.0
        assert problem.objective(found.u, weight) == pytest.approx(found.certificate.upper_bound, rel=1e-12)
        # Free vectors can do all that a pair in its cones can: the optimum of eq. (4) is no smaller.
        assert expected <= optimum(x, y, patterns, weight)[0] * (1 + 1e-7)


WEIGHT = 2.0
PROBLEM = gated_problem(25, 4, 3, 5)
OPTIMUM, POINT = gated_optimum(PROBLEM.features, PROBLEM.labels, PROBLEM.patterns, WEIGHT)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.floats(1e-3, 10),
    st.floats(1e-3, 1e3),
    st.floats(0, 3),
    st.floats(0, 3),
)
def test_the_certificate_never_exceeds_the_objective_of_any_point(seed, paired, size, weight, here, there):
    # Every point is feasible, so the bound from one point must lie below the objective of any other.
    rng = np.random.default_rng(seed)
    problem = gated_problem(12, 4, 3, seed, paired)
    u, other = here * rng.standard_normal((2, 1, problem.shape[1], 3))
    residual = problem.labels - problem.apply_f(size * u)
    bounds = [lower_bound(weight, problem.labels, residual, problem.apply_f_adjoint(residual))]
    bounds.append(certify(problem, weight, u, NO_DUALS, problem.apply_f(size * other)).lower_bound)
    assert max(bounds) <= min(problem.objective(point, weight) for point in (u, there * other)) * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 10))
def test_the_certificate_never_exceeds_the_optimum(seed, size):
    step = size * np.random.default_rng(seed).standard_normal(POINT.shape)
    proven = certify(PROBLEM, WEIGHT, POINT + step, NO_DUALS)
    assert proven.lower_bound <= OPTIMUM * (1 + 1e-7) <= proven.upper_bound * (1 + 2e-7)


def test_the_certificate_is_tight_at_the_optimum():
    proven = certify(PROBLEM, WEIGHT, POINT, NO_DUALS)
    assert proven.lower_bound == pytest.approx(OPTIMUM, rel=1e-4)
    assert proven.gap < 1e-4


def test_zero_weight_is_where_the_optimum_becomes_zero():
    weight = zero_head_weight(PROBLEM)
    at_zero = 0.5 * PROBLEM.labels @ PROBLEM.labels
    data = PROBLEM.features, PROBLEM.labels, PROBLEM.patterns
    assert weight == pytest.approx(max(np.linalg.norm(data[0].T @ (p * data[1])) for p in data[2].T))
    assert gated_optimum(*data, 1.01 * weight)[0] == pytest.approx(at_zero, rel=1e-7)
    assert gated_optimum(*data, 0.97 * weight)[0] < at_zero * (1 - 1e-5)


def test_every_weight_of_a_path_agrees_with_cvxpy():
    z = fit_standardiser(FEATURES).apply(FEATURES)
    patterns = (z @ sample_gates(z, LABELS, CONFIG) >= 0).astype(float)
    path = fit_path(FEATURES, LABELS, CONFIG)
    for solution in path.solutions[::3]:
        expected, _ = gated_optimum(z, LABELS, patterns, solution.lasso_weight)
        assert solution.status is Status.CONVERGED
        assert solution.lower_bound <= expected * (1 + 1e-7)
        assert expected * (1 - 1e-7) <= solution.upper_bound <= expected * (1 + 2e-5)
        assert solution.network_objective == pytest.approx(solution.upper_bound, rel=1e-9)


def test_the_stored_head_attains_the_certified_objective_on_raw_features():
    solution = fit_head(FEATURES, LABELS, CONFIG, lasso_weight=2.0)
    head = solution.head
    standardiser = fit_standardiser(FEATURES)
    # Back to standardised weights, in which the lasso is measured: 2-norms with the bias at the standardised origin.
    theta = np.hstack([head.first_weight / standardiser.inverse_scale, np.zeros((len(head.first_bias), 1))])
    theta[:, -1] = head.first_bias + head.first_weight @ standardiser.mean
    lasso = (np.linalg.norm(theta, axis=1) * head.second_weight).sum()
    score = gated_score(head, FEATURES)
    assert 0.5 * ((score - LABELS) ** 2).sum() + 2.0 * lasso == pytest.approx(solution.upper_bound, rel=1e-5)
    assert_allclose(head.score(FEATURES), score, rtol=1e-9, atol=1e-9)
    assert (head.second_weight > 0).all()


def test_stored_gates_switch_the_rows_that_were_fitted():
    rng = np.random.default_rng(3)
    features = (rng.standard_normal((4000, 6)) * np.logspace(-3, 3, 6) + 1e3).astype(np.float32)
    labels = np.where(features[:, 0] + features[:, 5] > np.median(features[:, 0] + features[:, 5]), 1.0, -1.0)
    gates = rng.standard_normal((7, 5))
    head = fit_head(features, labels, CONFIG, gates=gates, lasso_weight=1.0).head
    patterns = fit_standardiser(features).apply(features) @ gates >= 0
    stored = features.astype(float) @ head.gate_weight.T + head.gate_bias >= 0
    assert stored.tobytes() == patterns.tobytes()


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_users_gates_must_be_distinct_in_both_variants(activation):
    config = CONFIG.model_copy(update={"activation": activation})
    gates = np.random.default_rng(0).standard_normal((6, 3))
    assert fit_head(FEATURES, LABELS, config, gates=gates, lasso_weight=5.0).status is Status.CONVERGED
    with pytest.raises(
        ValueError, match=r"`fit_head\(gates=...\)` must give distinct activation patterns, got 3 from 4"
    ):
        fit_head(FEATURES, LABELS, config, gates=np.hstack([gates, 2 * gates[:, :1]]), lasso_weight=5.0)


def test_a_start_from_the_other_variant_is_refused():
    other = fit_head(FEATURES, LABELS, CONFIG.model_copy(update={"activation": "relu"}), lasso_weight=5.0)
    with pytest.raises(ValueError, match=r"must come from the same data and gates, got shapes .* 1 vectors a gate"):
        fit_head(FEATURES, LABELS, CONFIG, lasso_weight=5.0, warm_start=other.warm_start)
