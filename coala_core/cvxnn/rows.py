r"""One pass over the rows of X per sweep: from u to F u, to the new s + nu, and back to the small side.

Between its two products with X a sweep is local to a row (a pair, if paired), so a block of rows is read once:

    U -> X U -> (F u, s + nu) -> T -> X'T = tau^2 G'(s - nu) + F'(y - F u) / rho

Blocks come from memory or from a file; everything that is kept per row has 2 P numbers and not d.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.kernels import move, take_back
from coala_core.cvxnn.problem import Block, ConvexProblem, halves_of


class RowPass:
    """The passes of a solve, in one precision.

    Parameters
    ----------
    problem : ConvexProblem
    cone_scale_squared : float
        tau^2.
    relaxation : float
    dtype : float32 or float64
        Of the products and of what is kept per row.
    """

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float, relaxation: float, dtype: DTypeLike) -> None:
        xp = namespace_of(problem.features)
        self.problem, self.tau2, self.relaxation, self.dtype = problem, cone_scale_squared, relaxation, np.dtype(dtype)
        self._xp, self._width = xp, problem.halves * problem.shape[2]
        self._shares = problem.column_shares.astype(self.dtype)
        self._relaxed_shares = (self._shares / relaxation).astype(self.dtype)  # of a product with alpha u
        self._labels = problem.labels.astype(self.dtype)
        rows = min(problem.block_rows(dtype), len(problem.labels))
        _, d, gates = problem.shape
        self._columns = xp.empty((d, problem.halves, gates), dtype=dtype)
        self._buffers = [xp.empty((rows, self._width), dtype=dtype) for _ in range(3)]

    def advance(self, u: Array, s_nu: Array, fit: Array, penalty: float, *, back: bool = True) -> tuple[Array, Array]:
        """Sweep over the rows, updating s + nu and F u in place.

        Parameters
        ----------
        u : (halves, d, P)
        s_nu : (n, halves P), or (0, halves P) without cones
        fit : (m,)
            F u of the last sweep; afterwards of this one.
        penalty : float
            rho.
        back : bool
            Whether to compute the way back; it is of no use where s + nu is about to change again.

        Returns
        -------
        pull : (halves, d, P) float64
            tau^2 G'(s - nu) + F'(y - F u) / rho; zero without `back`.
        change : () float64
            ||F u - F u_last||^2.
        """
        columns = self._relaxed_columns(u)
        pull, change = self._zeros(columns.shape), self._zeros(())
        for block in self.problem.blocks(self.dtype):
            new = self._fit(block, columns, s_nu)
            step = new - fit[block.targets]
            change += step @ step
            fit[block.targets] = new
            if back:
                self._take_back(block, s_nu, fit, penalty, pull)
        return halves_of(pull, self.problem.halves), change

    def pull(self, s_nu: Array, fit: Array, penalty: float) -> Array:
        """Compute the way back alone, tau^2 G'(s - nu) + F'(y - F u) / rho, (halves, d, P) float64."""
        pull = self._zeros((self.problem.shape[1], self._width))
        for block in self.problem.blocks(self.dtype):
            self._take_back(block, s_nu, fit, penalty, pull)
        return halves_of(pull, self.problem.halves)

    def cone_adjoint(self, s: Array | Callable[[slice], Array]) -> Array:
        """G's, (halves, d, P) float64, of s (n, halves P), or of a function that gives some rows of it."""
        pull = self._zeros((self.problem.shape[1], self._width))
        part = s if callable(s) else s.__getitem__
        if self.problem.cone_rows:
            for block in self.problem.blocks(self.dtype):
                for rows, _ in block.slabs:
                    x, signs = self.problem.slab(rows, self.dtype)
                    pull += self.problem.products.back(x, signs * part(rows))
        return halves_of(pull, self.problem.halves)

    def _fit(self, block: Block, columns: Array, s_nu: Array) -> Array:
        """F u at a block of rows, given alpha u, and s + nu advanced there."""
        fit: Array = self._zeros(block.targets.stop - block.targets.start, self.dtype)
        for rows, sign in block.slabs:
            x, signs = self.problem.slab(rows, self.dtype)
            product = self.problem.products.times(x, columns, out=self._buffers[0][: len(x)])
            fit += sign * (product @ self._relaxed_shares)
            z = s_nu[rows] if len(s_nu) else None
            move(product, signs, z, self.relaxation, self._buffers[1][: len(x)])
            fit += sign * (product @ self._relaxed_shares)
        return fit

    def _take_back(self, block: Block, s_nu: Array, fit: Array, penalty: float, pull: Array) -> None:
        """Add what a block of rows contributes to the pull (d, halves P)."""
        residual = self._labels[block.targets] - fit[block.targets]
        shares = (self._shares / penalty).astype(self.dtype)
        out, work = (buffer[: len(residual)] for buffer in self._buffers[1:3])
        for rows, sign in block.slabs:
            x, signs = self.problem.slab(rows, self.dtype)
            z = s_nu[rows] if len(s_nu) else None
            pull += self.problem.products.back(x, take_back(z, signs, sign * residual, shares, self.tau2, out, work))

    def _relaxed_columns(self, u: Array) -> Array:
        """Columns of alpha u (d, halves P) in the precision of the products, in one pass over u."""
        self._xp.multiply(self._xp.moveaxis(u, 0, 1), self.relaxation, out=self._columns)
        columns: Array = self._columns.reshape(-1, self._width)
        return columns

    def _zeros(self, shape: tuple[int, ...] | int, dtype: DTypeLike = np.float64) -> Array:
        zeros: Array = self._xp.zeros(shape, dtype=dtype)
        return zeros
