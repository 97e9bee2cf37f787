r"""M^-1 for the b-system by a dense inverse, on either side of F~.

    A = I_P (x) H + (2/rho) F~'F~,  (dP, dP): `PrimalDirect`
    A^-1 = H^-1 - (2/rho) H^-1 F~' S^-1 F~ H^-1,  S = I + (2/rho) F~ (I (x) H^-1) F~',  (m, m): `DualDirect`

with F~ (I (x) H^-1) F~' = Delta ((X H^-1 X') o (D D')) Delta', m = n rows, or n/2 paired ones. Explicit inverses,
because a product with one reads it once, in order, on all cores, which a triangular solve does not. They are kept in
float32 where its rounding is small against their condition: each sweep corrects what the last one left.
"""

from __future__ import annotations

import math

import numpy as np

from coala_core.backend import Array, inverse, namespace_of
from coala_core.cvxnn.problem import ConvexProblem
from coala_core.cvxnn.system import cone_metric

SINGLE_FROM = 256  # order from which an inverse is kept in float32; smaller ones cost little to read
SINGLE_UP_TO = 1e4  # eigenvalue of B, B >= 0, up to which the inverse of I + B in float32 is right to a percent
SINGULAR_UP_TO = 3e2  # the same for a singular B where what it leaves is a difference: the error grows with its square
POWER_STEPS = 10  # of the estimate of that eigenvalue


class DualDirect:
    """The m x m system: its cost does not grow with the number of gates.

    Parameters
    ----------
    problem : ConvexProblem
    cone_scale_squared : float
        tau^2.
    """

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float) -> None:
        self.problem, self.metric = problem, cone_metric(problem, cone_scale_squared)
        self.kernel = _dual_kernel(problem, self.metric)  # (m, m)
        singular = len(self.kernel) > problem.shape[1] * problem.shape[2]
        self._single_up_to = (SINGULAR_UP_TO if singular else SINGLE_UP_TO) / largest_eigenvalue(self.kernel)
        self.penalty, self.inverse = math.nan, self.kernel[:0]

    def refactor(self, penalty: float) -> None:
        """Invert S."""
        self.penalty, self.inverse = penalty, self.kernel[:0]  # makes room first
        self.inverse = _inverse(self.kernel, 2.0 / penalty, 1.0, self._single_up_to)

    def apply(self, residual: Array) -> Array:
        """Return A^-1 residual, (d, P), to the precision of the inverse."""
        dtype = self.inverse.dtype
        quick = self.problem.single if dtype == np.float32 else self.problem
        z = residual / self.metric  # (d, P)
        r = quick.products.symmetric(self.inverse, quick.predict(z.astype(dtype, copy=False)))  # (m,)
        result: Array = z - (2.0 / self.penalty) * quick.predict_adjoint(r) / self.metric
        return result

    def observe(self, fitted: Array) -> None:
        """Nothing to learn from a sweep."""


class PrimalDirect:
    """The dP x dP system: its cost per sweep does not grow with the number of rows.

    Parameters
    ----------
    problem : ConvexProblem
    cone_scale_squared : float
        tau^2.
    """

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float) -> None:
        xp = namespace_of(problem.features)
        _, d, gates = problem.shape
        self.metric, self.products = cone_metric(problem, cone_scale_squared), problem.products
        self.gram = xp.empty((gates * d, gates * d))  # F~'F~, gate by gate
        for i in range(gates):
            self._fill_row(problem, i)
        self._single_up_to = SINGLE_UP_TO * float(self.metric.min()) / largest_eigenvalue(self.gram)
        self.inverse = self.gram[:0]

    def _fill_row(self, problem: ConvexProblem, i: int) -> None:
        """Blocks X'D_i Delta'Delta D_j X for j >= i, and their mirror images; rows inactive in gate i do not count."""
        d = len(self.metric)
        x_i, others = _active_rows(problem, i)
        for j in range(i, problem.shape[2]):
            block = sum(x_i.T @ (d_j[:, j : j + 1] * x_j) for d_j, x_j in others)  # (d, d)
            self.gram[i * d : (i + 1) * d, j * d : (j + 1) * d] = block
            self.gram[j * d : (j + 1) * d, i * d : (i + 1) * d] = block.T

    def refactor(self, penalty: float) -> None:
        """Invert A."""
        self.inverse = self.gram[:0]  # makes room first
        gates = len(self.gram) // len(self.metric)
        shift = namespace_of(self.gram).tile(self.metric[:, 0], gates)
        self.inverse = _inverse(self.gram, 2.0 / penalty, shift, self._single_up_to)

    def apply(self, residual: Array) -> Array:
        """Return A^-1 residual, (d, P), to the precision of the inverse."""
        stacked = residual.T.reshape(-1).astype(self.inverse.dtype, copy=False)  # (dP,), gate by gate
        step = self.products.symmetric(self.inverse, stacked).reshape(residual.T.shape).T  # (d, P)
        return step.astype(residual.dtype)

    def observe(self, fitted: Array) -> None:
        """Nothing to learn from a sweep."""


