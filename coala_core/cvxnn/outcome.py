"""What a solve carries from sweep to sweep and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from coala_core.backend import Array
from coala_core.cvxnn.certificate import Certificate


class Status(StrEnum):
    """How a solve ended, with the remedy."""

    CONVERGED = "The certified gap and the cone violation are within their tolerances."
    OUT_OF_SWEEPS = "The sweep budget is spent; raise `solve.max_sweeps` or `solve.tolerance`."
    OUT_OF_TIME = "The time limit is spent; raise `solve.max_seconds` or `solve.tolerance`."
    INTERRUPTED = "The solve was interrupted and the best head so far is returned; run it again to finish."
    NOT_FINITE = "A non-finite iterate appeared and the best head before is returned; check the scale of the features."


class State(NamedTuple):
    """Iterate of Algorithm 2: v, lambda, s and nu follow from the two sums by proximal maps."""

    u: Array
    """Point of the last u-update, (halves, d, P) float64."""
    v_lam: Array
    """v + lambda, the group-sparse copy of u and its scaled dual, (halves, d, P) float64."""
    s_nu: Array
    """s + nu, the non-negative copy of G u and its scaled dual, row by row, (n, halves P); no rows without cones."""
    fit: Array
    """F u, (m,)."""


@dataclass(frozen=True, eq=False)
class WarmStart:
    """Where to begin: an iterate and the penalty it was scaled with, per unit of lasso weight."""

    state: State
    """Iterate; dual variables shrink with the weight, so scaled ones carry over as they are."""
    penalty_ratio: float
    """rho / beta."""


@dataclass(frozen=True)
class Record:
    """What one check saw."""

    sweep: int
    """Sweeps done."""
    primal_residual: float
    """||(u - v, tau (G u - s))||, v and s of the sweep before, relative to ||(v, tau s)||."""
    dual_residual: float
    """||(v, s) change seen through the adjoint|| relative to ||lam + tau^2 G'nu||."""
    penalty: float
    """rho."""
    objective: float
    """Convex objective at v."""
    lower_bound: float
    """Best lower bound so far."""
    upper_bound: float
    """Upper bound at the point that would be returned."""
    gap: float
    """Relative gap of the two."""
    cone_violation: float
    """Relative cone violation of that point."""
    refactorisations: int
    """Factorisations of b's system so far."""
    bits: int
    """Precision of the last sweep's products, 32 or 64."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A point of the convex program with what is proven about it."""

    u: Array
    """Point (2, d, P) in the principal axes, group-sparse."""
    status: Status
    """How the solve ended."""
    certificate: Certificate
    """Bounds and cone violation of `u`."""
    history: tuple[Record, ...]
    """One record per check."""
    sweeps: int
    """Sweeps done."""
    refactorisations: int
    """Factorisations of b's system."""
    warm_start: WarmStart
    """Start for a nearby weight."""
