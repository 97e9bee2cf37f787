import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.cvxnn import direct
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.pcg import Pcg
from coala_core.cvxnn.problem import convex_problem
from tests.dense import DenseBackEnd, dense_f, dense_g, stack_columns
from tests.problems import random_problem


def make(n, d, gates, seed, paired=False):
    x, y, h = random_problem(2 * n if paired else n, d, gates, seed)
    return convex_problem(x, np.ones(n) if paired else y, h, paired=paired)


@pytest.mark.parametrize("kind", [DualDirect, PrimalDirect])
@pytest.mark.parametrize(("n", "d", "gates"), [(40, 3, 2), (10, 6, 4), (5, 8, 2)])
def test_u_update_solves_the_normal_equations(kind, n, d, gates):
    problem = make(n, d, gates, 0)
    right = np.random.default_rng(1).standard_normal((2, problem.shape[1], gates))
    back_end = kind(problem, 0.7)
    for rho in (0.01, 3.0, 0.2):
        back_end.refactor(rho)
        f, g = (build(problem.features, problem.patterns) for build in (dense_f, dense_g))
        # Gradient of the u-update: (F'F + rho (I + tau^2 G'G)) u = F'y + rho * right.
        matrix = f.T @ f + rho * (np.eye(f.shape[1]) + 0.7 * g.T @ g)
        expected = np.linalg.solve(matrix, f.T @ problem.labels + rho * stack_columns(right))
        assert_allclose(stack_columns(back_end.solve(right)), expected, rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    d=st.integers(1, 8),
    gates=st.integers(1, 5),
    seed=st.integers(0, 1000),
    paired=st.booleans(),
    log_rho=st.floats(-2, 3),
    cone_scale_squared=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_all_back_ends_agree_solve_after_solve(n, d, gates, seed, paired, log_rho, cone_scale_squared):
    problem = make(n, d, gates, seed, paired)
    kinds = [DenseBackEnd(problem, cone_scale_squared), PrimalDirect(problem, cone_scale_squared)]
    kinds += [DualDirect(problem, cone_scale_squared), Pcg(problem, cone_scale_squared, accuracy=1e-12)]
    rng = np.random.default_rng(seed)
    for change in (1.0, 1.5, 10.0):  # within and beyond the range in which an inverse is reused
        for back_end in kinds:
            back_end.refactor(change * 10.0**log_rho)
        right = rng.standard_normal((2, problem.shape[1], gates))
        expected, *others = (back_end.solve(right) for back_end in kinds)
        for found in others:
            assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_single_precision_inverse_is_refined_to_the_accuracy_asked_for(monkeypatch):
    monkeypatch.setattr(direct, "SINGLE_FROM", 1)
    problem = make(60, 5, 8, 1)
    expected, back_end = DenseBackEnd(problem, 0.5), DualDirect(problem, 0.5, accuracy=1e-10)
    rng = np.random.default_rng(2)
    for rho in (1e-3, 1.0, 1.4):
        back_end.refactor(rho)
        expected.refactor(rho)
        right = rng.standard_normal((2, 5, 8))
        found, exact = back_end.solve(right), expected.solve(right)
        assert back_end.inverse.dtype == np.float32
        assert np.abs(found - exact).max() <= 1e-8 * np.abs(exact).max()
        assert 1 <= back_end.steps <= 12


def test_inverse_is_reused_near_the_penalty_it_was_made_for():
    back_end = DualDirect(make(30, 4, 3, 0), 1.0)
    back_end.refactor(1.0)
    inverse = back_end.inverse
    back_end.refactor(1.9)
    assert back_end.inverse is inverse
    back_end.refactor(2.1)
    assert back_end.inverse is not inverse


def test_single_precision_that_fails_gives_way_to_double(monkeypatch):
    monkeypatch.setattr(direct, "SINGLE_FROM", 1)
    problem = make(50, 3, 4, 0)
    back_end = DualDirect(problem, 0.0)
    # The kernel has rank 12 of 50; at this penalty its rounding in float32 exceeds the identity.
    back_end.refactor(1e-9 * float(problem.spectrum.sum()))
    assert back_end.inverse.dtype == np.float64


def test_gated_problem_has_the_same_system():
    x, y, h = random_problem(30, 4, 3, 0)
    right = np.random.default_rng(0).standard_normal((2, 4, 3))
    solved = []
    for kind in (GatedProblem, None):
        problem = convex_problem(x, y, h, **({"kind": kind} if kind else {}))
        back_end = DualDirect(problem, 0.0)
        back_end.refactor(0.5)
        solved.append(back_end.solve(right))
    assert_allclose(solved[0], solved[1])
