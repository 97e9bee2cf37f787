"""What each back end of the u-update will hold, in bytes, known before anything is allocated."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import numpy as np

from coala_core.backend import available_memory, resolve_backend
from coala_core.config import SolveConfig
from coala_core.cvxnn.anderson import MEMORY
from coala_core.cvxnn.problem import ConvexProblem

Name = Literal["primal", "dual", "pcg"]
"""Names of the back ends in a configuration."""
GIB = 1024**3
STATES = MEMORY + 5
"""Copies of what a solve keeps per row: the state, where a sweep began and `MEMORY` + 1 ended, and two for a path."""
SHARE = 0.5  # of the available memory, where no limit is given: the sweeps need room as well


def needed_bytes(name: Name, problem: ConvexProblem) -> int:
    r"""Bytes that a back end holds at its peak, beside the problem itself.

    With n rows, m = n rows of F (n/2 if paired), d axes and P gates, in float64 where nothing else is said:

    - dual: the kernel and what it is multiplied by, 16 m^2 (24 m^2 if paired: a cross term), and 8 n d for a scaled
      copy of X (half of it if paired); the inverse that follows fits into the room that these leave.
    - primal: Gram matrix and inverse, 16 (dP)^2, or one of them and two copies of X's active rows.
    - pcg: 13 vectors of d P, a P x P matrix, and two blocks of rows.

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
    return 8 * (13 * d * gates + gates**2) + 2 * 8 * min(n, problem.block_rows()) * (d + gates)


def needs_disk(n: int, d: int, config: SolveConfig) -> bool:
    """Tell whether a solve of n rows of d raw features keeps what has n rows on disk.

    It does if `config.storage` says so, or leaves it open, the backend is NumPy and memory would not hold the raw
    features three times, as they are read, split and stacked, and what a solve makes of them (`solve_bytes`).
    """
    xp = resolve_backend(config.backend)
    if config.storage != "auto" or xp is not np:
        return config.storage == "disk"
    return 12 * n * d + solve_bytes(n, d, config) > memory_limit(config.max_memory_gib, xp)


def solve_bytes(n: int, d: int, config: SolveConfig) -> int:
    """Bytes that a solve holds in memory, beside the raw features and the back end.

    X prepared and in the principal axes, 16 n (d + 1), in float32 as well, 4 n (d + 1); patterns and signs in two
    precisions, 36 n P; and `STATES` copies of what is kept per row, 2 P numbers, in the end in float64.
    """
    return n * (20 * (d + 1) + config.gates * (36 + STATES * 16))


def gib(size: int) -> str:
    """Bytes as GiB for a message."""
    return f"{size / GIB:.3g}"


def memory_limit(max_memory_gib: float | None, xp: ModuleType) -> int:
    """Bytes that a back end may take: as configured, or half of what is available now."""
    return int(SHARE * available_memory(xp)) if max_memory_gib is None else int(max_memory_gib * GIB)
