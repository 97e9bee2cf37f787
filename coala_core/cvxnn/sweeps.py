"""The sweeps of Algorithm 2: the iterate, its residuals, its penalty and its precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from coala_core.backend import Array, namespace_of
from coala_core.config import SolveConfig
from coala_core.cvxnn.anderson import Accelerator
from coala_core.cvxnn.linear import BackEnd
from coala_core.cvxnn.looks import Duals
from coala_core.cvxnn.outcome import State, WarmStart
from coala_core.cvxnn.problem import ConvexProblem
from coala_core.cvxnn.rows import RowPass
from coala_core.cvxnn.system import cone_metric, full_metric
from coala_core.cvxnn.updates import relax, shrink_columns, small_residual, split_residual, take_step

CONE_SCALE = 10.0  # tau^2 in units of d / trace(X'X)
SINGLE_FROM = 2**18  # entries of X from which a solve begins in float32: smaller ones gain nothing
MOST_NOISE = 0.1  # of what a sweep changes in F u, that rounding may be before float64 takes over
NOISE_ROWS = 1000  # of F u, on which it is measured


def cone_scale_squared(problem: ConvexProblem) -> float:
    """tau^2, from the mean eigenvalue of X'X alone; 0 where there are no cones."""
    if not problem.cone_rows:
        return 0.0
    trace = float(problem.spectrum.sum())
    return CONE_SCALE * len(problem.spectrum) / trace if trace > 0.0 else 1.0


