r"""The b-system by a dense factorisation, on either side of F~.

    (I_P (x) H + (2/rho) F~'F~) b = r_b + (sqrt2/rho) F~'y               (dP, dP): `PrimalDirect`
    (I + (2/rho) F~ (I (x) H^-1) F~') r = y - sqrt2 F~ H^-1 r_b          (m, m): `DualDirect`, r = y - F u

with F~ (I (x) H^-1) F~' = Delta ((X H^-1 X') o (D D')) Delta', m = n rows, or n/2 paired ones. A triangular solve
reads its factor twice and hardly uses the processor, so `DualDirect` keeps an explicit inverse, which is read
once, half of it, in float32, and lets conjugate gradients remove what rounding leaves: one step as a rule.
"""

from __future__ import annotations

import math

import numpy as np

from coala_core.backend import Array, cholesky, cholesky_solve, inverse, namespace_of, symmetric_product
from coala_core.cvxnn.problem import ConvexProblem
from coala_core.cvxnn.system import SQRT2, Iterate, Products, Schedule, cone_metric, conjugate_gradients, join, split

SINGLE_FROM = 1024  # order from which the inverse is kept in float32; smaller ones cost little to read
ACCURACY = {True: 1e-3, False: 1e-12}  # reduction of what the sweep changed, for an inverse in float32 or in float64
REFRESH_EVERY = 20  # solves after which H^-1 F~'r is computed afresh, so that rounding does not accumulate
REUSE = 2.0  # factor that the penalty may move before the inverse, by then a preconditioner, is computed anew


class DualDirect:
    """The m x m system: its cost does not grow with the number of gates.

    Parameters
    ----------
    problem : ConvexProblem
    cone_scale_squared : float
        tau^2.
    accuracy : float, optional
        Reduction of the first residual that a solve asks for, see `Schedule`; by default 1e-3, or exact solves for
        less than 1,024 rows.
    """

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float, accuracy: float | None = None) -> None:
        xp = namespace_of(problem.features)
        accuracy = ACCURACY[len(problem.labels) >= SINGLE_FROM] if accuracy is None else accuracy
        self.problem, self.metric = problem, cone_metric(problem, cone_scale_squared)
        self.kernel = _dual_kernel(problem, self.metric)  # (m, m)
        self.residual = xp.zeros_like(problem.labels)  # r
        self.image = xp.zeros((problem.shape[1], problem.shape[2]))  # H^-1 F~'r, (d, P)
        self.products, self.schedule = Products(problem, accuracy), Schedule(accuracy)
        self.penalty, self.inverted_at, self.inverse, self.steps = math.nan, math.nan, self.kernel[:0], 0

    def refactor(self, penalty: float) -> None:
        """Invert I + (2/rho) F~ H^-1 F~' unless the inverse at hand is near."""
        self.penalty = penalty
        self.schedule.restart()
        if not 1.0 / REUSE <= penalty / self.inverted_at <= REUSE:
            self.inverse, self.inverted_at = self.kernel[:0], penalty  # makes room first
            self.inverse = self._invert()

    def _invert(self) -> Array:
        """Invert in float32 if that is worth it and succeeds, else in float64."""
        if len(self.kernel) >= SINGLE_FROM:
            try:
                return inverse(self._system(np.float32))
            except np.linalg.LinAlgError:
                pass
        return inverse(self._system(np.float64))

    def _system(self, dtype: type) -> Array:
        """I + (2/rho) F~ H^-1 F~', (m, m)."""
        system: Array = self.kernel.astype(dtype)
        system *= 2.0 / self.penalty
        diagonal(system)[:] += 1.0
        return system

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right (2, d, P); `steps` then says how many corrections it took."""
        problem = self.problem
        if self.schedule.solves % REFRESH_EVERY == 0:
            self.image = problem.predict_adjoint(self.residual) / self.metric
        r_a, r_b = split(right)
        b = r_b / self.metric  # (d, P)
        fitted = SQRT2 * problem.predict(b + (SQRT2 / self.penalty) * self.image)  # F u at the last r
        left = problem.labels - self.residual - fitted  # (m,)
        size = _length(problem.labels) + _length(self.residual) + _length(fitted)
        target = self.schedule.target(_length(left), size)
        start = Iterate(self.residual, self.image, left, 0)
        end = conjugate_gradients(start, self._pull, self._whole, self._precondition, _length, target)
        self.residual, self.image, self.steps = end.x, end.image, end.steps
        return join(r_a / self.metric, b + (SQRT2 / self.penalty) * self.image)

    def _precondition(self, z: Array) -> Array:
        """(I + (2/rho) F~ H^-1 F~')^-1 z up to rounding and the reuse of an inverse."""
        return symmetric_product(self.inverse, z)

    def _pull(self, r: Array) -> Array:
        """H^-1 F~'r, (d, P)."""
        pull: Array = self.products.predict_adjoint(r) / self.metric
        return pull

    def _whole(self, r: Array, image: Array) -> Array:
        """Left side of the dual system from r and H^-1 F~'r."""
        whole: Array = r + (2.0 / self.penalty) * self.products.predict(image)
        return whole


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
        self.metric = cone_metric(problem, cone_scale_squared)
        self.gram = xp.empty((gates * d, gates * d))  # F~'F~, gate by gate
        for i in range(gates):
            self._fill_row(problem, i)
        self.f_y = SQRT2 * problem.predict_adjoint(problem.labels)  # (d, P)
        self.penalty, self.factor = math.nan, self.gram[:0]

    def _fill_row(self, problem: ConvexProblem, i: int) -> None:
        """Blocks X'D_i Delta'Delta D_j X for j >= i, and their mirror images; rows inactive in gate i do not count."""
        d = len(self.metric)
        x_i, others = _active_rows(problem, i)
        for j in range(i, problem.shape[2]):
            block = sum(x_i.T @ (d_j[:, j : j + 1] * x_j) for d_j, x_j in others)  # (d, d)
            self.gram[i * d : (i + 1) * d, j * d : (j + 1) * d] = block
            self.gram[j * d : (j + 1) * d, i * d : (i + 1) * d] = block.T

    def refactor(self, penalty: float) -> None:
        """Factorise I (x) H + (2/rho) F~'F~."""
        xp = namespace_of(self.gram)
        self.penalty, self.factor = penalty, self.gram[:0]  # makes room first
        system = self.gram * (2.0 / penalty)  # (dP, dP)
        diagonal(system)[:] += xp.tile(self.metric[:, 0], len(system) // len(self.metric))
        self.factor = cholesky(system)

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right (2, d, P)."""
        r_a, r_b = split(right)
        stacked = (r_b + self.f_y / self.penalty).T.reshape(-1)  # (dP,), gate by gate
        b = cholesky_solve(self.factor, stacked).reshape(r_b.T.shape).T  # (d, P)
        return join(r_a / self.metric, b)


def diagonal(matrix: Array) -> Array:
    """Writable view of the diagonal of a contiguous square matrix."""
    return matrix.reshape(-1)[:: len(matrix) + 1]


def _length(z: Array) -> float:
    """Euclidean norm."""
    return math.sqrt(float(z @ z))


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
