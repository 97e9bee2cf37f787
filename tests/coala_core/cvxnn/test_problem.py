import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.cvxnn.problem import column_norms, convex_problem, gate_patterns
from tests.dense import dense_f, dense_g, stack_columns
from tests.problems import random_problem


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_operators_and_their_adjoints_agree(n, d, gates, seed):
    x, y, h = random_problem(n, d, gates, seed)
    problem = convex_problem(x, y, h)
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((2, problem.shape[1], gates))
    r, s = rng.standard_normal(n), rng.standard_normal((2, n, gates))
    assert_allclose(problem.apply_f(u) @ r, np.vdot(u, problem.apply_f_adjoint(r)), rtol=1e-9, atol=1e-9)
    assert_allclose(np.vdot(problem.apply_g(u), s), np.vdot(u, problem.apply_g_adjoint(s)), rtol=1e-9, atol=1e-9)


def test_operators_agree_with_explicit_matrices():
    problem = convex_problem(*random_problem(9, 4, 3, 0))
    f, g = (build(problem.features, problem.patterns) for build in (dense_f, dense_g))
    u = np.random.default_rng(1).standard_normal((2, 4, 3))
    assert_allclose(problem.apply_f(u), f @ stack_columns(u), atol=1e-12)
    assert_allclose(problem.apply_g(u).transpose(0, 2, 1).ravel(), g @ stack_columns(u), atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (4, 9)])
def test_principal_axes_keep_predictions_norms_and_patterns(n, d):
    x, y, h = random_problem(n, d, 3, 2)
    problem = convex_problem(x, y, h)
    u = np.random.default_rng(3).standard_normal((2, min(n, d), 3))
    original = problem.axes @ u  # (2, d, P)
    patterns = (x @ h >= 0).astype(float)
    assert_allclose(problem.patterns, patterns)
    assert_allclose(problem.apply_f(u), dense_f(x, patterns) @ stack_columns(original), atol=1e-10)
    assert_allclose(column_norms(u), np.linalg.norm(original, axis=1), atol=1e-12)
    assert_allclose(problem.features.T @ problem.features, np.diag(problem.spectrum), atol=1e-10)


def test_a_row_on_the_hyperplane_is_active():
    assert gate_patterns(np.array([[1.0], [0.0], [-1.0]]), np.array([[2.0]])).tolist() == [[True], [True], [False]]


def test_objective_and_violation_by_hand():
    # One feature, rows 1 and -2, one gate h = 1: D = (1, 0), E = (1, -1). At v = 3, w = 1:
    # prediction (2, 0), residual (1, -1) - (2, 0) = (-1, -1), loss 1, lasso 10 * (3 + 1) = 40.
    problem = convex_problem(np.array([[1.0], [-2.0]]), np.array([1.0, -1.0]), np.array([[1.0]]))
    u = np.array([[[3.0]], [[1.0]]]) * problem.axes[0, 0]
    assert_allclose(problem.objective(u, 10.0), 41.0)
    assert problem.cone_violation(u) == 0.0
    # At w = -1 the pre-activations E X w are (-1, -2), and v gives (3, 6): violation 2 of 6.
    u[1] *= -1
    assert_allclose(problem.cone_violation(u), 2 / 6)
    assert problem.cone_violation(0 * u) == 0.0
