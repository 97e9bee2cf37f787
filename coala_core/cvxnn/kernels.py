r"""What a sweep does to every row between its two products with X, entry by entry.

With z = s + nu, so that s = max(z, 0), nu = min(z, 0) and s - nu = |z|, and E the signs of the gates:

    z <- z + alpha (E X u - max(z, 0))          the cone update of Algorithm 2, relaxed by alpha
    t  = E (tau^2 |z| + k) + k,  k = r c / rho  what X' takes back: tau^2 G'(s - nu) + F'r / rho

since D = (I + E) / 2; c is 1/2 for the columns of v and -1/2 for those of w. The product comes as alpha X u, and
z - alpha max(z, 0) is min(z, (1 - alpha) z). NumPy works in place on buffers; CuPy runs one kernel for each.
"""

from __future__ import annotations

import numpy as np

from coala_core.backend import Array, device_kernel, namespace_of

_MOVE = (
    "T product, T sign, T z, T relaxation",
    "T signed_product, T moved",
    "signed_product = sign * product; moved = min(z, ((T)1 - relaxation) * z) + signed_product;",
)
_TAKE_BACK = (
    "T z, T sign, T residual, T share, T scale",
    "T taken",
    "T k = residual * share; taken = sign * (scale * abs(z) + k) + k;",
)


def move(product: Array, signs: Array, z: Array | None, relaxation: float, work: Array) -> None:
    """Turn alpha X u into alpha G u and advance z, both in place; z is None where there are no cones.

    Parameters
    ----------
    product : (k, c)
        alpha X u at k rows; afterwards alpha E X u.
    signs : (k, c)
    z : (k, c), optional
    relaxation : float
        alpha.
    work : (k, c)
        Buffer.
    """
    if z is not None and namespace_of(product) is not np:
        device_kernel("coala_move", *_MOVE)(product, signs, z, product.dtype.type(relaxation), product, z)
        return
    product *= signs
    if z is not None:
        np.multiply(z, product.dtype.type(1.0 - relaxation), out=work)
        np.minimum(z, work, out=z)
        z += product


def take_back(
    z: Array | None, signs: Array, residual: Array, shares: Array, scale: float, out: Array, work: Array
) -> Array:
    """Compute t, what X' takes back to the small side.

    Parameters
    ----------
    z : (k, c), optional
    signs : (k, c)
    residual : (k,)
        r, with the sign that its rows have in F.
    shares : (c,)
        c / rho.
    scale : float
        tau^2.
    out, work : (k, c)
        Buffers.

    Returns
    -------
    (k, c)
        `out`.
    """
    if z is not None and namespace_of(out) is not np:
        kernel = device_kernel("coala_take_back", *_TAKE_BACK)
        kernel(z, signs, residual[:, None], shares, out.dtype.type(scale), out)
        return out
    xp = namespace_of(out)
    if xp is np:
        np.einsum("n,c->nc", residual, shares, out=work)  # faster than a product of broadcast arrays
    else:
        xp.multiply(residual[:, None], shares, out=work)
    if z is None:
        xp.multiply(signs, work, out=out)
    else:
        xp.absolute(z, out=out)
        out *= out.dtype.type(scale)
        out += work
        out *= signs
    out += work
    return out
