"""Products of blocks of X with few columns, and whose threads may use the cores meanwhile."""

from __future__ import annotations

import contextlib
from types import ModuleType

import numpy as np

from coala_core.backend import Array, blas_threads, tall_matmul, tall_matmul_threads

LARGE = 2**30  # operations of X U, from which PyTorch's products save more than its import takes


class Products:
    """Products with X: the array library's own, or PyTorch's where a CPU has a large X (decision record 0009).

    Parameters
    ----------
    operations : int
        Of X U for all rows and all columns of u.
    xp : module
        NumPy or CuPy.
    """

    def __init__(self, operations: int, xp: ModuleType) -> None:
        self.is_large, self._xp = xp is np and operations >= LARGE, xp

    def times(self, x: Array, columns: Array, out: Array | None = None) -> Array:
        """X U, (k, c), of some rows of X (k, d) and U (d, c) in one precision, into `out` if given."""
        if self.is_large:
            return tall_matmul(x, columns, out=out)
        product: Array = self._xp.matmul(x, columns, out=out)
        return product

    def back(self, x: Array, t: Array) -> Array:
        """X'T, (d, c), of some rows of X (k, d) and T there (k, c), in one precision."""
        product: Array = tall_matmul(t.T, x).T if self.is_large else x.T @ t  # (T'X)' takes PyTorch half as long
        return product

    def symmetric(self, matrix: Array, vector: Array) -> Array:
        """Multiply a symmetric matrix (m, m) with a vector (m,) in one precision, on all threads."""
        product: Array = tall_matmul(matrix.T, vector) if self.is_large else matrix @ vector
        return product

    def sweeping(self) -> contextlib.AbstractContextManager[object]:
        """Leave the cores to PyTorch during sweeps: NumPy's own threads wait actively after their work."""
        return blas_threads(1) if self.is_large else contextlib.nullcontext()

    def factorising(self) -> contextlib.AbstractContextManager[object]:
        """Give the cores back to NumPy and SciPy for a factorisation between sweeps."""
        return blas_threads(tall_matmul_threads()) if self.is_large else contextlib.nullcontext()
