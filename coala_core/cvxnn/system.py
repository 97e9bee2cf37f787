r"""The linear system behind the u-update of Algorithm 2, in coordinates that take it apart.

    u = argmin  1/2 ||F u - y||^2 + rho/2 ||u - p||^2 + rho tau^2 / 2 ||G u - q||^2

E_i^2 = I gives G'G = I (x) X'X, and F sees only v - w, so with a = (v + w)/sqrt2, b = (v - w)/sqrt2,
H = I + tau^2 X'X (diagonal in the principal axes) and F~ = Delta [D_1 X ... D_P X]

    H a_i = r_a                                                      no coupling between gates
    (I_P (x) H + (2/rho) F~'F~) b = r_b + (sqrt2/rho) F~'y           the b-system

where (r_a, r_b) is right = p + tau^2 G'q in the same two coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.problem import ConvexProblem

SQRT2 = math.sqrt(2.0)
SINGLE_DOWN_TO = 1e-3
MOST_STEPS = 100  # of one conjugate gradient solve; what is left is taken up by the next one

Operator = Callable[[Array], Array]


def split(u: Array) -> tuple[Array, Array]:
    """(v, w) -> ((v + w)/sqrt2, (v - w)/sqrt2), each (d, P), of u (2, d, P)."""
    return (u[0] + u[1]) / SQRT2, (u[0] - u[1]) / SQRT2


def join(a: Array, b: Array) -> Array:
    """Undo `split`."""
    u: Array = namespace_of(a).stack([a + b, a - b]) / SQRT2
    return u


def cone_metric(problem: ConvexProblem, cone_scale_squared: float) -> Array:
    """Diagonal of H = I + tau^2 X'X, (d, 1)."""
    metric: Array = (1.0 + cone_scale_squared * problem.spectrum)[:, None]
    return metric


class Products:
    """F~ and its adjoint in a chosen precision, on float64 arguments.

    In float32 a product takes a third to a half of the time and is off by 1e-6 of its own length. Where it acts on
    the correction that a sweep asks for, that is 1e-6 of a step; residuals are taken afresh in float64.

    Parameters
    ----------
    problem : ConvexProblem
    accuracy : float
        Reduction of a residual that is asked for; float32 serves down to `SINGLE_DOWN_TO`.
    """

    def __init__(self, problem: ConvexProblem, accuracy: float) -> None:
        self.exact, self.dtype = problem, np.dtype(np.float32 if accuracy >= SINGLE_DOWN_TO else np.float64)
        features, patterns = (z.astype(self.dtype, copy=False) for z in (problem.features, problem.patterns))
        self.quick = replace(problem, features=features, patterns=patterns)

    def predict(self, b: Array) -> Array:
        """F~ b, (m,) of b (d, P)."""
        result: Array = self.quick.predict(b.astype(self.dtype, copy=False)).astype(b.dtype, copy=False)
        return result

    def predict_adjoint(self, r: Array) -> Array:
        """F~' r, (d, P) of r (m,)."""
        result: Array = self.quick.predict_adjoint(r.astype(self.dtype, copy=False)).astype(r.dtype, copy=False)
        return result

    def couple(self, b: Array) -> Array:
        """F~'F~ b, (d, P) of b (d, P)."""
        narrow = b.astype(self.dtype, copy=False)
        result: Array = self.quick.predict_adjoint(self.quick.predict(narrow)).astype(b.dtype, copy=False)
        return result


class Iterate(NamedTuple):
    """A point x of a linear system A x = c with what conjugate gradients keep up to date."""

    x: Array
    """The point."""
    image: Array
    """Coupling part of A x, as the operator returns it."""
    residual: Array
    """c - A x."""
    steps: int
    """Products with the operator that were spent."""


def conjugate_gradients(
    start: Iterate,
    coupling: Operator,
    whole: Callable[[Array, Array], Array],
    precondition: Operator,
    length: Callable[[Array], float],
    target: float,
) -> Iterate:
    """Preconditioned conjugate gradients until the residual is as short as `target`.

    Parameters
    ----------
    start : Iterate
        Where to begin.
    coupling : callable
        The costly part of A p, in the shape of `Iterate.image`.
    whole : callable
        A p of (p, coupling(p)).
    precondition : callable
        z = M^-1 r for a symmetric positive definite M near A.
    length : callable
        Norm of a residual.
    target : float
        Length to stop at; `MOST_STEPS` steps are the most that are taken.

    Returns
    -------
    Iterate
        The last point; not a number where the right side was not.
    """
    x, image, residual, steps = start
    direction, last = None, math.inf
    while length(residual) > target and steps < MOST_STEPS:
        z = precondition(residual)
        slope = float((residual * z).sum())
        direction = z if direction is None else z + (slope / last) * direction
        along = coupling(direction)
        pull = whole(direction, along)
        curvature = float((direction * pull).sum())
        if not curvature > 0.0:
            break
        alpha = slope / curvature
        x, image, residual = x + alpha * direction, image + alpha * along, residual - alpha * pull
        last, steps = slope, steps + 1
    return Iterate(x, image, residual, steps)


class Schedule:
    """How short a residual must get, solve after solve, so that the errors of all sweeps have a finite sum.

    A solve starts from the last one's point, so its first residual is what the sweep changed, which is a
    combination of ADMM's two residuals. It is reduced by `accuracy`, and below `BOUND` / k^2 of the right side
    at the k-th solve; sum 1/k^2 is finite, which is what inexact ADMM needs (paper, Theorem 4.2).

    Parameters
    ----------
    accuracy : float
        Factor by which a solve reduces the change that a sweep brought, below 1.
    """

    BOUND = 10.0
    ROUNDING = 1e-14  # relative to the right side: no residual gets shorter

    def __init__(self, accuracy: float) -> None:
        self.accuracy, self.solves = accuracy, 0

    def restart(self) -> None:
        """Count from one again, where the system changes."""
        self.solves = 0

    def target(self, change: float, size: float) -> float:
        """Return the length to reach, for the lengths of the first residual and of the right side."""
        self.solves += 1
        return max(min(self.accuracy * change, self.BOUND * size / self.solves**2), self.ROUNDING * size)
