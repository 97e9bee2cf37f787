"""Newton's optimum against CVXPY, closed forms and data with a known answer."""

import math

import cvxpy
import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.optimum import OptimumStatus, _Program, find_optimum


def random_rows(n=80, m=6, seed=0):
    """Rows that no direction separates, with columns of very different scale."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, m)) + 0.3) * np.logspace(-2, 1, m)


@pytest.mark.parametrize(("gamma", "ridge"), [(0.0, 0.0), (0.5, 0.0), (0.5, 1e-3), (2.0, 0.3)])
def test_optimum_agrees_with_cvxpy(gamma, ridge):
    rows = random_rows()
    theta = cvxpy.Variable(rows.shape[1])
    loss = cvxpy.sum(cvxpy.logistic(gamma - rows @ theta)) / len(rows)
    problem = cvxpy.Problem(cvxpy.Minimize(loss + ridge / 2 * cvxpy.sum_squares(theta)))
    problem.solve(solver=cvxpy.CLARABEL)
    optimum = find_optimum(rows, gamma, ridge)
    assert optimum.status is OptimumStatus.FOUND
    assert optimum.relative_gradient_norm <= 1e-9
    assert optimum.objective == pytest.approx(problem.value, rel=1e-7)
    assert_allclose(rows @ optimum.weights, rows @ theta.value, atol=1e-3)


def test_optimum_of_one_number_solves_its_equation():
    # rows 1, 1, 1, -1: f' = 0 at 3 sigma(-t) = sigma(t), hence e^t = 3
    optimum = find_optimum(np.array([[1.0], [1.0], [1.0], [-1.0]]), gamma=0, ridge=0)
    assert optimum.weights[0] == pytest.approx(math.log(3), rel=1e-12)
    assert optimum.objective == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4, rel=1e-12)


def test_gradient_agrees_with_central_differences():
    program = _Program(random_rows(), 0.5, 0.2)
    weights = np.linspace(-1, 1, 6)
    steps = 1e-6 * np.eye(6)
    numeric = [(program.objective(weights + e) - program.objective(weights - e)) / 2e-6 for e in steps]
    assert_allclose(program.gradient(weights), numeric, atol=1e-8)


def test_reported_norm_is_that_of_the_gradient():
    rows = random_rows()
    optimum = find_optimum(rows, 0.5, 1e-2)
    program = _Program(rows, 0.5, 1e-2)
    assert optimum.gradient_norm == np.linalg.norm(program.gradient(optimum.weights))
    at_zero = np.linalg.norm(rows.mean(axis=0)) / (1 + math.exp(-0.5))  # sigma(gamma) mean a_i
    assert optimum.relative_gradient_norm == pytest.approx(optimum.gradient_norm / at_zero)


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_dead_and_doubled_neurons_do_no_harm(ridge):
    rows = random_rows()
    wide = np.column_stack([rows, np.zeros(len(rows)), rows[:, 0]])
    narrow, optimum = find_optimum(rows, 0.5, 0.0), find_optimum(wide, 0.5, ridge)
    assert optimum.status is OptimumStatus.FOUND
    assert optimum.weights[6] == 0
    assert optimum.weights[0] == pytest.approx(optimum.weights[7], rel=1e-6)  # the shortest way to share
    if ridge == 0:
        assert optimum.objective == pytest.approx(narrow.objective, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_separable_rows_have_no_optimum_without_ridge(scale):
    rows = scale * np.abs(random_rows())
    assert find_optimum(rows, 0.5, 0.0).status is OptimumStatus.UNBOUNDED
    assert find_optimum(rows, 0.5, 1e-3).status is OptimumStatus.FOUND


def test_rows_separable_in_one_direction_only_have_no_optimum():
    # the first column overlaps, the second is never negative: f falls forever along it
    rows = np.column_stack([random_rows(m=2)[:, 0], np.zeros(80)])
    rows[7, 1] = 1.0
    assert find_optimum(rows, 0.5, 0.0).status is OptimumStatus.UNBOUNDED


def test_one_row_of_overlap_is_enough_for_an_optimum():
    # 199 rows +1 and one row -1/100: f' = 0 at 199 sigma(-t) = sigma(t/100)/100, a large but finite t
    rows = np.ones((200, 1))
    rows[0] = -0.01
    optimum = find_optimum(rows, 0.0, 0.0)
    assert optimum.status is OptimumStatus.FOUND
    t = optimum.weights[0]
    assert 199 / (1 + math.exp(t)) == pytest.approx(0.01 / (1 + math.exp(-0.01 * t)), rel=1e-6)


def test_rows_of_zero_leave_the_zero_head():
    optimum = find_optimum(np.zeros((5, 3)), 0.0, 0.0)
    assert optimum.status is OptimumStatus.FOUND
    assert optimum.objective == pytest.approx(math.log(2))
    assert not optimum.weights.any()


def test_an_unreachable_tolerance_is_a_status():
    assert find_optimum(random_rows(), 0.5, 1e-3, tolerance=1e-30).status is OptimumStatus.STALLED


@pytest.mark.parametrize("rows", [np.zeros((0, 2)), np.zeros(3), np.full((2, 2), np.inf)])
def test_rows_that_are_no_finite_matrix_are_refused(rows):
    with pytest.raises(ValueError, match=r"`find_optimum\(rows=...\)` must be a finite matrix"):
        find_optimum(rows, 0.5, 1e-3)
