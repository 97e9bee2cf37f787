"""The u-update of Algorithm 2: what every back end offers, and which one to take.

``system``  the equations       ``direct``  dense factorisations, `PrimalDirect` and `DualDirect`
``memory``  bytes of each       ``pcg``     conjugate gradients, `Pcg`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.memory import GIB, Name, memory_limit, needed_bytes
from coala_core.cvxnn.pcg import Pcg
from coala_core.cvxnn.problem import ConvexProblem

HORIZON = 150  # sweeps over which a factorisation must pay for itself: less than a solve takes as a rule
USUAL_STEPS = 3  # of conjugate gradients in a sweep, before any was seen
OVERHEAD = 4e6  # operations that the interpreter costs in a step, 0.1 ms
PATIENCE = 5  # solves with one penalty before their steps are judged


class BackEnd(Protocol):
    """A solver of the u-update for one problem and one cone scale."""

    def refactor(self, penalty: float) -> None:
        """Prepare for the penalty rho; the only part of the factorisation that depends on it."""

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right = p + tau^2 G'q (2, d, P)."""


class Switching:
    """Conjugate gradients, until a factorisation would pay for itself over the next `HORIZON` sweeps.

    How many steps a sweep takes depends on the penalty, which is not known before the solve.

    Parameters
    ----------
    pcg : Pcg
    direct : callable
        Builds the back end to switch to.
    worth : float
        Mean steps of a solve above which it is the cheaper one.
    """

    def __init__(self, pcg: Pcg, direct: Callable[[], BackEnd], worth: float) -> None:
        self.pcg, self.direct, self.worth = pcg, direct, worth
        self.current: BackEnd = pcg
        self.penalty, self.steps = 1.0, 0
        self.recent: list[int] = []

    def refactor(self, penalty: float) -> None:
        """Prepare for the penalty rho."""
        self.penalty, self.recent = penalty, []
        self.current.refactor(penalty)

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right (2, d, P)."""
        u = self.current.solve(right)
        if self.current is self.pcg:
            self.recent = [*self.recent[1 - PATIENCE :], self.pcg.steps]
            if len(self.recent) == PATIENCE and sum(self.recent) > PATIENCE * self.worth:
                self.current = self.direct()
                self.current.refactor(self.penalty)
        return u


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
        "auto" counts arithmetic: a factorisation at once where it is cheap, else conjugate gradients, which give way
        to it when their steps turn out to cost more.
    max_memory_gib : float, optional
        Limit for what the back end holds; by default half of the memory that is available now.

    Raises
    ------
    ValueError
        If the back end asked for, or any at all, does not fit. Nothing has been allocated by then.
    """
    limit = memory_limit(max_memory_gib, namespace_of(problem.features))
    if linear != "auto":
        _check_fits(linear, problem, limit)
        return _build(linear, problem, cone_scale_squared)
    directs: list[Name] = [name for name in ("dual", "primal") if needed_bytes(name, problem) <= limit]
    steps = {name: _steps_worth(name, problem) for name in directs}
    best = min(directs, key=lambda name: steps[name], default=None)
    if best is not None and steps[best] <= USUAL_STEPS:
        return _build(best, problem, cone_scale_squared)
    _check_fits("pcg", problem, limit)
    pcg = Pcg(problem, cone_scale_squared)
    if best is None:
        return pcg
    return Switching(pcg, lambda: _build(best, problem, cone_scale_squared), steps[best])


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
        f"set `solve.linear` to {leanest!r}, which needs {_gib(needed[leanest])} GiB"
        if needed[leanest] <= limit
        else "lower `solve.gates`, or raise `solve.max_memory_gib`"
    )
    n, d, gates = problem.shape
    raise ValueError(
        f"`choose_back_end(linear={name!r})` must fit into {_gib(limit)} GiB, got {n} rows, {d} axes and {gates} gates "
        f"that need {_gib(needed[name])} GiB; {remedy}."
    )


def _gib(size: int) -> str:
    """Bytes as GiB for a message."""
    return f"{size / GIB:.3g}"


def _steps_worth(name: Name, problem: ConvexProblem) -> float:
    """Conjugate gradient steps a sweep that cost as much as a direct back end, its set-up spread over `HORIZON`.

    Counted in float64 operations of a large matrix product. A skinny float32 product of X takes about as many as it
    has, an inversion in float32 0.4 of them, and reading a byte 4. What Python adds counts too. About three penalties
    of a solve lie apart.
    """
    n, d, gates = problem.shape
    m, product = len(problem.labels), 2.0 * n * d * gates
    if name == "dual":
        set_up = 2.0 * n * n * d + 3 * 0.4 * m**3
        sweep = 4.0 * product + 8.0 * m * m + 2.0 * OVERHEAD
    else:
        size = float(d * gates)
        set_up = 0.5 * m * size**2 + 4 * size**3 / 3.0
        sweep = 32.0 * size**2 + 0.5 * OVERHEAD
    return (set_up / HORIZON + sweep) / (2.0 * product + OVERHEAD)
