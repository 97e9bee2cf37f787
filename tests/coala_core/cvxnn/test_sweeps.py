"""Sweeps against Algorithm 2 with explicit matrices, their penalty and their precision."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.backend import asarray, namespace_of, to_numpy
from coala_core.config import SolveConfig
from coala_core.cvxnn import sweeps as sweeps_module
from coala_core.cvxnn.admm import solve
from coala_core.cvxnn.anderson import EVERY
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.outcome import State, Status, WarmStart
from coala_core.cvxnn.pcg import Pcg
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.cvxnn.sweeps import CONE_SCALE, Sweeps, cone_scale_squared, first_precision
from tests.dense import DenseBackEnd, dense_pair, rows_of, stack_columns, unstack_columns
from tests.problems import on_device, random_problem

WEIGHT, RATIO = 0.8, 3.0
KINDS = [(ConvexProblem, False), (ConvexProblem, True), (GatedProblem, False), (GatedProblem, True)]
each_kind = pytest.mark.parametrize(("kind", "paired"), KINDS)


def make(kind=ConvexProblem, paired=False, rows=30, d=4, gates=3, seed=0):
    x, y, h = random_problem(rows, d, gates, seed)
    return convex_problem(x, np.ones(rows // 2) if paired else y, h, paired=paired, kind=kind)


def random_start(problem, seed=0):
    """Any u, v + lam and s + nu, with the F u that belongs to this u."""
    rng = np.random.default_rng(seed)
    n, d, gates = problem.shape
    u, v_lam = rng.standard_normal((2, problem.halves, d, gates))
    v_lam[0, :, 0] *= 1e-3  # a column that the group lasso drops
    s_nu = rng.standard_normal((problem.halves, n if problem.cone_rows else 0, gates))
    return State(u, v_lam, rows_of(s_nu), dense_pair(problem)[0] @ stack_columns(u))


class Algorithm2:
    """Algorithm 2 in one place, on stacked vectors, with explicit F and G; tau^2 is the cone's share of rho."""

    def __init__(self, problem, start, weight, penalty, relaxation):
        self.f, self.g = dense_pair(problem)
        self.y, self.tau2, self.halves, self.gates = problem.labels, cone_scale_squared(problem), problem.halves, 3
        self.weight, self.penalty, self.relaxation = weight, penalty, relaxation
        z = stack_columns(start.v_lam)
        self.v = self.shrink(z)
        self.lam = z - self.v
        width = start.s_nu.shape[1] // self.halves
        lower = stack_columns(np.stack([start.s_nu[:, k * width : (k + 1) * width] for k in range(self.halves)]))
        self.s, self.nu = np.maximum(lower, 0), np.minimum(lower, 0)

    def shrink(self, z):
        columns = z.reshape(self.halves * self.gates, -1)
        threshold = self.weight / self.penalty
        return np.concatenate([c * max(0.0, 1.0 - threshold / np.linalg.norm(c)) for c in columns])

    def sweep(self):
        f, g, rho, tau2, alpha = self.f, self.g, self.penalty, self.tau2, self.relaxation
        matrix = f.T @ f + rho * (np.eye(f.shape[1]) + tau2 * g.T @ g)
        self.u = np.linalg.solve(
            matrix, f.T @ self.y + rho * (self.v - self.lam) + rho * tau2 * g.T @ (self.s - self.nu)
        )
        self.before = self.v, self.s
        u_hat = alpha * self.u + (1 - alpha) * self.v
        g_hat = alpha * g @ self.u + (1 - alpha) * self.s
        self.v = self.shrink(u_hat + self.lam)
        self.s = np.maximum(g_hat + self.nu, 0)
        self.lam = self.lam + u_hat - self.v
        self.nu = self.nu + g_hat - self.s

    def residuals(self):
        """Of u = v and tau G u = tau s, and of the dual, relative to their sides."""
        tau, (v, s) = np.sqrt(self.tau2), self.before
        primal = np.hypot(np.linalg.norm(self.u - v), tau * np.linalg.norm(self.g @ self.u - s))
        dual = np.linalg.norm(self.v - v + self.tau2 * self.g.T @ (self.s - s))
        sides = np.hypot(np.linalg.norm(self.v), tau * np.linalg.norm(self.s))
        return primal / sides, dual / np.linalg.norm(self.lam + self.tau2 * self.g.T @ self.nu)


def begin(problem, start, back_end, relaxation=1.6, ratio=RATIO):
    config = SolveConfig(relaxation=relaxation)
    return Sweeps(problem, WEIGHT, config, back_end(problem, cone_scale_squared(problem)), WarmStart(start, ratio))


