r"""What a sweep does to every vector of the small side, entry by entry: v, the right side, u and the multipliers.

Each function is a line or two for NumPy, whose arrays here are small, and one kernel for CuPy, where every array
operation would be a launch of its own and launches, not arithmetic, are what these updates cost.
"""

from __future__ import annotations

import math

import numpy as np

from coala_core.backend import Array, device_kernel, namespace_of
from coala_core.cvxnn.problem import column_norms, column_squares

SQRT2 = math.sqrt(2.0)

# A factor, so that what is not a number stays none.
_SHRINK = (
    "T z, T square, T threshold",
    "T v",
    "T norm = sqrt(square); v = z * (norm > threshold ? (T)1 - threshold / norm : (T)0);",
)
_RIGHT_SIDE = (
    "T metric, T u, T v, T v_lam, T pull",
    "T residual",
    "residual = metric * u - ((T)2 * v - v_lam) - pull;",
)
_RELAX = (
    "T v_lam, T u, T v, T relaxation",
    "T moved",
    "moved = v_lam + relaxation * (u - v);",
)
_SPLIT = (
    "T first, T second, T metric, T root",
    "T sum_step, T difference",
    "sum_step = (first + second) / root / metric; difference = (first - second) / root;",
)
_JOIN = (
    "T first, T second, T sum_step, T difference_step, T root",
    "T moved_first, T moved_second",
    "moved_first = first - (sum_step + difference_step) / root;"
    "moved_second = second - (sum_step - difference_step) / root;",
)
_STEP = (
    "T rotated, T metric, T coupling, T last, T scale, T quotient, T strength, T most",
    "T step",
    "T root = sqrt(min(max(quotient, (T)0), (T)1)); T share = min(((T)1 - root) / ((T)1 + root), most);"
    "step = rotated / (metric + strength * scale * coupling) + share * last;",
)


def shrink_columns(z: Array, threshold: float) -> Array:
    """Proximal map of threshold * ||.||_{2,1}: shorten every column of z (halves, d, P), drop the short ones."""
    xp = namespace_of(z)
    if xp is not np:
        shrunk: Array = device_kernel("coala_shrink", *_SHRINK)(
            z, column_squares(z)[:, None, :], z.dtype.type(threshold)
        )
        return shrunk
    norms = column_norms(z)  # (halves, P)
    factor = np.where(norms > threshold, 1.0 - threshold / np.maximum(norms, threshold), 0.0)
    shrunk = z * factor[:, None, :]
    return shrunk


def small_residual(metric: Array, u: Array, v: Array, v_lam: Array, pull: Array) -> Array:
    """Gradient of what a u-update minimises, up to the factor rho, at the last u.

    Parameters
    ----------
    metric : (d, 1) or (d, P)
        Diagonal of H.
    u, v, v_lam : (halves, d, P)
        v_lam is v + lambda, so that 2 v - v_lam is p of the u-update.
    pull : (halves, d, P)
        tau^2 G'(s - nu) + F'(y - F u) / rho.

    Returns
    -------
    (halves, d, P)
        H u - (v - lambda) - pull.
    """
    if namespace_of(u) is not np:
        residual: Array = device_kernel("coala_small_residual", *_RIGHT_SIDE)(metric, u, v, v_lam, pull)
        return residual
    residual = metric * u - (2.0 * v - v_lam) - pull
    return residual


def relax(v_lam: Array, u: Array, v: Array, relaxation: float) -> None:
    """Advance v + lambda, in place, to relaxation u + (1 - relaxation) v + lambda; all (halves, d, P)."""
    if namespace_of(u) is not np:
        device_kernel("coala_relax", *_RELAX)(v_lam, u, v, u.dtype.type(relaxation), v_lam)
        return
    v_lam += relaxation * (u - v)


def split_residual(residual: Array, metric: Array) -> tuple[Array, Array]:
    """Take a residual (2, d, P) apart into H^-1 of its part along (v + w)/sqrt2, and its part along (v - w)/sqrt2."""
    first, second = residual
    if namespace_of(residual) is not np:
        parts: tuple[Array, Array] = device_kernel("coala_split", *_SPLIT)(
            first, second, metric, residual.dtype.type(SQRT2)
        )
        return parts
    return (first + second) / SQRT2 / metric, (first - second) / SQRT2


def take_step(u: Array, sum_step: Array, difference_step: Array) -> None:
    """Subtract from u (2, d, P), in place, steps (d, P) along (v + w)/sqrt2 and (v - w)/sqrt2."""
    first, second = u
    if namespace_of(u) is not np:
        # The same objects go in and come out: CuPy would copy other views of this memory first.
        kernel = device_kernel("coala_join", *_JOIN)
        kernel(first, second, sum_step, difference_step, u.dtype.type(SQRT2), first, second)
        return
    u -= np.stack([sum_step + difference_step, sum_step - difference_step]) / SQRT2


def preconditioned_step(
    rotated: Array,
    metric: Array,
    coupling: Array,
    last: Array,
    scale: Array | float,
    quotient: Array | float,
    strength: float,
    most: float,
) -> Array:
    """Compute M^-1 rotated plus a share of the last step, in the eigenvectors of Q, where M is diagonal.

    Parameters
    ----------
    rotated, last : (d, P)
        A residual of the b-system, and the last step.
    metric : (d, P)
        Diagonal of I (x) H.
    coupling : (d, P)
        Diagonal of Q (x) Lambda.
    scale, quotient : ()
        c, and mu; they stay where the other arrays are.
    strength : float
        2 / rho.
    most : float
        Largest share.

    Returns
    -------
    (d, P)
        With the share (1 - mu^1/2) / (1 + mu^1/2), for mu in [0, 1].
    """
    if namespace_of(rotated) is not np:
        real = rotated.dtype.type
        kernel = device_kernel("coala_preconditioned_step", *_STEP)
        step: Array = kernel(rotated, metric, coupling, last, scale, quotient, real(strength), real(most))
        return step
    root = math.sqrt(min(max(float(quotient), 0.0), 1.0))
    share = min((1.0 - root) / (1.0 + root), most)
    step = rotated / (metric + strength * scale * coupling) + share * last
    return step
