r"""Algorithm 2 on eq. (4), with a penalty that adapts, in the precision it needs, to a certified stop.

    minimise_{u,v,s}  1/2 ||F u - y||^2 + beta ||v||_{2,1} + I(s >= 0)   s.t.  u = v,  G u = s

Departures from the paper: a u-update is one step from the last u by a good preconditioner (`system`, `linear`); the
cone constraint has its own penalty rho tau^2 (tau = 1 in the paper); iterates are over-relaxed and the dual step is 1;
rho follows what the certificate lacks; every fifth sweep is followed by an extrapolation (`anderson`); the loop ends
on a certified gap instead of a number of sweeps. A sweep reads X once (`rows`), in float32 while its rounding is small
beside what the sweep changes, then in float64.
"""

from __future__ import annotations

import math
from dataclasses import replace

from coala_core.backend import Array
from coala_core.config import SolveConfig
from coala_core.cvxnn.best import Best
from coala_core.cvxnn.certificate import Certificate, certify, measure
from coala_core.cvxnn.halt import Halt
from coala_core.cvxnn.inside import moved_inside
from coala_core.cvxnn.linear import BackEnd, choose_back_end
from coala_core.cvxnn.outcome import Outcome, Record, Status, WarmStart
from coala_core.cvxnn.problem import ConvexProblem
from coala_core.cvxnn.sweeps import Sweeps, cone_scale_squared
from coala_core.progress import Progress

FIRST_BALANCE = 10  # sweep of the first look at the penalty, which is at the residuals alone
BALANCE_EVERY = 25  # sweeps, of which the later looks are at multiples, ever rarer; each is at a check
PRIMAL_EMPHASIS = 4.0  # cone violation lags behind its residual
FREEDOM = 4.0  # of the ratio of errors from that of the residuals
SMALLEST_CHANGE, LARGEST_CHANGE = 1.5, 10.0  # factors of one penalty change: below is not worth a factorisation
PENALTY_RANGE = (1e-4, 1e4)  # of rho / beta
REACH = 5.0  # times the violation that is allowed, up to which a point is moved inside
MOVES = 3  # at most, since a move of some rows may push others out
FEWEST_BETWEEN = 5  # sweeps from one check to the next: a check costs about as much


def balanced_penalty(penalty: float, ratio: float, lasso_weight: float) -> float:
    """Return the penalty that would bring a primal and a dual error of this ratio together, or the same one if near."""
    if not (ratio > 0.0 and math.isfinite(ratio)):
        return penalty
    change = math.sqrt(ratio)
    if 1.0 / SMALLEST_CHANGE < change < SMALLEST_CHANGE:
        return penalty
    change = min(max(change, 1.0 / LARGEST_CHANGE), LARGEST_CHANGE)
    low, high = PENALTY_RANGE
    return min(max(penalty * change, low * lasso_weight), high * lasso_weight)


def sweeps_until(shortfall: float, before: float, passed: int, most: int) -> int:
    """Return the sweeps to the next check: as many as it takes to fall to 1 at the pace of the last `passed` ones.

    They are at least `FEWEST_BETWEEN`, unless `most` is less, and at most `most`.
    """
    if not 1.0 < shortfall < before < math.inf:
        return most
    needed = passed * math.log(shortfall) / math.log(before / shortfall)
    return min(max(math.ceil(needed), FEWEST_BETWEEN), most)


def balance_after(sweep: int) -> int:
    """Return the sweep of the next look at the penalty, whatever `check_every` is: 10, 50, 100, 150, 225, 325, ..."""
    return math.ceil((1.3 * sweep + 15.0) / BALANCE_EVERY) * BALANCE_EVERY