class Sweeps:
    """The iterate of a running solve and the sweeps that advance it.

    Parameters
    ----------
    problem : ConvexProblem
    lasso_weight : float
        beta.
    config : SolveConfig
    back_end : BackEnd
    warm_start : WarmStart, optional
    """

    def __init__(
        self,
        problem: ConvexProblem,
        lasso_weight: float,
        config: SolveConfig,
        back_end: BackEnd,
        warm_start: WarmStart | None = None,
    ) -> None:
        self.problem, self.lasso_weight, self.config, self.back_end = problem, lasso_weight, config, back_end
        self.tau2 = cone_scale_squared(problem)
        self.metric = full_metric(cone_metric(problem, self.tau2), problem.shape[2])  # (d, P)
        self.penalty = lasso_weight * (warm_start.penalty_ratio if warm_start else config.penalty or 1.0)
        self.done, self.refactorisations = 0, 0
        self._change: Array  # ||F u - F u_last||^2
        self._pull: Array | None = None  # what the last pass over the rows brought back
        self._use(first_precision(problem), warm_start.state if warm_start else None)
        self._refactor()

    @property
    def threshold(self) -> float:
        """Length beta / rho, by which the group lasso shortens a column."""
        return self.lasso_weight / self.penalty

    @property
    def v(self) -> Array:
        """The group-sparse copy of u, (halves, d, P)."""
        return shrink_columns(self.state.v_lam, self.threshold)

    @property
    def duals(self) -> Duals:
        """The multipliers of the cones."""
        return Duals(self.state.s_nu, self.penalty * self.tau2)

    def sweep(self) -> None:
        """Advance by one sweep of Algorithm 2."""
        if self.accelerator.settle(self.state) or self._pull is None:
            self._pull = self.rows.pull(self.state.s_nu, self.state.fit, self.penalty)
        u, v_lam, s_nu, fit = self.state
        v = self.v
        self._take_step(u, small_residual(self.metric, u, v, v_lam, self._pull))
        needs_pull = not self.accelerator.is_about_to_extrapolate
        self._pull, self._change = self.rows.advance(u, s_nu, fit, self.penalty, back=needs_pull)
        # F u changes by F~ (v - w) = sqrt2 F~ b, and by F~ u in the gated program.
        self.back_end.observe(self._change / self.problem.halves)
        relax(v_lam, u, v, self.config.relaxation)
        self.accelerator.watch(self.state)
        self.done += 1

    def residuals(self) -> tuple[float, float]:
        """Relative primal and dual residual of the last sweep."""
        xp, z, before = namespace_of(self.state.u), self.state.s_nu, self.accelerator.before
        v, v_before = self.v, shrink_columns(before.v_lam, self.threshold)

        def moved(rows: slice) -> Array:
            step: Array = xp.maximum(z[rows], 0.0) - xp.maximum(before.s_nu[rows], 0.0)
            return step

        def nu(rows: slice) -> Array:
            part: Array = xp.minimum(z[rows], 0.0)
            return part

        def step(rows: slice) -> Array:
            part: Array = z[rows] - before.s_nu[rows]
            return part

        def s(rows: slice) -> Array:
            part: Array = xp.maximum(z[rows], 0.0)
            return part

        tau, u_step = math.sqrt(self.tau2), self.state.v_lam - before.v_lam
        primal = math.hypot(_norm(u_step), tau * self._norm_of(step)) / self.config.relaxation
        sides = math.hypot(_norm(v), tau * self._norm_of(s))
        dual = _norm(v - v_before + self.tau2 * self.rows.cone_adjoint(moved))
        force = _norm(self.state.v_lam - v + self.tau2 * self.rows.cone_adjoint(nu))
        return primal / max(sides, 1e-300), dual / max(force, 1e-300)

    def _norm_of(self, part: Callable[[slice], Array]) -> float:
        """Euclidean norm of what has the rows of s, given some of them at a time."""
        slabs = [rows for block in self.problem.blocks() for rows, _ in block.slabs]
        return math.hypot(0.0, *(_norm(part(rows)) for rows in slabs))

    def follow(self, penalty: float) -> None:
        """Change the penalty; scaled duals keep the unscaled ones, and b's system is factorised anew."""
        if penalty == self.penalty:
            return
        xp, shift = namespace_of(self.state.u), self.penalty / penalty
        v, s_nu = self.v, self.state.s_nu
        self.state.v_lam[...] = v + shift * (self.state.v_lam - v)
        (xp.maximum if shift <= 1.0 else xp.minimum)(s_nu, s_nu * s_nu.dtype.type(shift), out=s_nu)  # s + shift nu
        self.penalty = penalty
        self._refactor()

    @property
    def is_noisy(self) -> bool:
        """Whether rounding is no longer small beside what a sweep changes in F u, by some rows that stand for all."""
        if self.rows.dtype == np.float64:
            return False
        m = len(self.problem.labels)
        some = self.problem.block(0, min(m, NOISE_ROWS))
        exact = self.problem.fit_at(some, self.state.u)
        noise = _norm(exact - self.state.fit[some.targets]) * math.sqrt(m / len(exact))
        return noise > MOST_NOISE * math.sqrt(float(self._change))

    def refine(self) -> None:
        """Go on in float64."""
        self._use(np.float64, self.state)

    def _use(self, dtype: DTypeLike, state: State | None) -> None:
        """Take a precision, and a state or none to start from."""
        problem = self.problem
        self.rows = RowPass(problem, self.tau2, self.config.relaxation, dtype)
        self.state = _zero_state(problem, dtype)
        if state is not None:
            for part, source in zip(self.state, state, strict=True):
                part[...] = source
        self.accelerator = Accelerator(self.state, self.tau2, problem.allocate)
        self._pull = None

    def _refactor(self) -> None:
        """Prepare the back end for the penalty; the gated program has half the coupling."""
        with self.problem.products.factorising():
            self.back_end.refactor(self.penalty * (2.0 / self.problem.halves))
        self.accelerator.restart()
        self._pull = None
        self.refactorisations += 1

    def _take_step(self, u: Array, residual: Array) -> None:
        """Subtract M^-1 residual (halves, d, P) from u, in place."""
        if self.problem.halves == 1:
            u -= self.back_end.apply(residual[0])[None]
            return
        sum_step, difference = split_residual(residual, self.metric)
        take_step(u, sum_step, self.back_end.apply(difference))


def first_precision(problem: ConvexProblem) -> type[np.float32 | np.float64]:
    """Return float32 where X is large enough for that to pay, else float64."""
    n, d, _ = problem.shape
    return np.float32 if n * d >= SINGLE_FROM else np.float64


def _zero_state(problem: ConvexProblem, dtype: DTypeLike) -> State:
    """Start cold, at zero."""
    xp = namespace_of(problem.spectrum)
    _, d, gates = problem.shape
    s_nu = problem.allocate((problem.cone_rows, problem.halves * gates), np.dtype(dtype))
    fit = problem.allocate((len(problem.labels),), np.dtype(dtype))
    s_nu[...], fit[...] = 0.0, 0.0
    return State(xp.zeros((problem.halves, d, gates)), xp.zeros((problem.halves, d, gates)), s_nu, fit)


def _norm(z: Array) -> float:
    """Euclidean norm of all entries."""
    return float(namespace_of(z).linalg.norm(z.reshape(-1)))
