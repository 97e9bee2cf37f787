"""The optimum of Phase II by Newton's method, the yardstick for AdamW.

Both losses of Phase II have one form. With hidden activations phi and signed rows
a_i = beta (phi_w,i - phi_l,i) for pairs, or a_i = beta y_i phi_i for single responses,

    minimise_theta  f(theta) = mean_i log(1 + exp(gamma - a_i . theta)) + ridge/2 ||theta||^2.

It is convex, and strongly so for ridge above 0. With ridge 0 it may have no minimiser:
where some theta separates the rows, the loss falls forever along it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigvalsh, qr, svd
from scipy.special import expit

FloatArray = NDArray[np.float64]

_MAX_STEPS = 60
_MAX_HALVINGS = 50
_SUFFICIENT_DECREASE = 1e-4


class OptimumStatus(StrEnum):
    """How the search for the optimum ended, each with its remedy."""

    FOUND = "The gradient vanishes at the reported optimum, within tolerance."
    UNBOUNDED = (
        "With ridge 0 the loss has no certified minimiser: some last layer separates the training rows, or nearly. "
        "Raise `finetune.ridge` above 0."
    )
    STALLED = "Newton's method stopped above its tolerance. Raise `finetune.ridge`."


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where Newton's method ended."""

    status: OptimumStatus
    """`FOUND`, or why there is nothing to compare with."""
    weights: FloatArray
    """(m,) last layer; of no meaning where the status is `UNBOUNDED`."""
    objective: float
    """f at `weights`."""
    gradient_norm: float
    """Euclidean norm of the gradient of f at `weights`."""
    relative_gradient_norm: float
    """`gradient_norm` over the norm at theta = 0; 0 where both vanish."""
    steps: int
    """Newton steps taken."""


@dataclass(frozen=True, eq=False)
class _Program:
    """The function f of the module's docstring."""

    rows: FloatArray  # (n, m) signed rows a_i
    gamma: float
    ridge: float

    def objective(self, weights: FloatArray) -> float:
        """f(theta), without overflow."""
        losses = np.logaddexp(0, self.gamma - self.rows @ weights)
        return float(losses.mean() + self.ridge / 2 * (weights @ weights))

    def slopes(self, weights: FloatArray) -> FloatArray:
        """sigma(gamma - a_i . theta), (n,): minus the derivative of each term of the loss."""
        slopes: FloatArray = expit(self.gamma - self.rows @ weights)
        return slopes

    def gradient(self, weights: FloatArray) -> FloatArray:
        """Gradient of f, (m,)."""
        return self.ridge * weights - self.rows.T @ self.slopes(weights) / len(self.rows)


def find_optimum(rows: FloatArray, gamma: float, ridge: float, tolerance: float = 1e-9) -> Optimum:
    """Minimise the Phase II objective over the last layer by Newton's method with backtracking.

    The problem is stated in the docstring of this module. Newton runs from theta = 0 in
    whitened coordinates of the row space, in which the rows have unit covariance, so it
    is blind to the scale of the neurons and to neurons that never fire. A step costs
    O(n m^2 + m^3). With ridge 0 the iterate counts as an optimum only where a minimiser
    provably exists (see `_minimiser_exists`); of all minimisers it is then the shortest.

    Parameters
    ----------
    rows : (n, m) float64
        Signed rows a_i, beta and the label included; finite.
    gamma : float, 0 or above
        Margin asked for.
    ridge : float, 0 or above
        Weight of the squared norm.
    tolerance : float, above 0
        Largest norm of the gradient at the optimum, relative to the norm at theta = 0.

    Returns
    -------
    Optimum
        Minimiser, objective and the gradient norms that prove it. A missing minimiser is
        a status, not an exception.

    Raises
    ------
    ValueError
        If `rows` is not a non-empty matrix of finite numbers.
    """
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(
            f"`find_optimum(rows=...)` must be a finite matrix with at least one row, got shape {rows.shape}; "
            "build it from finite hidden activations."
        )
    program = _Program(rows, gamma, ridge)
    weights, certified, steps = _newton(program, tolerance)
    norm, scale = _gradient_norms(program, weights)
    status = OptimumStatus.FOUND if norm <= tolerance * scale else OptimumStatus.STALLED
    return Optimum(
        status=status if certified else OptimumStatus.UNBOUNDED,
        weights=weights,
        objective=program.objective(weights),
        gradient_norm=norm,
        relative_gradient_norm=norm / scale if scale else 0.0,
        steps=steps,
    )


