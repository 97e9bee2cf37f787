import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import cone_scale_squared, solve
from coala_core.cvxnn.direct import DualDirect
from coala_core.cvxnn.outcome import Status
from coala_core.cvxnn.pcg import KroneckerPreconditioner, Pcg, gate_overlaps
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.system import cone_metric
from tests.dense import dense_f, optimum, zero_weight
from tests.problems import random_problem


def dense_coupling(problem):
    """F~'F~, (dP, dP), gate by gate."""
    f = dense_f(problem.features, problem.patterns)
    half = problem.difference(f[:, : f.shape[1] // 2])
    return half.T @ half


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000), st.booleans())
def test_overlaps_are_traces_of_the_blocks(pairs, d, gates, seed, paired):
    x, _, h = random_problem(2 * pairs, d, gates, seed)
    problem = convex_problem(x, np.ones(pairs if paired else 2 * pairs), h, paired=paired)
    d = problem.shape[1]
    blocks = dense_coupling(problem).reshape(gates, d, gates, d)
    expected = np.trace(blocks, axis1=1, axis2=3) / problem.spectrum.sum()
    assert_allclose(gate_overlaps(problem), expected, atol=1e-9)


def test_preconditioner_is_the_inverse_of_the_kronecker_form():
    problem = convex_problem(*random_problem(30, 4, 3, 0))
    metric = cone_metric(problem, 0.3)
    preconditioner = KroneckerPreconditioner(problem, metric)
    residual = np.random.default_rng(0).standard_normal((4, 3))
    for rho in (0.1, 5.0):
        preconditioner.refactor(rho)
        diagonal = np.kron(np.eye(3), np.diag(metric[:, 0]))
        dense = diagonal + 2.0 / rho * np.kron(gate_overlaps(problem), np.diag(problem.spectrum))
        expected = np.linalg.solve(dense, residual.T.ravel())
        assert_allclose(preconditioner.apply(residual).T.ravel(), expected, rtol=1e-9)
        assert preconditioner.length(residual) == pytest.approx(np.sqrt(residual.T.ravel() @ expected))


def test_each_solve_reduces_the_change_and_the_errors_shrink_with_the_changes():
    problem = convex_problem(*random_problem(200, 10, 5, 1))
    pcg, exact = Pcg(problem, 0.01, accuracy=0.1), Pcg(problem, 0.01, accuracy=1e-12)
    pcg.refactor(20.0)
    exact.refactor(20.0)
    rng = np.random.default_rng(0)
    right = 10.0 * rng.standard_normal((2, 10, 5))
    errors = []
    for k in range(30):
        right += 0.5**k * rng.standard_normal(right.shape)
        errors.append(np.linalg.norm(pcg.solve(right) - exact.solve(right)))
    # Changes fall by 2^-30 = 1e-9; float32 products and 1/10 of what is left put a floor far below the first errors.
    assert max(errors[-3:]) <= 1e-4 * max(errors[:3])


def test_an_unchanged_right_side_costs_no_step_in_the_end():
    problem = convex_problem(*random_problem(60, 5, 4, 1))
    pcg = Pcg(problem, 0.1, accuracy=1e-13)
    pcg.refactor(1.0)
    right = np.random.default_rng(0).standard_normal((2, 5, 4))
    first = pcg.solve(right)
    assert pcg.steps > 3
    assert_allclose(pcg.solve(right), first, rtol=1e-9)
    assert pcg.steps <= 3


def whole_steps(n, d, gates, rho_per_row, seed=0):
    """Steps from nothing to a millionth."""
    problem = convex_problem(*random_problem(n, d, gates, seed))
    pcg = Pcg(problem, cone_scale_squared(problem), accuracy=1e-6)
    pcg.refactor(rho_per_row * n)
    pcg.solve(np.random.default_rng(seed).standard_normal((2, problem.shape[1], gates)))
    return pcg.steps


@pytest.mark.parametrize("gates", [2, 5, 20])
@pytest.mark.parametrize(("n", "d"), [(200, 10), (1000, 10), (1000, 40), (3000, 40)])
def test_steps_are_bounded_and_fall_with_the_penalty(n, d, gates):
    # Measured: at most 59, 47 and 28 where rows are twice the unknowns dP, else at most 100, 76 and 34.
    bounds = (80, 60, 36) if n >= 2 * d * gates else (130, 100, 45)
    steps = [whole_steps(n, d, gates, rho) for rho in (1 / 4000, 10 / 4000, 100 / 4000)]
    assert steps[0] >= steps[1] >= steps[2]
    assert all(taken <= bound for taken, bound in zip(steps, bounds, strict=True))


@pytest.mark.parametrize(("d", "gates", "rho_per_row"), [(10, 5, 10 / 4000), (20, 3, 1 / 4000), (10, 5, 100 / 4000)])
def test_steps_do_not_grow_with_rows(d, gates, rho_per_row):
    few, many = whole_steps(400, d, gates, rho_per_row), whole_steps(4000, d, gates, rho_per_row)
    assert many <= 1.1 * few + 1


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.03])
def test_solve_by_conjugate_gradients_is_certified_and_needs_hardly_more_sweeps(xp, paired, share):
    x, y, h = random_problem(80, 6, 4, 2)
    y = np.ones(40) if paired else y
    problem = convex_problem(xp.asarray(x), xp.asarray(y), xp.asarray(h), paired=paired)
    patterns = (x @ h >= 0).astype(float)
    weight = share * zero_weight(x, np.repeat([1.0, -1.0], 40) if paired else y, patterns)
    config = SolveConfig(tolerance=1e-5, max_cone_violation=1e-5, max_sweeps=20_000)
    tau2 = cone_scale_squared(problem)
    found, direct = (solve(problem, weight, config, back_end=kind(problem, tau2)) for kind in (Pcg, DualDirect))
    expected, _ = optimum(x, y, patterns, weight, paired=paired)
    assert found.status is Status.CONVERGED
    assert found.certificate.lower_bound <= expected * (1 + 1e-7)
    assert found.certificate.upper_bound == pytest.approx(expected, rel=1e-4)
    # The certificate does not rest on the back end: a plain float64 evaluation of the point gives the same.
    assert float(problem.objective(found.u, weight)) == pytest.approx(found.certificate.upper_bound, rel=1e-12)
    # Sweeps depend on where the penalty settles: 1,150 both, 1,275 and 1,700 at the small share.
    assert found.sweeps <= 1.5 * direct.sweeps + config.check_every