@each_kind
@pytest.mark.parametrize("back_end", [DualDirect, PrimalDirect, DenseBackEnd, lambda *args: Pcg(*args, accuracy=1e-13)])
@pytest.mark.parametrize("relaxation", [1.0, 1.6])
def test_sweeps_are_algorithm_2_from_any_u(kind, paired, back_end, relaxation):
    problem = make(kind, paired)
    start = random_start(problem)
    plain = Algorithm2(problem, start, WEIGHT, RATIO * WEIGHT, relaxation)
    sweeps = begin(problem, start, back_end, relaxation)
    # As far as the first extrapolation; the step is taken from the last u, the exact solution does not know it.
    for _ in range(EVERY):
        plain.sweep()
        sweeps.sweep()
        state = sweeps.state
        for found, expected in (
            (stack_columns(state.u), plain.u),
            (stack_columns(sweeps.v), plain.v),
            (stack_columns(state.v_lam - sweeps.v), plain.lam),
            (state.fit, plain.f @ plain.u),
        ):
            assert_allclose(found, expected, atol=1e-9 * max(1.0, np.abs(expected).max()))
        if problem.cone_rows:
            z = rows_of(unstack_columns(plain.s + plain.nu, 2, 3))
            assert_allclose(state.s_nu, z, atol=1e-9 * np.abs(z).max())
        assert_allclose(sweeps.residuals(), plain.residuals(), rtol=1e-7)
    assert sweeps.done == EVERY


@each_kind
@pytest.mark.parametrize("back_end", [DualDirect, PrimalDirect, Pcg])
def test_sweeps_are_the_same_wherever_the_arrays_are(xp, kind, paired, back_end):
    problem = make(kind, paired)
    start = random_start(problem)
    there = State(*(asarray(part, xp) for part in start))
    on_host, moved = begin(problem, start, back_end), begin(on_device(problem, xp), there, back_end)
    for _ in range(5 * EVERY):  # past four extrapolations
        on_host.sweep()
        moved.sweep()
    assert {namespace_of(part) for part in moved.state} == {xp}
    for found, expected in zip(moved.state, on_host.state, strict=True):
        assert_allclose(to_numpy(found), expected, atol=1e-7 * max(1.0, np.abs(expected).max(initial=0.0)))


@each_kind
def test_the_back_end_hears_what_its_step_did_to_the_fit(kind, paired):
    problem = make(kind, paired)
    start = random_start(problem)
    steps = []

    class Listening(DenseBackEnd):
        def apply(self, residual):
            steps.append(super().apply(residual))
            return steps[-1]

    sweeps = begin(problem, start, Listening)
    for _ in range(25):  # past two extrapolations
        sweeps.sweep()
    half = dense_pair(problem)[0][:, : steps[0].size]
    expected = [np.sum((half @ step.T.ravel()) ** 2) for step in steps]
    assert_allclose(sweeps.back_end.observed, expected, rtol=1e-6, atol=1e-16)
    # What the system is prepared for: I (x) H + (2/rho) F~'F~, half of it where there are no pairs (v, w).
    assert sweeps.back_end.penalties == [pytest.approx(RATIO * WEIGHT * (1 if problem.halves == 2 else 2))]


def test_cone_scale_by_hand():
    problem = make()
    assert cone_scale_squared(problem) == pytest.approx(
        CONE_SCALE * 4 / np.trace(problem.features.T @ problem.features)
    )
    assert cone_scale_squared(make(GatedProblem)) == 0.0


