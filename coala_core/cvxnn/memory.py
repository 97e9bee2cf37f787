"""What each back end of the u-update will hold, in bytes, known before anything is allocated."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

from coala_core.backend import available_memory
from coala_core.cvxnn.problem import ConvexProblem

Name = Literal["primal", "dual", "pcg"]
"""Names of the back ends in a configuration."""
GIB = 1024**3
SHARE = 0.5  # of the available memory, where no limit is given: the sweeps need room as well


def needed_bytes(name: Name, problem: ConvexProblem) -> int:
    r"""Bytes that a back end holds at its peak, beside the problem itself.

    With n rows, m = n rows of F (n/2 if paired), d axes and P gates, in float64 where nothing else is said:

    - dual: the kernel and what it is multiplied by, 16 m^2 (24 m^2 if paired: a cross term), and 8 n d for a scaled
      copy of X (half of it if paired); the float32 inverse that follows fits into the room that these leave.
    - primal: Gram matrix and factor, 16 (dP)^2, or one of them and two copies of X's active rows.
    - pcg: X and the patterns in float32, 4 n (d + P), two products of n P, 16 n P, and 13 vectors of d P.

    Parameters
    ----------
    name : {"primal", "dual", "pcg"}
    problem : ConvexProblem
    """
    n, d, gates = problem.shape
    m = len(problem.labels)
    if name == "dual":
        return (24 if problem.paired else 16) * m**2 + 8 * m * d + 4 * n * gates
    if name == "primal":
        square = (d * gates) ** 2
        return max(16 * square, 8 * square + 16 * m * d) + 24 * n * gates
    return 4 * n * (d + gates) + 16 * n * gates + 104 * d * gates


def memory_limit(max_memory_gib: float | None, xp: ModuleType) -> int:
    """Bytes that a back end may take: as configured, or half of what is available now."""
    return int(SHARE * available_memory(xp)) if max_memory_gib is None else int(max_memory_gib * GIB)
