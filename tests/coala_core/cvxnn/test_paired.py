"""Paired rows: the difference operator in front of F, against explicit matrices."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.cvxnn.problem import convex_problem
from tests.dense import dense_f, dense_g, stack_columns
from tests.problems import random_problem


def paired_problem(pairs, d, gates, seed):
    """A problem on 2 * pairs rows, target 1 for every pair."""
    x, _, h = random_problem(2 * pairs, d, gates, seed)
    return convex_problem(x, np.ones(pairs), h, paired=True)


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
    r, z = rng.standard_normal(pairs), rng.standard_normal((2 * pairs, 3))
    assert_allclose(problem.predict(b) @ r, np.vdot(b, problem.predict_adjoint(r)), rtol=1e-9, atol=1e-9)
    assert_allclose(problem.apply_f(u) @ r, np.vdot(u, problem.apply_f_adjoint(r)), rtol=1e-9, atol=1e-9)
    t = rng.standard_normal((pairs, 3))
    assert_allclose(np.vdot(problem.difference(z), t), np.vdot(z, problem.difference_adjoint(t)), atol=1e-9)


def test_operators_agree_with_explicit_matrices():
    problem = paired_problem(7, 4, 3, 0)
    delta = dense_difference(7)
    f, g = (build(problem.features, problem.patterns) for build in (dense_f, dense_g))
    u = np.random.default_rng(1).standard_normal((2, 4, 3))
    z = np.random.default_rng(2).standard_normal((14, 5))
    assert_allclose(problem.difference(z), delta @ z)
    assert_allclose(problem.apply_f(u), delta @ f @ stack_columns(u), atol=1e-12)
    assert_allclose(problem.apply_g(u).transpose(0, 2, 1).ravel(), g @ stack_columns(u), atol=1e-12)


def test_rows_that_are_not_paired_pass_through():
    problem = convex_problem(*random_problem(6, 3, 2, 0))
    z = np.random.default_rng(0).standard_normal((6, 2))
    assert problem.difference(z) is z
    assert problem.difference_adjoint(z) is z
