import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.cvxnn import linear
from coala_core.cvxnn.linear import DualDirect, PrimalDirect, choose_back_end
from coala_core.cvxnn.problem import convex_problem
from tests.dense import dense_f, dense_g, stack_columns
from tests.problems import random_problem


@pytest.mark.parametrize("kind", [DualDirect, PrimalDirect])
@pytest.mark.parametrize(("n", "d", "gates"), [(40, 3, 2), (10, 6, 4), (5, 8, 2)])
def test_u_update_solves_the_normal_equations(kind, n, d, gates):
    problem = convex_problem(*random_problem(n, d, gates, 0))
    right = np.random.default_rng(1).standard_normal((2, problem.shape[1], gates))
    back_end = kind(problem, 0.7)
    for rho in (0.01, 3.0, 0.2):
        back_end.refactor(rho)
        f, g = (build(problem.features, problem.patterns) for build in (dense_f, dense_g))
        # Gradient of the u-update: (F'F + rho (I + tau^2 G'G)) u = F'y + rho * right.
        matrix = f.T @ f + rho * (np.eye(f.shape[1]) + 0.7 * g.T @ g)
        expected = np.linalg.solve(matrix, f.T @ problem.labels + rho * stack_columns(right))
        assert_allclose(stack_columns(back_end.solve(right)), expected, rtol=1e-8, atol=1e-8)


def test_back_ends_agree():
    problem = convex_problem(*random_problem(50, 5, 4, 3))
    right = np.random.default_rng(4).standard_normal((2, 5, 4))
    solved = []
    for kind in (DualDirect, PrimalDirect):
        back_end = kind(problem, 2.0)
        back_end.refactor(0.5)
        solved.append(back_end.solve(right))
    assert_allclose(solved[0], solved[1], rtol=1e-9, atol=1e-9)


def test_the_smaller_system_is_chosen(monkeypatch):
    assert isinstance(choose_back_end(convex_problem(*random_problem(20, 5, 4, 0)), 1.0), DualDirect)  # 20 <= 5 * 4
    assert isinstance(choose_back_end(convex_problem(*random_problem(21, 5, 4, 0)), 1.0), PrimalDirect)
    monkeypatch.setattr(linear, "LARGEST_SYSTEM", 19)
    with pytest.raises(ValueError, match="at most 19, got 21 rows and 5 x 4; lower `solve.gates`"):
        choose_back_end(convex_problem(*random_problem(21, 5, 4, 0)), 1.0)
