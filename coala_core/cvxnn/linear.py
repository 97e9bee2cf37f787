r"""The u-update of Algorithm 2, exactly, by the smaller of two dense systems.

    u = argmin  1/2 ||F u - y||^2 + rho/2 ||u - p||^2 + rho tau^2 / 2 ||G u - q||^2

E_i^2 = I gives G'G = I (x) X'X, and F sees only v - w, so with a = (v + w)/sqrt2, b = (v - w)/sqrt2,
H = I + tau^2 X'X (diagonal in the principal axes) and F~ = [D_1 X ... D_P X]

    H a_i = r_a                                                      no coupling between gates
    (I_P (x) H + (2/rho) F~'F~) b = r_b + (sqrt2/rho) F~'y           (dP, dP): `PrimalDirect`
    (I_n + (2/rho) (X H^-1 X') o (D D')) r = y - sqrt2 F~ H^-1 r_b   (n, n): `DualDirect`, r = y - F u

where (r_a, r_b) is p + tau^2 G'q in the same two coordinates. A further class with `refactor` and
`solve` is all that another way, such as preconditioned conjugate gradients, needs.
"""

from __future__ import annotations

import math
from typing import Protocol

from coala_core.backend import Array, cholesky, cholesky_solve, namespace_of
from coala_core.cvxnn.problem import ConvexProblem

SQRT2 = math.sqrt(2.0)
LARGEST_SYSTEM = 30_000
"""Order of the largest dense system, 7.2 GB in float64 for each of its two copies."""


class BackEnd(Protocol):
    """An exact solver of the u-update for one problem and one cone scale."""

    def refactor(self, penalty: float) -> None:
        """Prepare for the penalty rho; the only part of the factorisation that depends on it."""

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right = p + tau^2 G'q (2, d, P)."""


class DualDirect:
    """The n x n system: its cost does not grow with the number of gates."""

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float) -> None:
        self.problem = problem
        self.h = (1.0 + cone_scale_squared * problem.spectrum)[:, None]  # (d, 1)
        x = problem.features
        self.kernel = (x / self.h.T) @ x.T  # (n, n)
        self.kernel *= problem.patterns @ problem.patterns.T
        self.penalty, self.factor = math.nan, self.kernel[:0]

    def refactor(self, penalty: float) -> None:
        """Factorise I + (2/rho) F~ H^-1 F~'."""
        self.penalty = penalty
        system = self.kernel * (2.0 / penalty)  # (n, n)
        _diagonal(system)[:] += 1.0
        self.factor = cholesky(system)

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right (2, d, P)."""
        problem, x, d = self.problem, self.problem.features, self.problem.patterns
        r_a, r_b = _split(right)
        a = r_a / self.h  # (d, P)
        b = r_b / self.h  # (d, P)
        r = cholesky_solve(self.factor, problem.labels - SQRT2 * (d * (x @ b)).sum(axis=1))  # (n,)
        b = b + (SQRT2 / self.penalty) * (x.T @ (d * r[:, None])) / self.h
        return _join(a, b)


class PrimalDirect:
    """The dP x dP system: its cost per sweep does not grow with the number of rows."""

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float) -> None:
        xp = namespace_of(problem.features)
        _, d, gates = problem.shape
        self.h = (1.0 + cone_scale_squared * problem.spectrum)[:, None]  # (d, 1)
        self.gram = xp.empty((gates * d, gates * d))  # F~'F~, gate by gate
        for i in range(gates):
            self._fill_row(problem, i)
        self.f_y = SQRT2 * problem.apply_f_adjoint(problem.labels)[0]  # (d, P)
        self.penalty, self.factor = math.nan, self.gram[:0]

    def _fill_row(self, problem: ConvexProblem, i: int) -> None:
        """Blocks X'D_i D_j X for j >= i, and their mirror images; only rows active in both gates count."""
        xp, d = namespace_of(self.gram), len(self.h)
        rows = xp.flatnonzero(problem.patterns[:, i])
        x_i, d_i = problem.features[rows], problem.patterns[rows]
        for j in range(i, d_i.shape[1]):
            block = x_i.T @ (d_i[:, j : j + 1] * x_i)  # (d, d)
            self.gram[i * d : (i + 1) * d, j * d : (j + 1) * d] = block
            self.gram[j * d : (j + 1) * d, i * d : (i + 1) * d] = block.T

    def refactor(self, penalty: float) -> None:
        """Factorise I (x) H + (2/rho) F~'F~."""
        xp = namespace_of(self.gram)
        self.penalty = penalty
        system = self.gram * (2.0 / penalty)  # (dP, dP)
        _diagonal(system)[:] += xp.tile(self.h[:, 0], len(system) // len(self.h))
        self.factor = cholesky(system)

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right (2, d, P)."""
        r_a, r_b = _split(right)
        a = r_a / self.h  # (d, P)
        stacked = (r_b + self.f_y / self.penalty).T.reshape(-1)  # (dP,), gate by gate
        b = cholesky_solve(self.factor, stacked).reshape(r_b.T.shape).T  # (d, P)
        return _join(a, b)


def _diagonal(matrix: Array) -> Array:
    """Writable view of the diagonal of a C-ordered square matrix."""
    return matrix.reshape(-1)[:: len(matrix) + 1]


def _split(u: Array) -> tuple[Array, Array]:
    """(v, w) -> ((v + w)/sqrt2, (v - w)/sqrt2)."""
    return (u[0] + u[1]) / SQRT2, (u[0] - u[1]) / SQRT2


def _join(a: Array, b: Array) -> Array:
    """Undo `_split`."""
    u: Array = namespace_of(a).stack([a + b, a - b]) / SQRT2
    return u


def choose_back_end(problem: ConvexProblem, cone_scale_squared: float) -> BackEnd:
    """Return the back end with the smaller system.

    Raises
    ------
    ValueError
        If both systems are larger than `LARGEST_SYSTEM`.
    """
    n, d, gates = problem.shape
    if min(n, d * gates) > LARGEST_SYSTEM:
        raise ValueError(
            f"`choose_back_end` needs rows or features times gates to be at most {LARGEST_SYSTEM}, "
            f"got {n} rows and {d} x {gates}; lower `solve.gates` or fit on fewer rows."
        )
    return DualDirect(problem, cone_scale_squared) if n <= d * gates else PrimalDirect(problem, cone_scale_squared)
