"""Bounds on the optimum, against CVXPY, explicit matrices and points that are feasible by construction."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.backend import asarray
from coala_core.config import SolveConfig
from coala_core.cvxnn import problem as problem_module
from coala_core.cvxnn.admm import cone_scale_squared, solve
from coala_core.cvxnn.certificate import certify, lower_bound, measure
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.looks import STIFFNESS, Duals
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from tests.dense import dense_pair, optimum, rows_of, stack_columns
from tests.problems import on_device, random_problem

WEIGHT = 2.0
X, Y, H = random_problem(25, 4, 3, 5)
PROBLEM = convex_problem(X, Y, H)
OPTIMUM, POINT = optimum(PROBLEM.features, PROBLEM.labels, PROBLEM.patterns, WEIGHT)
NO_DUALS = Duals(np.zeros((25, 6)), 1.0)
KINDS = [(ConvexProblem, False), (ConvexProblem, True), (GatedProblem, False), (GatedProblem, True)]
SEEDS = st.integers(0, 2**32 - 1)


def make(kind, paired, seed=0, rows=26):
    """A random problem and its gate directions in the principal axes."""
    x, y, h = random_problem(rows, 4, 3, seed)
    problem = convex_problem(x, np.ones(rows // 2) if paired else y, h, paired=paired, kind=kind)
    return problem, problem.axes.T @ h


def random_duals(problem, rng, push):
    """z of any sign, whose negative entries are the multipliers."""
    return Duals(push * rng.standard_normal((problem.cone_rows, problem.halves * 3)), 0.7)


def multipliers(problem, duals):
    """mu (halves, n, P) >= 0, by its definition."""
    halves = np.split(duals.s_nu, problem.halves, axis=1)
    return np.stack([duals.scale * np.maximum(-half, 0.0) for half in halves])


def feasible_point(problem, directions, rng):
    """v_i, w_i = t h_i with t >= 0 are in their cones; free vectors where there are none."""
    if problem.halves == 1:
        return rng.standard_normal((1, *problem.shape[1:]))
    lengths = rng.exponential(size=(2, 1, 3)) * (rng.random((2, 1, 3)) < 0.7)
    return lengths * directions / np.linalg.norm(directions, axis=0)


@pytest.mark.parametrize(("kind", "paired"), KINDS)
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, weight=st.floats(1e-3, 30), size=st.floats(0, 3), push=st.floats(0, 3))
def test_the_bound_is_below_the_objective_of_every_feasible_point(kind, paired, seed, weight, size, push):
    problem, directions = make(kind, paired, seed % 7)
    rng = np.random.default_rng(seed)
    point, candidate = size * rng.standard_normal((2, problem.halves, *problem.shape[1:]))
    proven = certify(problem, weight, point, random_duals(problem, rng, push), problem.apply_f(candidate))
    feasible = feasible_point(problem, directions, rng)
    assert problem.cone_violation(feasible) <= 1e-12
    assert 0.0 <= proven.lower_bound <= problem.objective(feasible, weight) * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=st.floats(1e-6, 10), push=st.floats(0, 5), share=st.floats(0, 1))
def test_the_bound_is_below_the_optimum(seed, size, push, share):
    rng = np.random.default_rng(seed)
    point, candidate = share * POINT + size * rng.standard_normal((2, *POINT.shape))
    proven = certify(PROBLEM, WEIGHT, point, random_duals(PROBLEM, rng, push), PROBLEM.apply_f(candidate))
    assert proven.lower_bound <= OPTIMUM * (1 + 1e-7)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 10), st.floats(0, 5))
def test_lower_bound_holds_for_any_residual_and_multipliers(seed, size, push):
    rng = np.random.default_rng(seed)
    mu = push * rng.random((2, 25, 3))
    residual = PROBLEM.labels - size * rng.standard_normal(25)
    pull = PROBLEM.apply_f_adjoint(residual) + PROBLEM.apply_g_adjoint(mu)
    assert lower_bound(WEIGHT, PROBLEM.labels, residual, pull) <= OPTIMUM * (1 + 1e-7)


def test_best_scale_by_hand():
    # One feature, rows 1 and -2, y = (1, -1), gate h = 1: D = (1, 0). With r = y: F'r = (1, -1), so m = 1;
    # r'y = ||r||^2 = 2. At weight 1/2: t = 1/2, bound = 1/2 * 2 - 1/4 / 2 * 2 = 3/4. At weight 3: t = 1, bound = 1.
    y, pull = np.array([1.0, -1.0]), np.array([[[1.0]], [[-1.0]]])
    assert_allclose(lower_bound(0.5, y, y, pull), 0.75)
    assert_allclose(lower_bound(3.0, y, y, pull), 1.0)
    assert lower_bound(3.0, y, -y, -pull) == lower_bound(3.0, y, 0 * y, 0 * pull) == 0.0


def stretched(f, g, y, mu, u, weight):
    """The columns of u at the lengths where the Lagrangian is least, by normal equations."""
    columns = [np.where(np.arange(len(u)) // 4 == j, u, 0.0) for j in range(len(u) // 4)]
    alive = [column for column in columns if column.any()]
    a = np.stack([f @ column for column in alive], axis=1)
    inside = np.array([mu @ (g @ column) for column in alive])
    slope = a.T @ (y - f @ u) + inside - weight * np.array([np.linalg.norm(column) for column in alive])
    lengths = 1.0 + np.linalg.solve(a.T @ a + STIFFNESS * (a * a).sum(axis=0).max() * np.eye(len(alive)), slope)
    return sum(length * column for length, column in zip(lengths, alive, strict=True))


@pytest.mark.parametrize(("kind", "paired"), KINDS)
@pytest.mark.parametrize("block_rows", [4, 1000])
def test_passes_agree_with_explicit_matrices(xp, monkeypatch, kind, paired, block_rows):
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 8 * 4 * block_rows)
    problem, _ = make(kind, paired)
    (f, g), rng = dense_pair(problem), np.random.default_rng(1)
    point, candidate = rng.standard_normal((2, problem.halves, *problem.shape[1:]))
    point[0, :, 1] = 0.0  # columns that are dropped are not looked at
    duals, fit = random_duals(problem, rng, 1.0), problem.apply_f(candidate)
    moved = on_device(problem, xp)
    there = asarray(point, xp), Duals(asarray(duals.s_nu, xp), duals.scale)
    found = certify(moved, WEIGHT, *there, asarray(fit, xp))

    u, mu, y = stack_columns(point), stack_columns(multipliers(problem, duals)), problem.labels
    norms = np.linalg.norm(u.reshape(-1, 4), axis=1).sum()
    bounds = []
    for r in (y - f @ stretched(f, g, y, mu, u, WEIGHT), y - f @ stack_columns(candidate)):
        m = np.linalg.norm((f.T @ r + g.T @ mu).reshape(-1, 4), axis=1).max()
        t = np.linspace(0.0, WEIGHT / m, 100_001)
        bounds.append((t * (r @ y) - 0.5 * t**2 * (r @ r)).max())  # by brute force over the ray
    outside = np.maximum(-(g @ u), 0.0)
    assert found.upper_bound == pytest.approx(0.5 * (y - f @ u) @ (y - f @ u) + WEIGHT * norms, rel=1e-12)
    assert found.lower_bound == pytest.approx(max(0.0, *bounds), rel=1e-6)
    assert found.cone_violation == pytest.approx(outside.max(initial=0.0) / max(np.abs(g @ u).max(initial=0.0), 1e-300))
    assert found.violation_price == pytest.approx(mu @ outside)
    alone = certify(moved, WEIGHT, *there)
    assert alone.lower_bound == pytest.approx(max(0.0, bounds[0]), rel=1e-6)
    assert measure(moved, WEIGHT, *there) == replace(found, lower_bound=0.0) == replace(alone, lower_bound=0.0)


def test_a_float32_state_is_certified_in_float64():
    rng = np.random.default_rng(0)
    duals = Duals(rng.standard_normal((25, 6)).astype(np.float32), 0.3)
    same = Duals(duals.s_nu.astype(np.float64), 0.3)
    fit = PROBLEM.apply_f(POINT + 1e-3 * rng.standard_normal(POINT.shape)).astype(np.float32)
    found = certify(PROBLEM, WEIGHT, POINT, duals, fit)
    assert found == certify(PROBLEM, WEIGHT, POINT, same, fit.astype(np.float64))
    assert found.upper_bound == pytest.approx(PROBLEM.objective(POINT, WEIGHT), rel=1e-14)


def test_a_second_residual_can_only_raise_the_bound():
    rng = np.random.default_rng(0)
    raised = 0
    for _ in range(30):
        duals, point = random_duals(PROBLEM, rng, 0.03), 0.5 * rng.standard_normal(POINT.shape)
        candidate = POINT * (1.0 + 0.1 * rng.standard_normal(POINT.shape))
        alone = certify(PROBLEM, WEIGHT, point, duals)
        both = certify(PROBLEM, WEIGHT, point, duals, PROBLEM.apply_f(candidate))
        assert both.lower_bound >= alone.lower_bound
        assert replace(both, lower_bound=alone.lower_bound) == alone
        raised += both.lower_bound > alone.lower_bound
    assert 3 < raised < 27


def test_a_point_is_bounded_from_both_sides():
    proven = certify(PROBLEM, WEIGHT, POINT, NO_DUALS)
    assert proven.upper_bound == pytest.approx(OPTIMUM, rel=1e-7)
    assert proven.cone_violation < 1e-6
    assert 0 < proven.lower_bound <= OPTIMUM * (1 + 1e-7)
    assert proven.gap == pytest.approx((proven.upper_bound - proven.lower_bound) / max(1, proven.upper_bound))


def test_the_zero_point_has_no_violation():
    proven = certify(PROBLEM, WEIGHT, 0 * POINT, NO_DUALS)
    assert proven.upper_bound == pytest.approx(12.5)  # 25 labels of size 1
    assert (proven.cone_violation, proven.violation_price) == (0.0, 0.0)
    assert 0.0 <= proven.lower_bound <= OPTIMUM


def test_price_of_the_violation_by_hand():
    # One feature, rows 1 and -2, gate h = 1: E X = (1, 2). At v = -1, w = 0 it is violated by (1, 2); mu = (3, 5) on v
    # prices that at 3 + 10 = 13. Objective: D X v = (-1, 0), residual (2, -1), loss 5/2, lasso 4 * 1.
    problem = convex_problem(np.array([[1.0], [-2.0]]), np.array([1.0, -1.0]), np.array([[1.0]]))
    u = np.array([[[-1.0]], [[0.0]]]) * problem.axes[0, 0]
    # mu = scale max(-z, 0): z = -(6, 10) on v at scale 1/2; positive entries are s and no multipliers.
    proven = measure(problem, 4.0, u, Duals(np.array([[-6.0, 9.0], [-10.0, 7.0]]), 0.5))
    assert proven.violation_price == pytest.approx(13.0)
    assert proven.upper_bound == pytest.approx(6.5)
    assert proven.priced_gap == pytest.approx(proven.gap + 13.0 / 6.5)


def test_priced_objective_is_at_least_the_optimum_with_optimal_multipliers():
    tight = SolveConfig(tolerance=1e-7, max_cone_violation=1e-7, max_sweeps=50_000)
    after = solve(PROBLEM, WEIGHT, tight).warm_start
    duals = Duals(after.state.s_nu, after.penalty_ratio * WEIGHT * cone_scale_squared(PROBLEM))
    assert rows_of(multipliers(PROBLEM, duals)).max() > 0.01
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1):
        near = measure(PROBLEM, WEIGHT, POINT + size * rng.standard_normal(POINT.shape), duals)
        assert near.cone_violation > 1e-4
        assert near.upper_bound + near.violation_price >= OPTIMUM * (1 - 1e-5)
