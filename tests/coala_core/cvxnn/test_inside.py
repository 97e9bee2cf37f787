"""Points that are moved inside their cones, against the smallest move by CVXPY, and in a solve."""

import cvxpy as cp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.config import SolveConfig
from coala_core.cvxnn import admm, inside
from coala_core.cvxnn.admm import solve
from coala_core.cvxnn.inside import AIM, DAMPING, moved_inside
from coala_core.cvxnn.outcome import Status
from coala_core.cvxnn.problem import convex_problem
from tests.dense import optimum
from tests.problems import on_device, random_problem

X, Y, H = random_problem(60, 5, 3, 1)


def make(paired=False):
    return convex_problem(X, np.ones(30) if paired else Y, H, paired=paired)


def almost_inside(problem, rows=2):
    """Multiples of the gates, inside, pushed out at `rows` rows of one column: to 3 % of the largest there."""
    directions = problem.axes.T @ H
    point = np.stack([directions, 0.5 * directions])
    point[1, :, 1] = 0.0
    limit = 0.03 * np.abs(problem.apply_g(point)).max()
    g = problem.features * problem.signs[:, :1]
    chosen = np.argsort(g @ point[0, :, 0])[:rows]
    point[0, :, 0] += np.linalg.pinv(g[chosen]) @ (-limit - g[chosen] @ point[0, :, 0])
    return point


@pytest.mark.parametrize("paired", [False, True])
def test_the_move_is_the_smallest_one(xp, paired):
    problem = make(paired)
    point = almost_inside(problem)
    most = 0.01
    limit = AIM * most * np.abs(problem.apply_g(point)).max()
    moved = to_numpy(moved_inside(on_device(problem, xp), asarray(point, xp), most))
    g = problem.features * problem.signs[:, :1]
    outside = g @ point[0, :, 0] < -limit
    assert 2 <= outside.sum() < 5
    delta = cp.Variable(5)
    weights = np.sqrt(problem.spectrum + DAMPING * problem.spectrum.mean())
    at_rows = [g[outside] @ (point[0, :, 0] + delta) == -limit]
    cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(weights, delta))), at_rows).solve(solver=cp.CLARABEL)
    assert_allclose(moved[0, :, 0] - point[0, :, 0], delta.value, atol=1e-6 * np.abs(delta.value).max())
    assert_allclose(g[outside] @ moved[0, :, 0], -limit, rtol=1e-6)
    # All other columns stay, zero ones too.
    moved[0, :, 0] = point[0, :, 0]
    assert (moved == point).all()


def test_repeated_rows_are_no_obstacle():
    problem = convex_problem(np.vstack([X, X]), np.concatenate([Y, Y]), H)
    point = almost_inside(problem)
    moved = moved_inside(problem, point, 0.01)
    assert problem.cone_violation(moved) <= 0.01 < 0.02 < problem.cone_violation(point)


def test_nothing_is_moved_where_nothing_is_outside_or_too_much(monkeypatch):
    problem = make()
    point = almost_inside(problem)
    assert moved_inside(problem, point, 0.05) is None
    assert moved_inside(problem, 0.0 * point, 0.05) is None
    monkeypatch.setattr(inside, "MOST_ROWS", 1)
    assert moved_inside(problem, point, 0.01) is None


@pytest.mark.parametrize("block_rows", [1, 7])
def test_blocks_do_not_matter(monkeypatch, block_rows):
    problem = make()
    point = almost_inside(problem)
    whole = moved_inside(problem, point, 0.01)
    monkeypatch.setattr("coala_core.cvxnn.problem.BLOCK_BYTES", 8 * 5 * block_rows)
    assert_allclose(moved_inside(problem, point, 0.01), whole, rtol=1e-12)


def test_a_solve_that_only_violation_holds_back_ends_earlier_and_inside(monkeypatch):
    x, y, h = random_problem(200, 10, 6, 2)
    problem = convex_problem(x, y, h)
    config = SolveConfig(tolerance=1e-2, max_cone_violation=1e-3, check_every=5, max_sweeps=2000)
    found = solve(problem, 5.0, config)
    monkeypatch.setattr(admm, "REACH", 0.0)
    without = solve(problem, 5.0, config)
    assert found.status is without.status is Status.CONVERGED
    assert found.sweeps < 0.7 * without.sweeps  # measured: 120 and 220
    best, _ = optimum(problem.features, problem.labels, problem.patterns, 5.0)
    for outcome in (found, without):
        assert problem.cone_violation(outcome.u) <= 1e-3
        assert outcome.certificate.upper_bound == pytest.approx(problem.objective(outcome.u, 5.0), rel=1e-12)
        assert outcome.certificate.upper_bound <= best * 1.01
        assert outcome.certificate.lower_bound <= best * (1 + 1e-7)