def largest_eigenvalue(matrix: Array) -> float:
    """Estimate the largest eigenvalue of a positive semidefinite matrix (k, k) from below, by power iteration.

    It is above 0: of a matrix of zeros 1e-300 is returned.
    """
    xp = namespace_of(matrix)
    vector, length = xp.asarray(np.random.default_rng(0).standard_normal(len(matrix))), 1.0
    for _ in range(POWER_STEPS):
        vector = matrix @ (vector / max(length, 1e-300))
        length = float(xp.linalg.norm(vector))
    return max(length, 1e-300)


def _inverse(matrix: Array, factor: float, shift: Array | float, single_up_to: float) -> Array:
    """Invert shift I + factor * matrix, in float32 up to a factor and if that succeeds, else in float64."""
    if len(matrix) >= SINGLE_FROM and factor <= single_up_to:
        try:
            return inverse(_shifted(matrix, factor, shift, np.float32))
        except np.linalg.LinAlgError:
            pass
    return inverse(_shifted(matrix, factor, shift, np.float64))


def _shifted(matrix: Array, factor: float, shift: Array | float, dtype: type) -> Array:
    """Compute shift I + factor * matrix in a precision."""
    system: Array = matrix.astype(dtype)
    system *= factor
    diagonal(system)[:] += shift
    return system


def diagonal(matrix: Array) -> Array:
    """Writable view of the diagonal of a contiguous square matrix."""
    return matrix.reshape(-1)[:: len(matrix) + 1]


def _active_rows(problem: ConvexProblem, i: int) -> tuple[Array, list[tuple[Array, Array]]]:
    """Rows of Delta D_i X that are not zero, (k, d), and for every row of a pair the patterns and features there."""
    xp, x, patterns = namespace_of(problem.features), problem.features, problem.patterns
    if not problem.paired:
        rows = xp.flatnonzero(patterns[:, i])
        return x[rows], [(patterns[rows], x[rows])]
    half = len(x) // 2
    rows = xp.flatnonzero(patterns[:half, i] + patterns[half:, i])
    chosen, rejected = (patterns[rows], x[rows]), (patterns[rows + half], x[rows + half])
    x_i = chosen[0][:, i : i + 1] * chosen[1] - rejected[0][:, i : i + 1] * rejected[1]
    return x_i, [chosen, (-rejected[0], rejected[1])]


def _dual_kernel(problem: ConvexProblem, metric: Array) -> Array:
    """Delta ((X H^-1 X') o (D D')) Delta', (m, m)."""
    x, d = problem.features, problem.patterns
    if not problem.paired:
        return _block(x, d, x, d, metric)
    half = len(x) // 2
    first, second = (x[:half], d[:half]), (x[half:], d[half:])
    kernel = _block(*first, *first, metric)
    kernel += _block(*second, *second, metric)
    cross = _block(*first, *second, metric)
    kernel -= cross
    kernel -= cross.T
    return kernel


def _block(x: Array, d: Array, y: Array, e: Array, metric: Array) -> Array:
    """(X H^-1 Y') o (D E'), one entry per row of x and of y."""
    block: Array = (x / metric.T) @ y.T
    block *= d @ e.T
    return block
