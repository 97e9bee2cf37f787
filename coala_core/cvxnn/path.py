"""Phase I as the pipeline calls it: raw features in, heads with certificates out."""

from __future__ import annotations

import math
from pathlib import Path as FolderPath

import numpy as np

from coala_core.backend import Array, freed_memory, threads_for
from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import solve
from coala_core.cvxnn.continuation import Continuation
from coala_core.cvxnn.halt import Halt, Stop
from coala_core.cvxnn.network import head_of, network_objective, network_of
from coala_core.cvxnn.outcome import Outcome, Status, WarmStart
from coala_core.cvxnn.prepare import Prepared, check_warm_start, prepare
from coala_core.cvxnn.problem import column_norms
from coala_core.cvxnn.solution import Path, Solution
from coala_core.cvxnn.zero import zero_head_weight
from coala_core.progress import Progress, silent


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
    scratch: FolderPath | None = None,
) -> Solution:
    r"""Fit the convex two-layer head at one lasso weight.

    Solves eq. (4) of Feng & Pilanci (2026), with the factor 1/2 of Algorithm 2,

        minimise_{v,w}  1/2 ||sum_i D_i X (v_i - w_i) - y||^2 + beta sum_i (||v_i|| + ||w_i||)
        subject to      (2 D_i - I) X v_i >= 0,  (2 D_i - I) X w_i >= 0

    on X standardised with a constant 1 appended, and folds both into the head. With `config.rows` "pairwise" the
    loss is 1/2 sum over pairs of (score of chosen - score of rejected - 1)^2 instead; an offset common to all scores
    cancels in it, so the head's scores mean something relative to each other only. With `config.activation`
    "gated_relu" the program of `coala_core.cvxnn.gated` is solved instead, and the head keeps its gates.

    Parameters
    ----------
    features : (n, d), NumPy or CuPy
        Raw features, one row per response, finite in float32. A memory map, or what does not fit into memory,
        is read block by block (`config.storage`).
    labels : (n,)
        +1 for chosen, -1 for rejected; both must occur. With pairwise rows the first half is +1, the second -1, and
        row n/2 + i is the rejected response of row i.
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
    scratch : Path, optional
        Folder on the file system for what is kept on disk; by default where temporary files go.

    Returns
    -------
    Solution
        Running out of sweeps or time is a status, not an exception.

    Raises
    ------
    ValueError
        If features are not floating-point numbers, shapes disagree, a feature is not finite in float32, a label is
        not -1 or +1, one class is absent, paired rows are not in order, no weight is given, gates repeat a pattern,
        P distinct gates do not exist, or what is configured does not fit into memory.
    """
    halt = Halt(config.max_seconds, stop)
    weight = config.lasso_weight if lasso_weight is None else lasso_weight
    if weight is None or not (weight > 0 and math.isfinite(weight)):
        raise ValueError(
            f"`fit_head(lasso_weight=...)` must be a finite number above 0, got {weight}; "
            "set `solve.lasso_weight`, or use `fit_path`, which finds the weights."
        )
    with freed_memory(config.backend), threads_for(_product_size(features, config)):
        return _fit(features, labels, config, gates, weight, warm_start, progress, halt, scratch)


def _fit(
    features: Array,
    labels: Array,
    config: SolveConfig,
    gates: Array | None,
    weight: float,
    warm_start: WarmStart | None,
    progress: Progress | None,
    halt: Halt,
    scratch: FolderPath | None,
) -> Solution:
    """Prepare, solve at one weight, and let go of everything but the solution."""
    prepared = prepare(features, labels, config, gates, "fit_head", scratch)
    check_warm_start(warm_start, prepared.problem)
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
    scratch: FolderPath | None = None,
) -> Path:
    """Fit the head for falling lasso weights, each from where the two before lead.

    The weights are `config.path` times the smallest weight that gives the zero head, or `config.lasso_weight`
    alone if it is set. Gates, principal axes and every factorisation free of the penalty are shared.

    Parameters
    ----------
    features : (n, d), NumPy or CuPy
        Raw features, one row per response, finite in float32. A memory map, or what does not fit into memory,
        is read block by block (`config.storage`).
    labels : (n,)
        As `fit_head`.
    config : SolveConfig
    progress : callable, optional
        Called with (done, total, "weights").
    stop : callable, optional
        Asked after every sweep; once it is true, the path ends with the best head so far.
    scratch : Path, optional
        As `fit_head`.

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
    halt = Halt(config.max_seconds, stop)
    with freed_memory(config.backend), threads_for(_product_size(features, config)):
        return _follow(features, labels, config, progress or silent, halt, scratch)


def _follow(
    features: Array, labels: Array, config: SolveConfig, progress: Progress, halt: Halt, scratch: FolderPath | None
) -> Path:
    """Prepare, solve for one weight after the other, and let go of everything but the solutions."""
    prepared = prepare(features, labels, config, None, "fit_path", scratch)
    zero_weight = zero_head_weight(prepared.problem)
    weights = _path_weights(config, zero_weight)
    solutions: list[Solution] = []
    continuation = Continuation()
    for done, weight in enumerate(weights):
        if solutions and halt.status():
            break
        progress(done, len(weights), "weights")
        start = continuation.start(weight)
        outcome = solve(prepared.problem, weight, config, back_end=prepared.back_end, warm_start=start, halt=halt)
        if outcome.status is Status.NOT_FINITE:
            continuation.forget()
        else:
            continuation.add(weight, outcome.warm_start)
        solutions.append(_assemble(prepared, weight, outcome, keep_warm_start=False))
    progress(len(solutions), len(weights), "weights")
    return Path(zero_weight, tuple(solutions), tuple(weights[len(solutions) :]))


def _product_size(features: Array, config: SolveConfig) -> int:
    """Operations of one product of X in a sweep."""
    return 4 * int(np.prod(np.shape(features))) * config.gates


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


def _assemble(prepared: Prepared, weight: float, outcome: Outcome, *, keep_warm_start: bool) -> Solution:
    """Turn a point in the principal axes into a head on raw features."""
    problem, fold = prepared.problem, prepared.standardiser.fold
    inner, second = network_of(outcome.u)  # (d, m), (m,)
    first = problem.axes @ inner  # (k, m)
    alive = column_norms(outcome.u)[0] > 0.0  # (P,)
    is_gated = problem.halves == 1
    active = problem.patterns[:, alive] if is_gated else None
    gates = fold(prepared.directions[:, alive]) if is_gated else None
    proven = outcome.certificate
    return Solution(
        head=head_of(*fold(first), second, gates),
        status=outcome.status,
        lower_bound=proven.lower_bound,
        upper_bound=proven.upper_bound,
        gap=proven.gap,
        cone_violation=proven.cone_violation,
        lasso_weight=weight,
        history=outcome.history,
        sweeps=outcome.sweeps,
        refactorisations=outcome.refactorisations,
        network_objective=network_objective(
            problem.features, problem.labels, inner, second, weight, paired=problem.paired, active=active
        ),
        constant_columns=prepared.standardiser.constant_columns,
        warm_start=outcome.warm_start if keep_warm_start else None,
    )