def _newton(program: _Program, tolerance: float) -> tuple[FloatArray, bool, int]:
    """Newton's iterate, whether a minimiser certainly exists, and the steps taken."""
    n, m = program.rows.shape
    basis = _whitening(program.rows)
    whitened = program.rows @ basis  # (n, r)
    penalty = np.diag(program.ridge * (basis**2).sum(axis=0))  # the columns of basis are orthogonal
    weights = np.zeros(m)
    certified = program.ridge > 0 or not basis.size
    for step in range(_MAX_STEPS):
        norm, scale = _gradient_norms(program, weights)
        if certified and norm <= tolerance * scale:
            return weights, certified, step
        slopes = program.slopes(weights)
        hessian = (whitened.T * (slopes * (1 - slopes))) @ whitened / n + penalty
        gradient = basis.T @ program.gradient(weights)
        try:
            direction = -cho_solve(cho_factor(hessian), gradient)
        except LinAlgError:  # no curvature left in floating point
            return weights, certified, step
        certified = certified or _minimiser_exists(whitened, hessian, gradient @ -direction)
        weights = weights + _step_length(program, weights, basis @ direction) * (basis @ direction)
    return weights, certified, _MAX_STEPS


def _whitening(rows: FloatArray) -> FloatArray:
    """(m, r) map T such that rows @ T has unit second moments, r the rank of the rows."""
    n, m = rows.shape
    (triangle,) = qr(rows, mode="r")
    _, singular, right = svd(triangle[:m], full_matrices=False)
    kept = singular > max(n, m) * np.finfo(np.float64).eps * singular.max(initial=0)
    whitening: FloatArray = right[kept].T * (np.sqrt(n) / singular[kept])
    return whitening


def _gradient_norms(program: _Program, weights: FloatArray) -> tuple[float, float]:
    """Norm of the gradient at `weights`, and its scale: the norm at zero."""
    at_zero = program.gradient(np.zeros_like(weights))
    return float(np.linalg.norm(program.gradient(weights))), float(np.linalg.norm(at_zero))


def _minimiser_exists(whitened: FloatArray, hessian: FloatArray, squared_decrement: float) -> bool:
    """Whether the Newton decrement proves a minimiser nearby.

    Logistic losses are self-concordant in the sense of Bach (2010), |g'''| <= R ||v|| g'' along
    any line with R the longest row; a decrement of at most sqrt(lowest curvature) / (2 R)
    makes f larger than here on a whole ellipsoid around here (his Proposition 2).
    """
    longest_row = np.sqrt((whitened**2).sum(axis=1).max())
    lowest_curvature = eigvalsh(hessian, subset_by_index=(0, 0))[0]
    return bool(lowest_curvature > 0 and 4 * longest_row**2 * squared_decrement <= lowest_curvature)


def _step_length(program: _Program, weights: FloatArray, direction: FloatArray) -> float:
    """Longest of 1, 1/2, 1/4, ... that lowers f sufficiently; rounding of f is forgiven."""
    start = program.objective(weights)
    slope = program.gradient(weights) @ direction
    forgiven = 10 * np.finfo(np.float64).eps * start
    length = 1.0
    for _ in range(_MAX_HALVINGS):
        if program.objective(weights + length * direction) <= start + _SUFFICIENT_DECREASE * length * slope + forgiven:
            break
        length /= 2
    return length
