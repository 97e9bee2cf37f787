r"""Algorithm 2 on eq. (4), with exact u-updates, a penalty that adapts and a certified stop.

    minimise_{u,v,s}  1/2 ||F u - y||^2 + beta ||v||_{2,1} + I(s >= 0)   s.t.  u = v,  G u = s

Departures from the paper: the u-update is exact (`linear`); the cone constraint has its own penalty
rho tau^2 (tau = 1 in the paper); iterates are over-relaxed and the dual step is 1; rho follows the
residuals; every tenth sweep starts from an extrapolation (`anderson`); the loop ends on a certified gap
instead of a number of sweeps.
"""

from __future__ import annotations

import math

from coala_core.backend import Array, namespace_of
from coala_core.config import SolveConfig
from coala_core.cvxnn.anderson import Accelerator, state_of
from coala_core.cvxnn.best import Best
from coala_core.cvxnn.certificate import certify, lower_bound
from coala_core.cvxnn.gated import OneHalf
from coala_core.cvxnn.halt import Halt
from coala_core.cvxnn.linear import BackEnd, choose_back_end
from coala_core.cvxnn.outcome import Outcome, Record, State, Status, WarmStart
from coala_core.cvxnn.problem import ConvexProblem
from coala_core.progress import Progress

CONE_SCALE = 10.0  # tau^2 in units of d / trace(X'X)
PRIMAL_EMPHASIS = 2.0  # cone violation lags behind the gap, so the penalty leans towards the primal residual
FIRST_BALANCE = 10  # sweep of the first look at the penalty; the next ones are spaced geometrically
SMALLEST_CHANGE, LARGEST_CHANGE = 1.5, 10.0  # factors of one penalty change: below is not worth a factorisation
PENALTY_RANGE = (1e-4, 1e4)  # of rho / beta


def admm_sweep(
    state: State,
    problem: ConvexProblem,
    back_end: BackEnd,
    threshold: float,
    cone_scale_squared: float,
    relaxation: float,
) -> tuple[State, Array, Array]:
    """One sweep of Algorithm 2; return the next state, u (2, d, P) and G u (2, n, P)."""
    v, s, lam, nu = state
    u = back_end.solve(v - lam + cone_scale_squared * problem.apply_g_adjoint(s - nu))  # (2, d, P)
    g_u = problem.apply_g(u)  # (2, n, P)
    u_lam = relaxation * u + (1.0 - relaxation) * v + lam
    g_nu = relaxation * g_u + (1.0 - relaxation) * s + nu
    return state_of(u_lam, g_nu, threshold), u, g_u


def balanced_penalty(penalty: float, primal: float, dual: float, lasso_weight: float) -> float:
    """Return the penalty that would bring the two residuals together, or the same one when it is near."""
    if not (primal > 0.0 and dual > 0.0 and math.isfinite(primal) and math.isfinite(dual)):
        return penalty
    change = PRIMAL_EMPHASIS * math.sqrt(primal / dual)
    if 1.0 / SMALLEST_CHANGE < change < SMALLEST_CHANGE:
        return penalty
    change = min(max(change, 1.0 / LARGEST_CHANGE), LARGEST_CHANGE)
    low, high = PENALTY_RANGE
    return min(max(penalty * change, low * lasso_weight), high * lasso_weight)


def cone_scale_squared(problem: ConvexProblem) -> float:
    """tau^2, from the mean eigenvalue of X'X alone; 0 where there are no cones."""
    if not problem.cone_rows:
        return 0.0
    trace = float(problem.spectrum.sum())
    return CONE_SCALE * len(problem.spectrum) / trace if trace > 0.0 else 1.0


