"""Raw features in, the sampled convex program out: everything that does not depend on the lasso weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from coala_core.backend import Array, asarray, available_memory, namespace_of, resolve_backend
from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import back_end_for
from coala_core.cvxnn.features import Standardiser, check_features, check_pairs, check_types, fit_standardiser
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.gates import ArrayRows, Rows, check_gates, sample_gates
from coala_core.cvxnn.linear import BackEnd
from coala_core.cvxnn.memory import gib, needs_disk, solve_bytes
from coala_core.cvxnn.on_disk import problem_on_disk, standardised_rows
from coala_core.cvxnn.outcome import WarmStart
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.scratch import Scratch


@dataclass(frozen=True, eq=False)
class Prepared:
    """A program with what leads back from it to raw features."""

    standardiser: Standardiser
    """From raw features to prepared ones."""
    directions: Array
    """Gate directions on prepared features, (k, P)."""
    problem: ConvexProblem
    """In the principal axes of the prepared features."""
    back_end: BackEnd
    """Shared by all weights."""


def prepare(
    features: Array,
    labels: Array,
    config: SolveConfig,
    gates: Array | None,
    caller: str,
    scratch: Path | None = None,
) -> Prepared:
    """Check, standardise, choose gates, rotate; on the configured backend, in memory or on disk.

    Raises
    ------
    ValueError
        On behalf of the public function `caller`, as it says.
    """
    xp = resolve_backend(config.backend)
    check_types(features, labels, gates, caller)  # before they reach a device, which takes no objects
    on_disk = goes_to_disk(features, config, xp, caller)
    check_fits_device(features, config, xp, caller)
    features = features if on_disk else asarray(features, xp)
    labels = asarray(labels, xp)
    check_features(features, labels, caller)
    if config.rows == "pairwise":
        check_pairs(labels, caller)
    targets = xp.ones(len(features) // 2) if config.rows == "pairwise" else labels
    arrange = _arrange_on_disk if on_disk else _arrange_in_memory
    standardiser, rows, build = arrange(features, config, scratch)
    if gates is None:
        directions = asarray(sample_gates(rows, labels, config), xp)
    else:
        directions = asarray(gates, xp, xp.float64)
        check_gates(rows, directions, caller)
    problem = build(targets, directions)
    return Prepared(standardiser, directions, problem, back_end_for(problem, config))


def goes_to_disk(features: Array, config: SolveConfig, xp: ModuleType, caller: str) -> bool:
    """Tell whether a solve keeps what has n rows on disk.

    Raises
    ------
    ValueError
        If it must but cannot: a GPU, or a dense system in rows or in features, works on what is in memory.
    """
    mapped = config.storage == "auto" and isinstance(features, np.memmap) and xp is np
    shape = np.shape(features)
    wanted = mapped or (len(shape) == 2 and needs_disk(shape[0], shape[1], config))
    if wanted and (xp is not np or config.linear in ("primal", "dual")):
        given = "CuPy" if xp is not np else f"`solve.linear` {config.linear!r}"
        raise ValueError(
            f"`{caller}(features=...)` must fit into memory for {given}, got rows that are kept on disk; set "
            "`solve.backend` to numpy and `solve.linear` to auto or pcg, or `solve.storage` to memory."
        )
    return wanted


def check_fits_device(features: Array, config: SolveConfig, xp: ModuleType, caller: str) -> None:
    """Refuse what a device has no room for, before anything is copied there; the host has its disk.

    Raises
    ------
    ValueError
        If rows of features (n, d) and what a solve makes of them do not fit; back ends are chosen by what is left.
    """
    shape = np.shape(features)
    if xp is np or len(shape) != 2 or 0 in shape:  # shapes are refused with the other contents
        return
    n, d = shape
    raw = 0 if namespace_of(features) is xp else np.asarray(features).nbytes
    needed, free = raw + solve_bytes(n, d, config), available_memory(xp)
    if needed > free:
        raise ValueError(
            f"`{caller}(features=...)` must fit into the {gib(free)} GiB that are free on the device, got {n} "
            f"rows of {d} features that need {gib(needed)} GiB with {config.gates} gates; set `solve.backend` to "
            "numpy, which keeps rows on disk where memory is short."
        )


Build = Callable[[Array, Array], ConvexProblem]


def _arrange_in_memory(features: Array, config: SolveConfig, scratch: Path | None) -> tuple[Standardiser, Rows, Build]:
    """Prepare an array, and say how to make the program of it."""
    standardiser = fit_standardiser(features)
    x = standardiser.apply(features)  # (n, d + 1)

    def build(targets: Array, directions: Array) -> ConvexProblem:
        return convex_problem(x, targets, directions, paired=config.rows == "pairwise", kind=_kind(config))

    return standardiser, ArrayRows(x), build


def _arrange_on_disk(features: Array, config: SolveConfig, scratch: Path | None) -> tuple[Standardiser, Rows, Build]:
    """Prepare rows that are read block by block, and say how to make the program of them."""
    rows = standardised_rows(features)

    def build(targets: Array, directions: Array) -> ConvexProblem:
        paired = config.rows == "pairwise"
        return problem_on_disk(rows, targets, directions, Scratch(scratch), paired=paired, kind=_kind(config))

    return rows.standardiser, rows, build


def _kind(config: SolveConfig) -> type[ConvexProblem]:
    return GatedProblem if config.activation == "gated_relu" else ConvexProblem


def check_warm_start(warm_start: WarmStart | None, problem: ConvexProblem) -> None:
    """Refuse a start from other data.

    Raises
    ------
    ValueError
        If its arrays have other shapes than the problem's.
    """
    n, d, gates = problem.shape
    if warm_start is None:
        return
    shapes = [tuple(part.shape) for part in (warm_start.state.u, warm_start.state.s_nu)]
    if shapes != [(problem.halves, d, gates), (problem.cone_rows, problem.halves * gates)]:
        raise ValueError(
            f"`fit_head(warm_start=...)` must come from the same data and gates, got shapes {shapes} for "
            f"{n} rows, {d} axes, {gates} gates and {problem.halves} vectors a gate; leave it out."
        )
