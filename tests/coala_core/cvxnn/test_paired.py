"""Paired rows: the difference operator in front of F, against explicit matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import Status, fit_head, solve
from coala_core.cvxnn.admm import cone_scale_squared
from coala_core.cvxnn.certificate import lower_bound
from coala_core.cvxnn.network import network_objective
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.zero import zero_head_weight
from tests.dense import DenseBackEnd, dense_f, dense_g, optimum, stack_columns, zero_weight
from tests.problems import random_features, random_problem


def paired_problem(pairs, d, gates, seed):
    """A problem on 2 * pairs rows, target 1 for every pair."""
    x, _, h = random_problem(2 * pairs, d, gates, seed)
    return convex_problem(x, np.ones(pairs), h, paired=True)


TIGHT = SolveConfig(tolerance=1e-5, max_cone_violation=1e-5, max_sweeps=20_000)
WEIGHT = 1.0
PROBLEM = paired_problem(12, 4, 3, 5)
OPTIMUM, _ = optimum(PROBLEM.features, PROBLEM.labels, PROBLEM.patterns, WEIGHT, paired=True)


def dense_difference(pairs):
    """Delta = [I, -I], (pairs, 2 pairs)."""
    return np.hstack([np.eye(pairs), -np.eye(pairs)])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_operators_and_their_adjoints_agree(pairs, d, gates, seed):
    problem = paired_problem(pairs, d, gates, seed)
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((problem.shape[1], gates))
    u = rng.standard_normal((2, *b.shape))
    r = rng.standard_normal(pairs)
    assert_allclose(problem.predict(b) @ r, np.vdot(b, problem.predict_adjoint(r)), rtol=1e-9, atol=1e-9)
    assert_allclose(problem.apply_f(u) @ r, np.vdot(u, problem.apply_f_adjoint(r)), rtol=1e-9, atol=1e-9)


def test_operators_agree_with_explicit_matrices():
    problem = paired_problem(7, 4, 3, 0)
    delta = dense_difference(7)
    f, g = (build(problem.features, problem.patterns) for build in (dense_f, dense_g))
    u = np.random.default_rng(1).standard_normal((2, 4, 3))
    z = np.random.default_rng(2).standard_normal((14, 5))
    assert_allclose(problem.difference(z), delta @ z)
    assert_allclose(problem.apply_f(u), delta @ f @ stack_columns(u), atol=1e-12)
    r = np.random.default_rng(3).standard_normal(7)
    assert_allclose(stack_columns(problem.apply_f_adjoint(r)), f.T @ delta.T @ r, atol=1e-12)
    assert_allclose(problem.apply_g(u).transpose(0, 2, 1).ravel(), g @ stack_columns(u), atol=1e-12)


def test_rows_that_are_not_paired_pass_through():
    problem = convex_problem(*random_problem(6, 3, 2, 0))
    z = np.random.default_rng(0).standard_normal((6, 2))
    assert problem.difference(z) is z


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 10), st.floats(0, 5))
def test_lower_bound_holds_for_any_residual_and_multipliers(seed, size, push):
    rng = np.random.default_rng(seed)
    mu = push * rng.random((2, 24, 3))
    residual = PROBLEM.labels - size * rng.standard_normal(12)
    pull = PROBLEM.apply_f_adjoint(residual) + PROBLEM.apply_g_adjoint(mu)
    assert lower_bound(WEIGHT, PROBLEM.labels, residual, pull) <= OPTIMUM * (1 + 1e-7)


@pytest.mark.parametrize(
    ("pairs", "d", "gates", "seed", "shares"),
    [(20, 4, 3, 0, (0.9, 0.2, 0.01)), (60, 6, 5, 1, (0.3,)), (6, 15, 3, 2, (0.1,))],
)
def test_optimum_agrees_with_cvxpy_and_lies_between_the_bounds(pairs, d, gates, seed, shares):
    x, _, h = random_problem(2 * pairs, d, gates, seed)
    problem = convex_problem(x, np.ones(pairs), h, paired=True)
    patterns = (x @ h >= 0).astype(float)
    back_end = DenseBackEnd(problem, cone_scale_squared(problem))
    for share in shares:
        weight = share * zero_weight(x, np.repeat([1.0, -1.0], pairs), patterns)
        expected, _ = optimum(x, np.ones(pairs), patterns, weight, paired=True)
        found = solve(problem, weight, TIGHT, back_end=back_end)
        assert found.status is Status.CONVERGED
        assert found.certificate.upper_bound == pytest.approx(expected, rel=1e-4)
        assert found.certificate.lower_bound <= expected * (1 + 1e-7)
        assert found.certificate.upper_bound >= expected * (1 - 2e-5)


def test_zero_weight_agrees_with_least_squares_and_cvxpy():
    x, _, h = random_problem(60, 5, 4, 7)
    problem = convex_problem(x, np.ones(30), h, paired=True)
    weight = zero_head_weight(problem)
    assert weight == pytest.approx(zero_weight(x, np.repeat([1.0, -1.0], 30), problem.patterns), rel=1e-5)
    # The zero head costs 1/2 for every pair.
    assert optimum(x, np.ones(30), problem.patterns, 1.01 * weight, paired=True)[0] == pytest.approx(15.0, rel=1e-7)
    assert optimum(x, np.ones(30), problem.patterns, 0.97 * weight, paired=True)[0] < 15.0 * (1 - 1e-5)


def test_network_objective_by_hand():
    # Rows 3, -1 | 1, 2 with Theta 1, theta 2: scores 6, 0 | 2, 4, differences 4, -4, misfit 3, -5: 17, and 0.1 * 5 / 2.
    x, ones = np.array([[3.0], [-1.0], [1.0], [2.0]]), np.ones(2)
    found = network_objective(x, ones, np.array([[1.0]]), np.array([2.0]), 0.1, paired=True)
    assert found == pytest.approx(17.25)


FEATURES = random_features(90, 5, 3)[0]
PAIR_LABELS = np.repeat([1.0, -1.0], 45)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (
            slice(89),
            PAIR_LABELS[:89],
            r"must hold two rows a pair where `solve.rows` is pairwise, got 89 rows; pass as",
        ),
        (slice(90), PAIR_LABELS[::-1], r"first half and -1 in the second .*, got 90 others, first in row 0; stack all"),
        (slice(10, 90), PAIR_LABELS[10:], r"got 5 others, first in row 35; stack all chosen responses, then"),
        (slice(90), PAIR_LABELS * 2, r"`fit_head\(labels=...\)` must hold only -1 and \+1"),
    ],
)
def test_rows_that_are_no_pairs_are_refused(rows, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_head(FEATURES[rows], labels, SolveConfig(rows="pairwise"), lasso_weight=1.0)
