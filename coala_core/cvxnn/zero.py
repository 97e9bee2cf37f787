r"""Where the path begins: the smallest lasso weight at which the zero head is optimal.

Zero is optimal when some mu >= 0 brings every ||+-X'D_i y + X'E_i mu|| down to beta. By Moreau, the smallest
such norm is the length of the projection of +-X'D_i y onto the cone {v : E_i X v >= 0}, so

    zero weight = max over i and both signs of || proj(+-X'D_i y) ||.

Without cones there is nothing to project on, and it is max_i ||X'D_i y||.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from coala_core.backend import Array, namespace_of, to_numpy
from coala_core.cvxnn.problem import ConvexProblem, column_norms
from coala_core.cvxnn.rows import RowPass
from coala_core.cvxnn.sweeps import first_precision

CONE_PENALTY = 3.0  # penalty of the cone rows, in units of d / trace(X'X)
SWEEPS = 40  # enough to rank the projections within a percent or two
RELAXATION = 1.6
MOST_ROWS = 20_000  # up to which least squares sharpens the bound
ROUNDS = 50  # of adding rows to the working set of one projection
OUTSIDE = 1e-6  # largest relative cone violation of an exact projection


def zero_head_weight(problem: ConvexProblem) -> float:
    """Return the smallest lasso weight that gives the zero head, from above.

    A few ADMM sweeps bound all 2 P projections at once. Then the one with the largest bound is computed by
    non-negative least squares, until the largest bound belongs to a computed one.

    Parameters
    ----------
    problem : ConvexProblem

    Returns
    -------
    float
        A weight at and above which the zero head is optimal, proven by multipliers mu >= 0. It exceeds the
        smallest such weight by rounding, or by 1e-6 of the multipliers, unless least squares gives up; beyond
        `MOST_ROWS` rows, for which least squares would take longer than the path, by a percent or two.
    """
    target = problem.apply_f_adjoint(problem.labels)  # (2, d, P)
    if not problem.cone_rows:
        return float(column_norms(target).max())
    bounds, multipliers = _bound_projections(problem, target)
    upper = to_numpy(bounds).copy()  # (2, P)
    if problem.cone_rows > MOST_ROWS:
        return float(upper.max())
    computed: set[int] = set()
    while int(upper.argmax()) not in computed:
        longest = int(upper.argmax())
        half, gate = divmod(longest, upper.shape[1])
        x, signs = problem.slab(slice(None), np.float64)
        pulls = to_numpy(x * signs[:, longest : longest + 1])  # E_i X, (n, d)
        active = to_numpy(multipliers[:, longest]) > 0.0
        length = _projection_length(pulls, to_numpy(target[half, :, gate]), active)
        upper[half, gate] = min(upper[half, gate], length)
        computed.add(longest)
    return float(upper.max())


def _bound_projections(problem: ConvexProblem, target: Array) -> tuple[Array, Array]:
    """Bound the length of every projection of target (2, d, P) from above; return (2, P) and mu (n, 2 P)."""
    xp, dtype = namespace_of(target), first_precision(problem)
    penalty = CONE_PENALTY * len(problem.spectrum) / max(float(problem.spectrum.sum()), 1e-300)
    h = (1.0 + penalty * problem.spectrum)[:, None]  # (d, 1)
    rows = RowPass(problem, penalty, RELAXATION, dtype)
    z = problem.allocate((len(problem.features), 2 * target.shape[2]), dtype)
    z[...], fit = 0.0, problem.labels.astype(dtype)
    pull = xp.zeros_like(target)
    for _ in range(SWEEPS):
        v = (target + pull) / h  # (2, d, P)
        pull, _ = rows.advance(v, z, fit, math.inf)  # the loss has no weight
    xp.minimum(z, 0.0, out=z)
    z *= dtype(-penalty)
    force = target + RowPass(problem, penalty, RELAXATION, np.float64).cone_adjoint(z)
    return xp.minimum(column_norms(force), column_norms(target)), z


def _projection_length(pulls: NDArray[np.float64], target: NDArray[np.float64], active: NDArray[np.bool_]) -> float:
    """Length of the projection of target (d,) onto {v : pulls v >= 0}, from above; rows join as they are violated."""
    residue = target
    for _ in range(ROUNDS):
        if active.any():  # nnls crashes on an empty matrix
            try:
                multipliers, _ = nnls(pulls[active].T, -target)
            except RuntimeError:  # out of iterations: the last bound stands
                break
            residue = target + pulls[active].T @ multipliers  # (d,)
        rows = pulls @ residue  # (n,)
        violated = (rows < -OUTSIDE * np.abs(rows).max()) & ~active
        # A projection of length 0 leaves only rounding to look at.
        if not violated.any() or np.linalg.norm(residue) <= 1e-9 * np.linalg.norm(target):
            break
        active = active | violated
    return float(np.linalg.norm(residue))
