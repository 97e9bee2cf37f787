r"""The linear system behind the u-update of Algorithm 2, in coordinates that take it apart.

    u = argmin  1/2 ||F u - y||^2 + rho/2 ||u - p||^2 + rho tau^2 / 2 ||G u - q||^2

E_i^2 = I gives G'G = I (x) X'X, and F sees only v - w, so with a = (v + w)/sqrt2, b = (v - w)/sqrt2,
H = I + tau^2 X'X (diagonal in the principal axes) and F~ = Delta [D_1 X ... D_P X]

    H a_i = r_a                                                      no coupling between gates
    (I_P (x) H + (2/rho) F~'F~) b = r_b + (sqrt2/rho) F~'y           the b-system

where (r_a, r_b) is right = p + tau^2 G'q in the same two coordinates. A sweep does not solve the b-system anew: it
takes one step b <- b - M^-1 (residual), where M^-1 comes from a back end (`linear`) and is exact, nearly exact or a
preconditioner. With u from the last sweep the residual is, up to the factor rho, the gradient of what is minimised,

    H u - p - (tau^2 G'q + F'(y - F u) / rho)

whose last part is what the pass over the rows brings back (`rows`). In the gated program u is b, and 2/rho is 1/rho.
"""

from __future__ import annotations

from collections.abc import Callable

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.problem import ConvexProblem

MOST_STEPS = 100  # of one conjugate gradient solve; what is left is taken up by the next sweep

Operator = Callable[[Array], Array]


def cone_metric(problem: ConvexProblem, cone_scale_squared: float) -> Array:
    """Diagonal of H = I + tau^2 X'X, (d, 1)."""
    metric: Array = (1.0 + cone_scale_squared * problem.spectrum)[:, None]
    return metric


def full_metric(metric: Array, gates: int) -> Array:
    """Diagonal of I (x) H, (d, P), of H's (d, 1): NumPy takes twice as long to repeat a column along short rows."""
    full: Array = namespace_of(metric).tile(metric, (1, gates))
    return full


def conjugate_gradients(
    residual: Array, whole: Operator, precondition: Operator, reduction: float
) -> tuple[Array, int]:
    """Preconditioned conjugate gradients for A x = residual from x = 0.

    Parameters
    ----------
    residual : array
        Right side.
    whole : callable
        A p of p.
    precondition : callable
        z = M^-1 r for a symmetric positive definite M near A.
    reduction : float
        Factor by which (r'M^-1 r)^(1/2) is to shrink; `MOST_STEPS` steps are the most that are taken.

    Returns
    -------
    x : array
        Not a number where the right side was not.
    steps : int
        Products with A that were spent.
    """
    z = precondition(residual)
    slope = first = float((residual * z).sum())
    x, direction, steps = 0.0 * z, z, 0
    while slope > reduction**2 * first and steps < MOST_STEPS:
        pull = whole(direction)
        curvature = float((direction * pull).sum())
        if not curvature > 0.0:
            break
        x, residual = x + (slope / curvature) * direction, residual - (slope / curvature) * pull
        z = precondition(residual)
        last, slope = slope, float((residual * z).sum())
        direction, steps = z + (slope / last) * direction, steps + 1
    return x, steps