class _Solve:
    """One running solve: the loop's variables, and what it does between sweeps."""

    def __init__(
        self,
        problem: ConvexProblem,
        lasso_weight: float,
        config: SolveConfig,
        back_end: BackEnd,
        warm_start: WarmStart | None,
    ) -> None:
        self.problem, self.lasso_weight, self.config, self.back_end = problem, lasso_weight, config, back_end
        self.tau2 = cone_scale_squared(problem)
        self.state = warm_start.state if warm_start else _zero_state(problem)
        self.penalty = lasso_weight * (warm_start.penalty_ratio if warm_start else 1.0)
        self.back_end.refactor(self.penalty)
        self.accelerator = Accelerator(self.tau2, lasso_weight / self.penalty)
        self.refactorisations, self.sweeps = 1, 0
        self.history: list[Record] = []
        self.best = Best(problem, self.state.v, config)

    def sweep(self) -> tuple[State, Array, Array]:
        """Advance by one sweep; return the state before it, u and G u."""
        before = self.accelerator.start_of_next(self.state)
        threshold = self.lasso_weight / self.penalty
        self.state, u, g_u = admm_sweep(
            before, self.problem, self.back_end, threshold, self.tau2, self.config.relaxation
        )
        self.sweeps += 1
        return before, u, g_u

    def residuals(self, before: State, u: Array, g_u: Array) -> tuple[float, float]:
        """Relative primal and dual residual of the last sweep."""
        v, s, lam, nu = self.state
        tau = math.sqrt(self.tau2)
        primal = math.hypot(_norm(u - before.v), tau * _norm(g_u - before.s))
        sides = max(math.hypot(_norm(u), tau * _norm(g_u)), math.hypot(_norm(v), tau * _norm(s)))
        dual = _norm(v - before.v + self.tau2 * self.problem.apply_g_adjoint(s - before.s))
        force = _norm(lam + self.tau2 * self.problem.apply_g_adjoint(nu))
        return primal / max(sides, 1e-300), dual / max(force, 1e-300)

    def check(self, u: Array, primal: float, dual: float) -> Status | None:
        """Compute and record the certificate of v; return the status if the solve is over."""
        problem, beta = self.problem, self.lasso_weight
        multipliers = (-self.penalty * self.tau2) * self.state.nu  # (2, n, P)
        at_v = certify(problem, beta, self.state.v, multipliers)
        pull = problem.apply_g_adjoint(multipliers)
        at_u = lower_bound(problem, beta, problem.labels - problem.apply_f(u), pull)
        finite = math.isfinite(at_v.upper_bound) and math.isfinite(at_u)
        proven = finite and self.best.offer(self.state.v, at_v, at_u)
        self._record(at_v.upper_bound, primal, dual)
        if not finite:
            return Status.NOT_FINITE
        if proven:
            return Status.CONVERGED
        return Status.OUT_OF_SWEEPS if self.sweeps >= self.config.max_sweeps else None

    def _record(self, objective: float, primal: float, dual: float) -> None:
        """Append what this check saw."""
        proven = self.best.certificate
        self.history.append(
            Record(
                sweep=self.sweeps,
                primal_residual=primal,
                dual_residual=dual,
                penalty=self.penalty,
                objective=objective,
                lower_bound=proven.lower_bound,
                upper_bound=proven.upper_bound,
                gap=proven.gap,
                cone_violation=proven.cone_violation,
                refactorisations=self.refactorisations,
            )
        )

    def change_penalty(self, primal: float, dual: float) -> None:
        """Follow the residuals; scaled duals keep the unscaled ones, and b's system is factorised anew."""
        penalty = balanced_penalty(self.penalty, primal, dual, self.lasso_weight)
        if penalty == self.penalty:
            return
        v, s, lam, nu = self.state
        shift = self.penalty / penalty
        self.state, self.penalty = State(v, s, lam * shift, nu * shift), penalty
        self.back_end.refactor(penalty)
        self.accelerator = Accelerator(self.tau2, self.lasso_weight / penalty)
        self.refactorisations += 1

    def outcome(self, status: Status) -> Outcome:
        """Gather the result as it stands."""
        return Outcome(
            u=self.best.point,
            status=status,
            certificate=self.best.certificate,
            history=tuple(self.history),
            sweeps=self.sweeps,
            refactorisations=self.refactorisations,
            warm_start=WarmStart(self.state, self.penalty / self.lasso_weight),
        )


def solve(
    problem: ConvexProblem,
    lasso_weight: float,
    config: SolveConfig,
    *,
    back_end: BackEnd | None = None,
    warm_start: WarmStart | None = None,
    progress: Progress | None = None,
    halt: Halt | None = None,
) -> Outcome:
    """Solve a prepared problem at one lasso weight.

    Parameters
    ----------
    problem : ConvexProblem
    lasso_weight : float
        beta of eq. (4), above 0.
    config : SolveConfig
        `tolerance`, `max_cone_violation`, `max_sweeps`, `max_seconds`, `check_every` and `relaxation` are read.
    back_end : BackEnd, optional
        Solver of the u-update to reuse between weights; by default the smaller system.
    warm_start : WarmStart, optional
        From the outcome at a nearby weight of the same problem.
    progress : callable, optional
        Called with (sweeps done, sweeps at most, "sweeps") at every check.
    halt : Halt, optional
        Asked after every sweep whether to end; by default `max_seconds` from now.

    Returns
    -------
    Outcome
        The best point that a check has seen; one more check is made where the solve ends between two. Running out
        of sweeps or time is a status, not an exception.
    """
    halt = halt or Halt(config.max_seconds)
    back_end = back_end or back_end_for(problem, config)
    run = _Solve(problem, lasso_weight, config, back_end, warm_start)
    next_balance, status = FIRST_BALANCE, None
    while status is None:
        before, u, g_u = run.sweep()
        end = halt.status()
        is_check = run.sweeps % config.check_every == 0 or run.sweeps == config.max_sweeps or end is not None
        if not is_check and run.sweeps != next_balance:
            continue
        primal, dual = run.residuals(before, u, g_u)
        if is_check:
            status = run.check(u, primal, dual) or end
            if progress:
                progress(run.sweeps, config.max_sweeps, "sweeps")
        if run.sweeps >= next_balance and status is None:
            next_balance = int(1.6 * run.sweeps) + 9
            run.change_penalty(primal, dual)
    return run.outcome(status)


def back_end_for(problem: ConvexProblem, config: SolveConfig) -> BackEnd:
    """Return the u-update that suits the size and kind of the problem, or the one that is configured."""
    back_end = choose_back_end(problem, cone_scale_squared(problem), config.linear, config.max_memory_gib)
    return OneHalf(back_end) if problem.halves == 1 else back_end


def _zero_state(problem: ConvexProblem) -> State:
    """Start cold, at zero."""
    xp = namespace_of(problem.features)
    _, d, gates = problem.shape
    v, s = xp.zeros((problem.halves, d, gates)), xp.zeros((problem.halves, problem.cone_rows, gates))
    return State(v, s, v, s)


def _norm(z: Array) -> float:
    """Euclidean norm of all entries."""
    return float(namespace_of(z).linalg.norm(z.reshape(-1)))
