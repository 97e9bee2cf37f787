"""The u-update of Algorithm 2: what every back end offers, and which one to take.

``system``  the equations       ``direct``  dense inverses, `PrimalDirect` and `DualDirect`
``memory``  bytes of each       ``pcg``     a preconditioner, `Pcg`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.memory import Name, gib, memory_limit, needed_bytes
from coala_core.cvxnn.pcg import ACCURACY, Pcg
from coala_core.cvxnn.problem import ConvexProblem

POOR = 0.015  # curvature along the steps, relative to the preconditioner's, below which one step is not enough
PATIENCE = 2  # windows of sweeps in a row that must be poor: a new penalty makes one
CHEAP = 0.75  # cost that a dense system adds to the products of a sweep, up to which it is taken at once
HORIZON = 300  # sweeps over which a factorisation is spread
PENALTIES = 4  # that a solve factorises for, as a rule
MOST_WORTH = 30.0  # beyond it several steps of conjugate gradients are cheaper


class BackEnd(Protocol):
    """M^-1 for the b-system of one problem and one cone scale."""

    def refactor(self, penalty: float) -> None:
        """Prepare for the penalty rho; the only part of the factorisation that depends on it."""

    def apply(self, residual: Array) -> Array:
        """Return a step (d, P) that takes a residual (d, P) of the b-system away, wholly or in part."""

    def observe(self, fitted: Array) -> None:
        """Be told ||F~ step||^2 of the last step that was returned."""


class Switching:
    """One step of the preconditioner a sweep, until its quality turns out to be poor; then another back end.

    Parameters
    ----------
    pcg : Pcg
    other : callable
        Builds the back end to switch to.
    """

    def __init__(self, pcg: Pcg, other: Callable[[], BackEnd]) -> None:
        self.pcg, self.other = pcg, other
        self.current: BackEnd = pcg
        self.penalty, self.poor = 1.0, 0

    def refactor(self, penalty: float) -> None:
        """Prepare for the penalty rho."""
        self.penalty = penalty
        self.current.refactor(penalty)

    def apply(self, residual: Array) -> Array:
        """Return a step (d, P) for a residual (d, P)."""
        return self.current.apply(residual)

    def observe(self, fitted: Array) -> None:
        """Switch where the preconditioner has been poor for long enough."""
        self.current.observe(fitted)
        if self.current is not self.pcg or not self.pcg.is_full:
            return
        self.poor = self.poor + 1 if self.pcg.quality() < POOR else 0
        if self.poor == PATIENCE:
            with self.pcg.problem.products.factorising():
                self.current = self.other()
                self.current.refactor(self.penalty)


def choose_back_end(
    problem: ConvexProblem,
    cone_scale_squared: float,
    linear: Literal["auto"] | Name = "auto",
    max_memory_gib: float | None = None,
) -> BackEnd:
    """Return the back end that was asked for, or the fastest one that fits into memory.

    Parameters
    ----------
    problem : ConvexProblem
    cone_scale_squared : float
        tau^2.
    linear : {"auto", "primal", "dual", "pcg"}
        "auto" takes a dense system at once where it is cheap beside the products of a sweep, else one step of the
        preconditioner, which gives way to the cheaper dense system that fits, or to several steps, when it turns out
        to be poor.
    max_memory_gib : float, optional
        Limit for what the back end holds; by default half of the memory that is available now.

    Raises
    ------
    ValueError
        If the back end asked for, or any at all, does not fit. Nothing has been allocated by then.
    """
    limit = memory_limit(max_memory_gib, namespace_of(problem.spectrum))
    if linear != "auto":
        _check_fits(linear, problem, limit)
        return _build(linear, problem, cone_scale_squared)
    directs: list[Name] = [name for name in ("dual", "primal") if needed_bytes(name, problem) <= limit]
    costs = {name: relative_cost(name, problem) for name in directs}
    best = min(directs, key=lambda name: costs[name], default=None)
    if best is not None and costs[best] <= CHEAP:
        return _build(best, problem, cone_scale_squared)
    _check_fits("pcg", problem, limit)
    pcg = Pcg(problem, cone_scale_squared)
    if best is None or costs[best] > MOST_WORTH:
        return Switching(pcg, lambda: Pcg(problem, cone_scale_squared, ACCURACY))
    return Switching(pcg, lambda: _build(best, problem, cone_scale_squared))


def _build(name: Name, problem: ConvexProblem, cone_scale_squared: float) -> BackEnd:
    """Build a back end by name."""
    kinds: dict[Name, type[PrimalDirect] | type[DualDirect] | type[Pcg]]
    kinds = {"primal": PrimalDirect, "dual": DualDirect, "pcg": Pcg}
    return kinds[name](problem, cone_scale_squared)


def _check_fits(name: Name, problem: ConvexProblem, limit: int) -> None:
    """Refuse a back end that needs more than `limit` bytes."""
    needed = {other: needed_bytes(other, problem) for other in ("primal", "dual", "pcg")}
    if needed[name] <= limit:
        return
    leanest = min(needed, key=lambda other: needed[other])
    remedy = (
        f"set `solve.linear` to {leanest!r}, which needs {gib(needed[leanest])} GiB"
        if needed[leanest] <= limit
        else "lower `solve.gates`, or raise `solve.max_memory_gib`"
    )
    n, d, gates = problem.shape
    raise ValueError(
        f"`choose_back_end(linear={name!r})` must fit into {gib(limit)} GiB, got {n} rows, {d} axes and {gates} gates "
        f"that need {gib(needed[name])} GiB; {remedy}."
    )


def relative_cost(name: Name, problem: ConvexProblem) -> float:
    """Cost that a direct back end adds to a solve, relative to that of the sweeps' own two products.

    Counted in float64 operations of a large matrix product, of which a skinny product of X takes two for each of its
    own, an inversion in float32 0.4, and reading a byte one fifth. The set-up is spread over `HORIZON` sweeps.
    """
    n, d, gates = problem.shape
    m = len(problem.labels)
    products = 2.0 * 4.0 * problem.halves * n * d * gates
    if name == "dual":
        set_up = 2.0 * m * m * d + PENALTIES * 0.8 * m**3
        sweep = 0.5 * products + 0.2 * 4.0 * m * m
    else:
        size = float(d * gates)
        set_up = 0.5 * m * size**2 + PENALTIES * 0.8 * size**3
        sweep = 0.2 * 4.0 * size**2
    return (set_up / HORIZON + sweep) / products
