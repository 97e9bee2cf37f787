"""What Phase I returns: a head with its proof, and a path of them."""

from __future__ import annotations

from dataclasses import dataclass

from coala_core.cvxnn.network import Head
from coala_core.cvxnn.outcome import Record, Status, WarmStart


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
    constant_columns: int
    """Columns of the features that do not vary; they carry nothing and have weight 0 in the head."""
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