@each_kind
@pytest.mark.parametrize("factor", [7.0, 0.13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_new_penalty_keeps_v_s_and_the_unscaled_duals(monkeypatch, kind, paired, factor, dtype):
    monkeypatch.setattr(sweeps_module, "first_precision", lambda problem: dtype)
    problem = make(kind, paired)
    sweeps = begin(problem, random_start(problem), DenseBackEnd)
    for _ in range(3):
        sweeps.sweep()

    def unscaled():
        v, s_nu, rho = sweeps.v, sweeps.state.s_nu.astype(float), sweeps.penalty
        return v, rho * (sweeps.state.v_lam - v), np.maximum(s_nu, 0), rho * np.minimum(s_nu, 0)

    before, penalty = unscaled(), sweeps.penalty
    sweeps.follow(factor * penalty)
    assert sweeps.penalty == factor * penalty
    assert sweeps.refactorisations == len(sweeps.back_end.penalties) == 2
    assert sweeps.threshold == pytest.approx(WEIGHT / (factor * penalty))
    for found, expected in zip(unscaled(), before, strict=True):
        assert_allclose(found, expected, rtol=1e-5 if dtype == np.float32 else 1e-10, atol=1e-12)
    sweeps.follow(sweeps.penalty)  # the same one costs nothing
    assert sweeps.refactorisations == 2


@each_kind
def test_sweeps_after_a_new_penalty_are_algorithm_2_at_it(kind, paired):
    problem = make(kind, paired)
    start = random_start(problem)
    plain = Algorithm2(problem, start, WEIGHT, RATIO * WEIGHT, 1.6)
    sweeps = begin(problem, start, PrimalDirect)
    for factor in (5.0, 0.3):
        plain.sweep()
        sweeps.sweep()
        plain.penalty *= factor
        plain.lam, plain.nu = plain.lam / factor, plain.nu / factor
        sweeps.follow(plain.penalty)
    plain.sweep()
    sweeps.sweep()
    assert_allclose(stack_columns(sweeps.state.u), plain.u, atol=1e-9)
    assert_allclose(stack_columns(sweeps.v), plain.v, atol=1e-9)


def test_float32_is_for_large_problems(monkeypatch):
    problem = make()
    assert first_precision(problem) == np.float64
    monkeypatch.setattr(sweeps_module, "SINGLE_FROM", 30 * 4)
    assert first_precision(problem) == np.float32
    monkeypatch.setattr(sweeps_module, "SINGLE_FROM", 30 * 4 + 1)
    assert first_precision(problem) == np.float64


@each_kind
@pytest.mark.parametrize("back_end", [PrimalDirect, DualDirect, Pcg])
def test_a_tight_solve_begins_in_float32_and_ends_in_float64(monkeypatch, kind, paired, back_end):
    monkeypatch.setattr(sweeps_module, "SINGLE_FROM", 1)
    problem = make(kind, paired, rows=120, d=6, gates=4, seed=1)
    config = SolveConfig(tolerance=1e-7, max_cone_violation=1e-7, max_sweeps=20_000)
    found = solve(problem, 2.0, config, back_end=back_end(problem, cone_scale_squared(problem)))
    assert found.status is Status.CONVERGED
    assert abs(found.certificate.gap) <= 1e-7
    bits = [record.bits for record in found.history]
    assert bits[0] == 32 or len(bits) == 1
    assert bits == sorted(bits)  # there is no way back
    assert set(bits) == {32, 64} or kind is GatedProblem
    # What is certified is certified in float64, whatever the sweeps did.
    assert found.certificate.upper_bound == pytest.approx(float(problem.objective(found.u, 2.0)), rel=1e-9)
    assert found.certificate.cone_violation == pytest.approx(
        float(problem.cone_violation(found.u)), rel=1e-6, abs=1e-15
    )
    monkeypatch.setattr(sweeps_module, "SINGLE_FROM", 10**9)
    double = solve(problem, 2.0, config, back_end=back_end(problem, cone_scale_squared(problem)))
    assert {record.bits for record in double.history} == {64}
    assert found.certificate.upper_bound == pytest.approx(double.certificate.upper_bound, rel=3e-7)


def test_a_loose_solve_ends_in_float32(monkeypatch):
    monkeypatch.setattr(sweeps_module, "SINGLE_FROM", 1)
    problem = make(rows=120, d=6, gates=4, seed=1)
    found = solve(problem, 2.0, SolveConfig(tolerance=1e-2, max_cone_violation=1e-2, check_every=5))
    assert found.status is Status.CONVERGED
    assert {record.bits for record in found.history} == {32}
    assert found.certificate.upper_bound == pytest.approx(float(problem.objective(found.u, 2.0)), rel=1e-9)


@pytest.mark.parametrize("rows", [1000, 10])
@pytest.mark.parametrize("paired", [False, True])
def test_noise_is_rounding_beside_the_change_of_the_fit(monkeypatch, rows, paired):
    monkeypatch.setattr(sweeps_module, "SINGLE_FROM", 1)
    monkeypatch.setattr(sweeps_module, "NOISE_ROWS", rows)
    problem = make(paired=paired)
    sweeps = begin(problem, random_start(problem), DenseBackEnd)
    before = sweeps.state.fit.astype(float)
    sweeps.sweep()
    fit = sweeps.state.fit.copy()
    change = np.linalg.norm(fit - before)
    direction = np.ones(len(fit)) / np.sqrt(len(fit))  # the same in every row, so some of them stand for all
    for share in (0.5, 0.99, 1.01, 3.0):
        sweeps.state.fit[:] = fit + share * sweeps_module.MOST_NOISE * change * direction
        assert sweeps.is_noisy == (share > 1)
    sweeps.state.fit[:] = fit
    state = [part.copy() for part in sweeps.state]
    sweeps.refine()
    assert sweeps.rows.dtype == sweeps.state.s_nu.dtype == sweeps.state.fit.dtype == np.float64
    for part, expected in zip(sweeps.state, state, strict=True):
        assert_allclose(part, expected, rtol=0)
    sweeps.state.fit[:] += 1e9
    assert not sweeps.is_noisy  # there is nothing finer


@each_kind
def test_a_fixed_penalty_stays_and_is_factorised_once(kind, paired):
    problem = make(kind, paired, rows=60)
    config = SolveConfig(penalty=4.0, tolerance=1e-9, max_cone_violation=1e-9, max_sweeps=300)
    back_end = DenseBackEnd(problem, cone_scale_squared(problem))
    found = solve(problem, WEIGHT, config, back_end=back_end)
    assert {record.penalty for record in found.history} == {4.0 * WEIGHT}
    assert found.refactorisations == len(back_end.penalties) == 1
    assert found.warm_start.penalty_ratio == 4.0
    free = solve(problem, WEIGHT, config.model_copy(update={"penalty": None}))
    assert free.history[0].penalty != 4.0 * WEIGHT
