"""Dense inverses of the b-system against `numpy.linalg.solve` with explicit matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.cvxnn import direct
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.pcg import Pcg
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from tests.dense import DenseBackEnd, dense_half, dense_system
from tests.problems import random_problem

each_kind = pytest.mark.parametrize("kind", [DualDirect, PrimalDirect])


def make(n, d, gates, seed, paired=False, kind=ConvexProblem, xp=np):
    """A problem with n rows of F."""
    x, y, h = random_problem(2 * n if paired else n, d, gates, seed)
    x, y, h = (asarray(part, xp) for part in (x, np.ones(n) if paired else y, h))
    return convex_problem(x, y, h, paired=paired, kind=kind)


def on_host(problem):
    """The same problem as NumPy arrays."""
    parts = {name: to_numpy(getattr(problem, name)) for name in ("features", "labels", "patterns", "spectrum", "axes")}
    return type(problem)(**parts, paired=problem.paired)


def random_residual(problem, seed=1):
    return np.random.default_rng(seed).standard_normal(problem.shape[1:])


def solved(problem, cone_scale_squared, rho, residual):
    """The step (d, P) by an explicit matrix."""
    matrix = dense_system(problem, cone_scale_squared, rho)
    return np.linalg.solve(matrix, residual.T.ravel()).reshape(residual.T.shape).T


@each_kind
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("cone_scale_squared", [0.7, 0.0])
@pytest.mark.parametrize(("n", "d", "gates"), [(40, 3, 2), (10, 6, 4), (5, 8, 2)])
def test_a_step_solves_the_b_system(xp, kind, paired, cone_scale_squared, n, d, gates):
    problem = make(n, d, gates, 0, paired, xp=xp)
    back_end, host = kind(problem, cone_scale_squared), on_host(problem)
    residual = random_residual(problem)
    for rho in (0.01, 3.0, 0.2, 500.0):
        back_end.refactor(rho)
        found = back_end.apply(asarray(residual, xp))
        assert found.dtype == np.float64
        assert_allclose(to_numpy(found), solved(host, cone_scale_squared, rho, residual), rtol=1e-8, atol=1e-10)


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
def test_all_back_ends_agree_at_every_penalty(n, d, gates, seed, paired, log_rho, cone_scale_squared):
    problem = make(n, d, gates, seed, paired)
    kinds = [DenseBackEnd(problem, cone_scale_squared), PrimalDirect(problem, cone_scale_squared)]
    kinds += [DualDirect(problem, cone_scale_squared), Pcg(problem, cone_scale_squared, accuracy=1e-12)]
    for change in (1.0, 1.5, 0.1):
        for back_end in kinds:
            back_end.refactor(change * 10.0**log_rho)
        residual = random_residual(problem, seed)
        expected, *others = (back_end.apply(residual) for back_end in kinds)
        for found in others:
            assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@each_kind
def test_the_gated_program_has_the_same_system(kind):
    steps = []
    for program in (ConvexProblem, GatedProblem):
        problem = make(30, 4, 3, 0, kind=program)
        back_end = kind(problem, 0.0)
        back_end.refactor(0.5)
        steps.append(back_end.apply(random_residual(problem)))
    assert_allclose(steps[0], steps[1])


def largest(kind, problem, cone_scale_squared):
    """Largest eigenvalue of what is added to the identity at rho = 2: S - I, or A less H relative to the least of H."""
    half, metric = dense_half(problem), 1.0 + cone_scale_squared * problem.spectrum
    if kind is DualDirect:
        return np.linalg.eigvalsh(half @ (half / np.tile(metric, problem.shape[2])).T).max()
    return np.linalg.eigvalsh(half.T @ half).max() / metric.min()


@each_kind
@pytest.mark.parametrize("paired", [False, True])
def test_float32_is_taken_up_to_a_norm_and_from_an_order(monkeypatch, kind, paired):
    problem = make(60, 6, 5, 1, paired)
    back_end = kind(problem, 0.5)
    order = 60 if kind is DualDirect else 30
    limit = direct.SINGULAR_UP_TO if kind is DualDirect and len(problem.labels) > 30 else direct.SINGLE_UP_TO
    at_limit = 2.0 * largest(kind, problem, 0.5) / limit
    for smallest, rho, dtype in (
        (order, 1.1 * at_limit, np.float32),
        (order, 0.9 * at_limit, np.float64),
        (order + 1, 1.1 * at_limit, np.float64),
        (order + 1, 1e6 * at_limit, np.float64),
    ):
        monkeypatch.setattr(direct, "SINGLE_FROM", smallest)
        back_end.refactor(rho)
        assert back_end.inverse.dtype == dtype


@each_kind
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("sizes", [(300, 8, 6), (90, 20, 7)])  # more rows than unknowns, and fewer
def test_steps_leave_little_of_the_residual_whatever_the_precision(monkeypatch, kind, paired, sizes):
    monkeypatch.setattr(direct, "SINGLE_FROM", 1)
    problem = make(*sizes, 1, paired)
    back_end, precisions = kind(problem, 0.01), set()
    _, d, gates = problem.shape
    for norm in np.logspace(1, 6, 11):
        rho = 2.0 * largest(kind, problem, 0.01) / norm
        back_end.refactor(rho)
        precisions.add(back_end.inverse.dtype.itemsize)
        matrix, error = dense_system(problem, 0.01, rho), random_residual(problem).T.ravel()
        for _ in range(4):  # power iterations with the error of a step, 1 - M^-1 A
            before = np.linalg.norm(error)
            error = error - back_end.apply((matrix @ error).reshape(gates, d).T).T.ravel()
            assert np.linalg.norm(error) <= 0.02 * before + 1e-300
            error /= max(np.linalg.norm(error), 1e-300)
    assert precisions == {4, 8}


@each_kind
@pytest.mark.parametrize("paired", [False, True])
def test_float32_that_fails_gives_way_to_float64(monkeypatch, kind, paired):
    real, tried = direct.inverse, []

    def reluctant(matrix):
        tried.append(matrix.dtype.itemsize)
        if matrix.dtype == np.float32:
            raise np.linalg.LinAlgError
        return real(matrix)

    monkeypatch.setattr(direct, "SINGLE_FROM", 1)
    monkeypatch.setattr(direct, "inverse", reluctant)
    problem = make(50, 3, 4, 0, paired)
    back_end, residual = kind(problem, 0.1), random_residual(problem)
    back_end.refactor(5.0)
    assert tried == [4, 8]
    assert_allclose(back_end.apply(residual), solved(problem, 0.1, 5.0, residual), rtol=1e-8, atol=1e-10)


@each_kind
def test_a_matrix_that_float32_cannot_hold_positive_definite_is_inverted_in_float64(monkeypatch, kind):
    monkeypatch.setattr(direct, "SINGLE_FROM", 1)
    monkeypatch.setattr(direct, "SINGLE_UP_TO", np.inf)
    # The kernel has rank 12 of 50, the Gram matrix 25 of 32: here their rounding in float32 exceeds the identity.
    problem = make(50, 3, 4, 0) if kind is DualDirect else make(25, 8, 4, 0)
    back_end = kind(problem, 0.0)
    back_end.refactor(1e-9 * float(problem.spectrum.sum()))
    assert back_end.inverse.dtype == np.float64
    assert np.isfinite(back_end.apply(random_residual(problem))).all()


@each_kind
def test_the_last_inverse_is_gone_when_the_next_is_made(monkeypatch, kind):
    sizes = []
    problem = make(30, 4, 3, 0)
    back_end = kind(problem, 0.5)
    real = direct.inverse
    monkeypatch.setattr(direct, "inverse", lambda matrix: (sizes.append(back_end.inverse.size), real(matrix))[1])
    back_end.refactor(1.0)
    back_end.refactor(2.0)
    assert sizes == [0, 0]
    assert back_end.inverse.size == (30**2 if kind is DualDirect else 12**2)
