import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import cone_scale_squared, solve
from coala_core.cvxnn.certificate import certify, lower_bound
from coala_core.cvxnn.problem import convex_problem
from tests.dense import optimum
from tests.problems import random_problem

WEIGHT = 2.0
X, Y, H = random_problem(25, 4, 3, 5)
PROBLEM = convex_problem(X, Y, H)
OPTIMUM, POINT = optimum(PROBLEM.features, PROBLEM.labels, PROBLEM.patterns, WEIGHT)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 10), st.floats(0, 5))
def test_lower_bound_holds_for_any_residual_and_multipliers(seed, size, push):
    rng = np.random.default_rng(seed)
    mu = push * rng.random((2, 25, 3))
    residual = PROBLEM.labels - size * rng.standard_normal(25)
    assert lower_bound(PROBLEM, WEIGHT, residual, PROBLEM.apply_g_adjoint(mu)) <= OPTIMUM * (1 + 1e-7)


def test_best_scale_by_hand():
    # One feature, rows 1 and -2, y = (1, -1), gate h = 1: D = (1, 0). With r = y: F'r = (1, -1), so m = 1;
    # r'y = ||r||^2 = 2. At weight 1/2: t = 1/2, bound = 1/2 * 2 - 1/4 / 2 * 2 = 3/4. At weight 3: t = 1, bound = 1.
    problem = convex_problem(np.array([[1.0], [-2.0]]), np.array([1.0, -1.0]), np.array([[1.0]]))
    none = np.zeros((2, 1, 1))
    assert_allclose(lower_bound(problem, 0.5, problem.labels, none), 0.75)
    assert_allclose(lower_bound(problem, 3.0, problem.labels, none), 1.0)
    assert lower_bound(problem, 3.0, -problem.labels, none) == 0.0


def test_a_point_is_bounded_from_both_sides():
    proven = certify(PROBLEM, WEIGHT, POINT, np.zeros((2, 25, 3)))
    assert proven.upper_bound == pytest.approx(OPTIMUM, rel=1e-7)
    assert proven.cone_violation < 1e-6
    assert 0 < proven.lower_bound <= OPTIMUM * (1 + 1e-7)
    assert proven.gap == pytest.approx((proven.upper_bound - proven.lower_bound) / max(1, proven.upper_bound))


def test_price_of_the_violation_by_hand():
    # One feature, rows 1 and -2, gate h = 1: E X = (1, 2). At v = -1, w = 0 it is violated by (1, 2); mu = (3, 5) on v
    # prices that at 3 + 10 = 13. Objective: D X v = (-1, 0), residual (2, -1), loss 5/2, lasso 4 * 1.
    problem = convex_problem(np.array([[1.0], [-2.0]]), np.array([1.0, -1.0]), np.array([[1.0]]))
    u = np.array([[[-1.0]], [[0.0]]]) * problem.axes[0, 0]
    proven = certify(problem, 4.0, u, np.array([[[3.0], [5.0]], [[0.0], [0.0]]]))
    assert proven.violation_price == pytest.approx(13.0)
    assert proven.upper_bound == pytest.approx(6.5)
    assert proven.priced_gap == pytest.approx(proven.gap + 13.0 / 6.5)


def test_priced_objective_is_at_least_the_optimum_with_optimal_multipliers():
    tight = SolveConfig(tolerance=1e-7, max_cone_violation=1e-7, max_sweeps=50_000)
    found = solve(PROBLEM, WEIGHT, tight)
    penalty = found.warm_start.penalty_ratio * WEIGHT * cone_scale_squared(PROBLEM)
    multipliers = -penalty * found.warm_start.state.nu
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1):
        near = certify(PROBLEM, WEIGHT, POINT + size * rng.standard_normal(POINT.shape), multipliers)
        assert near.cone_violation > 1e-4
        assert near.upper_bound + near.violation_price >= OPTIMUM * (1 - 1e-5)
