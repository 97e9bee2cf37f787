"""Phase I as the pipeline calls it: raw features in, heads with certificates out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coala_core.backend import Array, asarray, free_memory, resolve_backend, to_numpy
from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import cone_scale_squared, solve
from coala_core.cvxnn.features import Standardiser, check_features, fit_standardiser
from coala_core.cvxnn.gates import check_gates, sample_gates
from coala_core.cvxnn.halt import Halt, Stop
from coala_core.cvxnn.linear import BackEnd, choose_back_end
from coala_core.cvxnn.network import Head, head_of, network_objective, network_of
from coala_core.cvxnn.outcome import Outcome, Record, Status, WarmStart
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.cvxnn.zero import zero_head_weight
from coala_core.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Solution:
    """A head and what is proven about it."""

    head: Head
    """Network on raw features."""
    status: Status
    """How the solve ended, with the remedy."""
    lower_bound: float
    """Certified: no point of the sampled program is better."""
    upper_bound: float
    """Convex objective at the point that became the head."""
    gap: float
    """(upper - lower) / max(1, |upper|); below zero only where the cones are violated."""
    cone_violation: float
    """Largest cone violation relative to the largest pre-activation."""
    lasso_weight: float
    """beta of eq. (4)."""
    history: tuple[Record, ...]
    """One record per check."""
    sweeps: int
    """ADMM sweeps done."""
    refactorisations: int
    """Factorisations of the linear system that depends on the penalty."""
    network_objective: float
    """Objective of eq. (2) at the head, in standardised features. It can be below the optimum; no upper bound."""
    warm_start: WarmStart | None
    """Start for a nearby weight on the same data and gates; empty in a path, and after a non-finite iterate."""


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions for falling lasso weights."""

    zero_weight: float
    """Smallest weight that gives the zero head, from above."""
    solutions: tuple[Solution, ...]
    """One per weight, in falling weight; at least one."""
    unsolved: tuple[float, ...] = ()
    """Weights that a time limit or an interruption left, falling."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Everything that does not depend on the lasso weight."""

    features: Array
    standardiser: Standardiser
    problem: ConvexProblem
    back_end: BackEnd


