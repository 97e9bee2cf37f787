r"""A point that is outside its cones at a few rows, moved to where it is no further outside than is allowed.

For one column u_i and the rows R where e x'u_i < -limit, the move is

    argmin  delta'(X'X + eps I) delta   subject to   e x'(u_i + delta) = -limit  on R,

that is delta = K X_R'E_R (E_R X_R K X_R'E_R)^-1 (-limit - E_R X_R u_i) with K = (X'X + eps I)^-1, which is diagonal in
the principal axes. Of all moves it changes the pre-activations of the other rows least.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coala_core.backend import Array, namespace_of, to_numpy
from coala_core.cvxnn.problem import ConvexProblem, columns_of, halves_of

AIM = 0.9  # of the violation that is allowed, where the worst rows are put
MOST_ROWS = 2000  # that are moved: more are no matter of a few rows
DAMPING = 1e-3  # eps, in mean eigenvalues of X'X
REGULARISATION = 1e-10  # of the small system, relative to its trace: rows may repeat


class _Faults(NamedTuple):
    """Rows that are too far outside the cone of a column."""

    rows: Array
    """e x, (k, d)."""
    inside: Array
    """e x'u_i, (k,)."""
    columns: np.ndarray
    """i, (k,)."""


def moved_inside(problem: ConvexProblem, point: Array, most: float) -> Array | None:
    """Move the rows of G u that are too far below zero to `AIM` times where they may be, in one pass over the rows.

    Parameters
    ----------
    problem : ConvexProblem
    point : (halves, d, P)
    most : float
        Largest violation that is allowed, relative to the largest pre-activation, above 0.

    Returns
    -------
    (halves, d, P), or None
        Its zero columns are those of the point. Other rows may be outside now: it has to be measured. None where
        there is nothing to move, or more than `MOST_ROWS` rows.
    """
    columns = columns_of(point).copy()
    found = _faults(problem, columns, AIM * most)
    if found is None:
        return None
    limit, faults = found
    soft = 1.0 / (problem.spectrum + DAMPING * problem.spectrum.mean())  # (d,)
    for column in np.unique(faults.columns):
        own = faults.columns == column
        columns[:, column] += _move(faults.rows[own], -limit - faults.inside[own], soft)
    return halves_of(columns, problem.halves)


def _faults(problem: ConvexProblem, columns: Array, most: float) -> tuple[float, _Faults] | None:
    """Gather the rows below -limit, which is `most` times the largest pre-activation, and tell the limit."""
    xp, largest, kept = namespace_of(columns), 0.0, []
    for block in problem.blocks():
        for rows, _ in block.slabs:
            x, signs = problem.slab(rows, np.float64)
            inside = signs * problem.products.times(x, columns)
            largest = max(largest, float(xp.abs(inside).max()))
            row, column = xp.nonzero(inside < -most * largest)  # too many as yet: the largest is to come
            kept.append((signs[row, column][:, None] * x[row], inside[row, column], column))
            if sum(len(part[1]) for part in kept) > MOST_ROWS:
                return None
    together = [xp.concatenate(parts) for parts in zip(*kept, strict=True)]
    below = together[1] < -most * largest
    if not bool(below.any()):
        return None
    x, inside, column = (part[below] for part in together)
    return most * largest, _Faults(x, inside, to_numpy(column))


def _move(rows: Array, shift: Array, soft: Array) -> Array:
    """Return delta, (d,), with rows delta = shift."""
    xp = namespace_of(rows)
    spread = rows * soft
    system = spread @ rows.T
    system += REGULARISATION * xp.trace(system) * xp.eye(len(system))
    delta: Array = spread.T @ xp.linalg.solve(system, shift)
    return delta