class _Solve:
    """One running solve: the sweeps, and what happens between them."""

    def __init__(self, problem: ConvexProblem, config: SolveConfig, sweeps: Sweeps) -> None:
        self.problem, self.config, self.sweeps = problem, config, sweeps
        self.history: list[Record] = []
        self.last = Certificate(0.0, math.inf, 0.0)  # of the last check, whether or not it was the best
        self.best = Best(problem, sweeps.state.u, config)
        self.next_check = config.check_every
        self._seen = 0, math.inf  # sweep and shortfall of the last check

    def check(self, primal: float, dual: float) -> Status | None:
        """Compute and record the certificate of v; return the status if the solve is over."""
        sweeps = self.sweeps
        point = sweeps.v
        proven = certify(self.problem, sweeps.lasso_weight, point, sweeps.duals, sweeps.state.fit)
        finite = math.isfinite(proven.upper_bound) and math.isfinite(proven.lower_bound)
        self.last = proven
        enough = finite and (self.best.offer(point, proven) or self._offer_inside(point, proven))
        self._record(proven.upper_bound, primal, dual)
        if not finite:
            return Status.NOT_FINITE
        if enough:
            return Status.CONVERGED
        if sweeps.is_noisy:
            sweeps.refine()
        self._plan_check()
        return Status.OUT_OF_SWEEPS if sweeps.done >= self.config.max_sweeps else None

    def _offer_inside(self, point: Array, proven: Certificate) -> bool:
        """Move a point inside that only its violation keeps from being good enough; tell whether that was enough."""
        most, sweeps = self.config.max_cone_violation, self.sweeps
        for _ in range(MOVES):
            is_near = proven.cone_violation <= REACH * most
            if not is_near or self.best.gap_shortfall(self._with_best_bound(proven)) > 1.0:
                return False
            moved = moved_inside(self.problem, point, most)
            if moved is None:
                return False
            point = moved
            proven = measure(self.problem, sweeps.lasso_weight, point, sweeps.duals)
            if self.best.offer(point, proven):
                return True
        return False

    def _plan_check(self) -> None:
        """Look again when the tolerance should be reached, `check_every` sweeps from now at the latest."""
        done, (sweep, before) = self.sweeps.done, self._seen
        shortfall = self.best.shortfall(self._with_best_bound(self.last))
        self.next_check = done + sweeps_until(shortfall, before, done - sweep, self.config.check_every)
        self._seen = done, shortfall

    def _record(self, objective: float, primal: float, dual: float) -> None:
        """Append what this check saw."""
        proven = self.best.certificate
        self.history.append(
            Record(
                sweep=self.sweeps.done,
                primal_residual=primal,
                dual_residual=dual,
                penalty=self.sweeps.penalty,
                objective=objective,
                lower_bound=proven.lower_bound,
                upper_bound=proven.upper_bound,
                gap=proven.gap,
                cone_violation=proven.cone_violation,
                refactorisations=self.sweeps.refactorisations,
                bits=8 * self.sweeps.rows.dtype.itemsize,
            )
        )

    def balance(self, primal: float, dual: float, *, checked: bool) -> None:
        """Let the penalty follow the residuals, and after a check what the certificate lacks, unless it is fixed.

        A bound can lag far behind its residual, or be ahead of it, but where it does not move at all the residuals
        keep the penalty from running away.
        """
        if self.config.penalty is not None:
            return
        ratio = PRIMAL_EMPHASIS * primal / max(dual, 1e-300)
        outside, gap = self.errors() if checked else (0.0, 0.0)
        if outside > 0.0 and gap > 0.0:
            ratio = min(max(outside / gap, ratio / FREEDOM), ratio * FREEDOM)
        sweeps = self.sweeps
        sweeps.follow(balanced_penalty(sweeps.penalty, ratio, sweeps.lasso_weight))

    def errors(self) -> tuple[float, float]:
        """How far the last check was from its two tolerances: outside the cones, and in the gap."""
        proven, config = self._with_best_bound(self.last), self.config
        price = 2.0 * proven.relative_price  # half of the gap is its share
        outside = max(price / config.tolerance, proven.cone_violation / config.max_cone_violation)
        return outside, abs(proven.priced_gap) / config.tolerance

    def _with_best_bound(self, proven: Certificate) -> Certificate:
        """Give a point the best lower bound of all checks."""
        return replace(proven, lower_bound=self.best.certificate.lower_bound)

    def outcome(self, status: Status) -> Outcome:
        """Gather the result as it stands."""
        sweeps = self.sweeps
        return Outcome(
            u=self.best.point,
            status=status,
            certificate=self.best.certificate,
            history=tuple(self.history),
            sweeps=sweeps.done,
            refactorisations=sweeps.refactorisations,
            warm_start=WarmStart(sweeps.state, sweeps.penalty / sweeps.lasso_weight),
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
    halt, back_end = halt or Halt(config.max_seconds), back_end or back_end_for(problem, config)
    with problem.products.sweeping():
        run = _Solve(problem, config, Sweeps(problem, lasso_weight, config, back_end, warm_start))
        return run.outcome(_sweep_until_done(run, config, halt, progress))


def _sweep_until_done(run: _Solve, config: SolveConfig, halt: Halt, progress: Progress | None) -> Status:
    """Sweep, and look at the certificate and at the penalty when they are due, until a status ends it."""
    sweeps, next_balance, status = run.sweeps, FIRST_BALANCE, None
    while status is None:
        sweeps.sweep()
        end, done = halt.status(), sweeps.done
        is_due = done >= run.next_check or done == config.max_sweeps or end is not None
        if not is_due and done != next_balance:
            continue
        primal, dual = sweeps.residuals()
        is_check = is_due or done > FIRST_BALANCE
        if is_check:
            status = run.check(primal, dual) or end
            if progress:
                progress(done, config.max_sweeps, "sweeps")
        if status is None and done == next_balance:
            next_balance = balance_after(done)
            run.balance(primal, dual, checked=done > FIRST_BALANCE)
    return status


def back_end_for(problem: ConvexProblem, config: SolveConfig) -> BackEnd:
    """Return the u-update that suits the size of the problem, or the one that is configured."""
    return choose_back_end(problem, cone_scale_squared(problem), config.linear, config.max_memory_gib)