def fit_head(
    features: Array,
    labels: Array,
    config: SolveConfig,
    *,
    gates: Array | None = None,
    lasso_weight: float | None = None,
    warm_start: WarmStart | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Solution:
    r"""Fit the convex two-layer ReLU head at one lasso weight.

    Solves eq. (4) of Feng & Pilanci (2026), with the factor 1/2 of Algorithm 2,

        minimise_{v,w}  1/2 ||sum_i D_i X (v_i - w_i) - y||^2 + beta sum_i (||v_i|| + ||w_i||)
        subject to      (2 D_i - I) X v_i >= 0,  (2 D_i - I) X w_i >= 0

    on X standardised with a constant 1 appended, and folds both into the head.

    Parameters
    ----------
    features : (n, d), NumPy or CuPy
        Raw features, one row per response, finite in float32.
    labels : (n,)
        +1 for chosen, -1 for rejected; both must occur.
    config : SolveConfig
    gates : (d + 1, P), optional
        Gate directions on the standardised features, the last entry for the bias; sampled by default.
    lasso_weight : float, optional
        beta, above 0; `config.lasso_weight` by default.
    warm_start : WarmStart, optional
        `Solution.warm_start` of a nearby weight on the same data and gates.
    progress : callable, optional
        Called with (done, total, "sweeps").
    stop : callable, optional
        Asked after every sweep; once it is true, the best head so far is returned as `INTERRUPTED`.

    Returns
    -------
    Solution
        Running out of sweeps or time is a status, not an exception.

    Raises
    ------
    ValueError
        If shapes disagree, a feature is not finite, a label is not -1 or +1, one class is absent, no weight is
        given, or P distinct gates do not exist.
    """
    halt = Halt(config.max_seconds, stop)
    weight = config.lasso_weight if lasso_weight is None else lasso_weight
    if weight is None or not (weight > 0 and math.isfinite(weight)):
        raise ValueError(
            f"`fit_head(lasso_weight=...)` must be a finite number above 0, got {weight}; "
            "set `solve.lasso_weight`, or use `fit_path`, which finds the weights."
        )
    prepared = _prepare(features, labels, config, gates, "fit_head")
    _check_warm_start(warm_start, prepared.problem)
    outcome = solve(
        prepared.problem,
        weight,
        config,
        back_end=prepared.back_end,
        warm_start=warm_start,
        progress=progress,
        halt=halt,
    )
    return _assemble(prepared, weight, outcome, keep_warm_start=outcome.status is not Status.NOT_FINITE)


def fit_path(
    features: Array,
    labels: Array,
    config: SolveConfig,
    progress: Progress | None = None,
    *,
    stop: Stop | None = None,
) -> Path:
    """Fit the head for falling lasso weights, each from where the one before ended.

    The weights are `config.path` times the smallest weight that gives the zero head, or `config.lasso_weight`
    alone if it is set. Gates, principal axes and every factorisation free of the penalty are shared.

    Parameters
    ----------
    features : (n, d), NumPy or CuPy
        Raw features, one row per response, finite in float32.
    labels : (n,)
        +1 for chosen, -1 for rejected; both must occur.
    config : SolveConfig
    progress : callable, optional
        Called with (done, total, "weights").
    stop : callable, optional
        Asked after every sweep; once it is true, the path ends with the best head so far.

    Returns
    -------
    Path
        Solutions of all weights, or of the first ones if `config.max_seconds` or `stop` ends it early; the last
        of them may then be `OUT_OF_TIME` or `INTERRUPTED`.

    Raises
    ------
    ValueError
        As `fit_head`.
    """
    progress, halt = progress or silent, Halt(config.max_seconds, stop)
    prepared = _prepare(features, labels, config, None, "fit_path")
    zero_weight = zero_head_weight(prepared.problem)
    weights = _path_weights(config, zero_weight)
    solutions: list[Solution] = []
    warm_start = None
    for done, weight in enumerate(weights):
        if solutions and halt.status():
            break
        progress(done, len(weights), "weights")
        outcome = solve(prepared.problem, weight, config, back_end=prepared.back_end, warm_start=warm_start, halt=halt)
        warm_start = None if outcome.status is Status.NOT_FINITE else outcome.warm_start
        solutions.append(_assemble(prepared, weight, outcome, keep_warm_start=False))
    progress(len(solutions), len(weights), "weights")
    free_memory(resolve_backend(config.backend))
    return Path(zero_weight, tuple(solutions), tuple(weights[len(solutions) :]))


def _path_weights(config: SolveConfig, zero_weight: float) -> list[float]:
    """List the weights to solve for, falling."""
    if config.lasso_weight is not None:
        return [config.lasso_weight]
    if zero_weight <= 0.0:
        raise ValueError(
            "`fit_path(features=...)` must tell the two classes apart at all, got features for which every "
            "head is the zero head; check the embeddings."
        )
    return [share * zero_weight for share in config.path]


def _prepare(features: Array, labels: Array, config: SolveConfig, gates: Array | None, caller: str) -> _Prepared:
    """Check, standardise, choose gates, rotate; on the configured backend."""
    xp = resolve_backend(config.backend)
    features, labels = asarray(features, xp), asarray(labels, xp)
    check_features(features, labels, caller)
    standardiser = fit_standardiser(features)
    x = standardiser.apply(features)  # (n, d + 1)
    if gates is None:
        directions = asarray(sample_gates(x, labels, config), xp)
    else:
        directions = asarray(gates, xp, xp.float64)
        check_gates(x, directions, caller)
    problem = convex_problem(x, labels, directions)
    return _Prepared(x, standardiser, problem, choose_back_end(problem, cone_scale_squared(problem)))


def _check_warm_start(warm_start: WarmStart | None, problem: ConvexProblem) -> None:
    """Refuse a start from other data."""
    n, d, gates = problem.shape
    if warm_start is None:
        return
    shapes = [tuple(part.shape) for part in warm_start.state[:2]]
    if shapes != [(2, d, gates), (2, n, gates)]:
        raise ValueError(
            f"`fit_head(warm_start=...)` must come from the same data and gates, got shapes {shapes} for "
            f"{n} rows, {d} axes and {gates} gates; leave it out."
        )


def _assemble(prepared: _Prepared, weight: float, outcome: Outcome, *, keep_warm_start: bool) -> Solution:
    """Turn a point in the principal axes into a head on raw features."""
    first, second = network_of(outcome.u)  # (d, m), (m,)
    first = prepared.problem.axes @ first  # (k, m)
    decayed = network_objective(prepared.features, prepared.problem.labels, first, second, weight)
    proven = outcome.certificate
    weights, bias = prepared.standardiser.fold(first)
    return Solution(
        head=head_of(to_numpy(weights), to_numpy(bias), to_numpy(second)),
        status=outcome.status,
        lower_bound=proven.lower_bound,
        upper_bound=proven.upper_bound,
        gap=proven.gap,
        cone_violation=proven.cone_violation,
        lasso_weight=weight,
        history=outcome.history,
        sweeps=outcome.sweeps,
        refactorisations=outcome.refactorisations,
        network_objective=decayed,
        warm_start=outcome.warm_start if keep_warm_start else None,
    )
