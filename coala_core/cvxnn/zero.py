r"""Where the path begins: the smallest lasso weight at which the zero head is optimal.

Zero is optimal when some mu >= 0 brings every ||+-X'D_i y + X'E_i mu|| down to beta. By Moreau, the smallest
such norm is the length of the projection of +-X'D_i y onto the cone {v : E_i X v >= 0}, so

    zero weight = max over i and both signs of || proj(+-X'D_i y) ||.

Without cones there is nothing to project on, and it is max_i ||X'D_i y||.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from coala_core.backend import Array, namespace_of, to_numpy
from coala_core.cvxnn.problem import ConvexProblem, column_norms

CONE_PENALTY = 3.0  # penalty of the cone rows, in units of d / trace(X'X)
SWEEPS = 40  # enough to rank the projections within a percent or two
RELAXATION = 1.6
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
        smallest such weight by rounding, or by 1e-6 of the multipliers, unless least squares gives up.
    """
    target = problem.apply_f_adjoint(problem.labels)  # (2, d, P)
    if not problem.cone_rows:
        return float(column_norms(target).max())
    bounds, multipliers = _bound_projections(problem, target)
    upper = to_numpy(bounds).copy()  # (2, P)
    computed: set[int] = set()
    while int(upper.argmax()) not in computed:
        longest = int(upper.argmax())
        half, gate = divmod(longest, upper.shape[1])
        pulls = to_numpy(problem.features * problem.signs[:, gate : gate + 1])  # E_i X, (n, d)
        active = to_numpy(multipliers[half, :, gate]) > 0.0
        length = _projection_length(pulls, to_numpy(target[half, :, gate]), active)
        upper[half, gate] = min(upper[half, gate], length)
        computed.add(longest)
    return float(upper.max())


def _bound_projections(problem: ConvexProblem, target: Array) -> tuple[Array, Array]:
    """Bound the length of every projection of target (2, d, P) from above; return (2, P) and mu (2, n, P)."""
    xp = namespace_of(target)
    penalty = CONE_PENALTY * len(problem.spectrum) / max(float(problem.spectrum.sum()), 1e-300)
    h = (1.0 + penalty * problem.spectrum)[:, None]  # (d, 1)
    s = nu = xp.zeros((2, *problem.patterns.shape))
    for _ in range(SWEEPS):
        v = (target + penalty * problem.apply_g_adjoint(s - nu)) / h  # (2, d, P)
        g_nu = RELAXATION * problem.apply_g(v) + (1.0 - RELAXATION) * s + nu
        s = g_nu.clip(min=0.0)
        nu = g_nu - s
    multipliers = -penalty * nu
    bounds = column_norms(target + problem.apply_g_adjoint(multipliers))
    return xp.minimum(bounds, column_norms(target)), multipliers


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
