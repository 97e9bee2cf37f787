r"""The sampled convex program of eq. (4) and its operators F and G.

    minimise_{v,w}  1/2 ||sum_i D_i X (v_i - w_i) - y||^2 + beta sum_i (||v_i|| + ||w_i||)
    subject to      E_i X v_i >= 0,  E_i X w_i >= 0,     D_i = diag(1[X h_i >= 0]),  E_i = 2 D_i - I

A pair (v, w) is one array u (2, d, P) with u[0] = v and u[1] = w. Neither F nor G is ever formed.

With paired rows the loss sees differences: Delta (2n, d) -> (n, d) takes row n + i from row i, F becomes Delta F,
y is 1 for every pair, and the cones stay on all 2n rows. An offset common to all scores cancels in every
difference, so nothing fits an intercept; a neuron's bias matters only where its gate tells the two rows apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike

from coala_core.backend import Array, asarray, namespace_of
from coala_core.cvxnn.products import Products
from coala_core.scratch import Scratch

BLOCK_BYTES = 16 * 1024**2  # of X that one step of a pass over the rows reads


class Block(NamedTuple):
    """Some rows of F and the rows of X behind them."""

    targets: slice
    """Rows of F, of y and of F u."""
    slabs: tuple[tuple[slice, float], ...]
    """Rows of X and the sign they have in F: one slab, or the chosen and the rejected rows of the same pairs."""


@dataclass(frozen=True, eq=False)
class ConvexProblem:
    """Data of the sampled program, in the principal axes of the features.

    Rotating X and every v_i, w_i by the eigenvectors of X'X changes neither a prediction, nor a norm,
    nor a cone, and it makes X'X diagonal: H = I + tau^2 X'X is then inverted entry by entry.
    Build it with `convex_problem`.
    """

    features: Array
    """X, (n, d) float64, or float32 on disk, in the principal axes."""
    labels: Array
    """y, one target per row of F: (n,) float64, or (n/2,) if paired."""
    patterns: Array
    """Diagonals of the D_i, (n, P) float64 of 0 and 1."""
    spectrum: Array
    """Eigenvalues of X'X, (d,)."""
    axes: Array
    """Orthonormal Q, (k, d), from principal axes to the k features as they came."""
    paired: bool = False
    """Whether F takes the difference of the rows i and n/2 + i."""
    scratch: Scratch | None = None
    """Where what has n rows is kept instead of memory; X and the patterns are then float32 on disk."""
    halves: ClassVar[int] = 2
    """Leading axis of u: v and w."""

    @property
    def cone_rows(self) -> int:
        """Rows of one half of G, n."""
        return len(self.features)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (n, d, P)."""
        return (*self.features.shape, self.patterns.shape[1])

    @cached_property
    def signs(self) -> Array:
        """Diagonals of the E_i = 2 D_i - I, (n, P)."""
        signs: Array = 2.0 * self.patterns - 1.0
        return signs

    @cached_property
    def single(self) -> Self:
        """The same problem with X and the patterns in float32."""
        single = np.float32
        return replace(self, features=self.features.astype(single), patterns=self.patterns.astype(single))

    @cached_property
    def column_signs(self) -> Array:
        """Signs of every column of u, side by side, (n, halves P)."""
        n, _, gates = self.shape
        signs = self.allocate((n, self.halves * gates), self.patterns.dtype)
        for half in range(self.halves):
            signs[:, half * gates : (half + 1) * gates] = self.patterns
        signs *= 2.0
        signs -= 1.0
        return signs

    @cached_property
    def column_shares(self) -> Array:
        """What a column of u counts for in F, (halves P,): with D = (I + E) / 2, F u = (X u + E X u) column_shares."""
        xp = namespace_of(self.spectrum)
        shares: Array = xp.repeat(xp.asarray([0.5, -0.5][: self.halves]), self.shape[2])
        return shares

    def slab(self, rows: slice, dtype: DTypeLike) -> tuple[Array, Array]:
        """X (k, d) and the signs of the columns of u (k, halves P) at k rows, in float32 or float64."""
        single = dtype == np.float32 and self.features.dtype != np.float32
        source = self.single if single else self
        x, signs = source.features[rows], source.column_signs[rows]
        return x.astype(dtype, copy=False), signs.astype(dtype, copy=False)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Make an array for what a solve keeps per row; its entries are arbitrary."""
        if self.scratch is not None:
            return self.scratch.array(shape, dtype)
        array: Array = namespace_of(self.features).empty(shape, dtype=dtype)
        return array

    def blocks(self, dtype: DTypeLike = np.float64) -> Iterator[Block]:
        """All rows in their order, in blocks of about `BLOCK_BYTES` of X."""
        m, step = len(self.labels), self.block_rows(dtype)
        for start in range(0, m, step):
            yield self.block(start, min(start + step, m))

    def block(self, start: int, stop: int) -> Block:
        """Rows of F from `start` to before `stop`."""
        m = len(self.labels)
        first = slice(start, stop), 1.0
        second = slice(m + start, m + stop), -1.0
        return Block(first[0], (first, second) if self.paired else (first,))

    def block_rows(self, dtype: DTypeLike = np.float64) -> int:
        """Rows of a block at most: as many as a cache holds; a device, which has none of that kind, takes all."""
        if namespace_of(self.features) is not np:
            return max(1, len(self.labels))
        width = int(np.dtype(dtype).itemsize) * max(1, int(self.features.shape[1]))
        return max(1, BLOCK_BYTES // width)

    @cached_property
    def products(self) -> Products:
        """How X is multiplied, block by block."""
        n, d, gates = self.shape
        return Products(2 * n * d * self.halves * gates, namespace_of(self.spectrum))

    def difference(self, z: Array) -> Array:
        """Delta z: the first half of the rows of z (n, ...) minus the second if paired, else z itself."""
        return difference(z) if self.paired else z

    def predict(self, b: Array) -> Array:
        """F~ b = Delta sum_i D_i X b_i, (m,) of b (d, P), in the precision of b."""
        xp = namespace_of(b)
        fit: Array = xp.zeros(len(self.labels), dtype=b.dtype)
        ones = xp.ones(b.shape[1], dtype=b.dtype)
        for block in self.blocks(b.dtype):
            for rows, sign in block.slabs:
                x, patterns = self._rows(rows, b.dtype)
                # A product sums short rows faster than `sum` does.
                fit[block.targets] += sign * ((patterns * self.products.times(x, b)) @ ones)
        return fit

    def predict_adjoint(self, r: Array) -> Array:
        """F~' r = (X'D_i Delta' r)_i, (d, P) of r (m,), in the precision of r."""
        _, d, gates = self.shape
        result: Array = namespace_of(r).zeros((d, gates), dtype=r.dtype)
        for block in self.blocks(r.dtype):
            for rows, sign in block.slabs:
                x, patterns = self._rows(rows, r.dtype)
                result += self.products.back(x, patterns * (sign * r[block.targets])[:, None])
        return result

    def _rows(self, rows: slice, dtype: DTypeLike) -> tuple[Array, Array]:
        """X and the patterns at some rows."""
        return self.features[rows].astype(dtype, copy=False), self.patterns[rows].astype(dtype, copy=False)

    def fit_at(self, block: Block, u: Array) -> Array:
        """F u at a block of rows, in float64."""
        columns = columns_of(u)
        fit: Array = namespace_of(u).zeros(block.targets.stop - block.targets.start)
        for rows, sign in block.slabs:
            x, signs = self.slab(rows, np.float64)
            fit += sign * self.fit_of(self.products.times(x, columns), signs)
        return fit

    def fit_of(self, product: Array, signs: Array) -> Array:
        """Sum over the columns of a product X u, (k, halves P), what they count for in F u, (k,)."""
        fit: Array = product @ self.column_shares + (signs * product) @ self.column_shares
        return fit

    def apply_f(self, u: Array) -> Array:
        """F u = F~ (v - w), the prediction (m,) of u (2, d, P)."""
        return self.predict(u[0] - u[1])

    def apply_f_adjoint(self, residual: Array) -> Array:
        """F' r: the pair (F~' r, -F~' r), (2, d, P), of r (m,)."""
        g = self.predict_adjoint(residual)  # (d, P)
        pair: Array = namespace_of(g).stack([g, -g])
        return pair

    def apply_g(self, u: Array) -> Array:
        """G u: the signed pre-activations (E_i X v_i, E_i X w_i), (2, n, P), of u (2, d, P)."""
        result: Array = self.signs * (self.features @ u)
        return result

    def apply_g_adjoint(self, s: Array) -> Array:
        """G' s: the pair (X'E_i s_i), (2, d, P), of s (2, n, P)."""
        result: Array = self.features.T @ (self.signs * s)
        return result

    def objective(self, u: Array, lasso_weight: float) -> float:
        """Loss plus group lasso at u (2, d, P), whether or not u is in the cones."""
        misfit = self.labels - self.apply_f(u)
        return float(0.5 * (misfit @ misfit) + lasso_weight * column_norms(u).sum())

    def cone_violation(self, u: Array) -> float:
        """Largest violation of G u >= 0, relative to the largest pre-activation; 0 for u = 0."""
        xp = namespace_of(u)
        g_u = self.apply_g(u)
        return max(0.0, -float(g_u.min())) / max(float(xp.abs(g_u).max()), 1e-300)


def columns_of(u: Array) -> Array:
    """Every v, then every w, side by side: (d, halves P) of u (halves, d, P)."""
    halves, d, gates = u.shape
    columns: Array = namespace_of(u).moveaxis(u, 0, 1).reshape(d, halves * gates)
    return columns


def halves_of(columns: Array, halves: int) -> Array:
    """Undo `columns_of`: (halves, d, P) of (d, halves P)."""
    d, width = columns.shape
    result: Array = namespace_of(columns).moveaxis(columns.reshape(d, halves, width // halves), 1, 0)
    return result


def column_norms(u: Array) -> Array:
    """Euclidean norms ||v_i||, ||w_i||, (2, P), of u (2, d, P)."""
    norms: Array = namespace_of(u).sqrt(column_squares(u))
    return norms


def column_squares(u: Array) -> Array:
    """Squares of `column_norms`, by what is quick in each library: CuPy's einsum would lay out copies for products."""
    if namespace_of(u) is np:
        squares: Array = np.einsum("hdp,hdp->hp", u, u)  # a third of the time of a sum over the middle axis
    else:
        squares = (u * u).sum(axis=1)
    return squares


def difference(z: Array) -> Array:
    """First half of the rows of z (n, ...) minus the second half."""
    result: Array = z[: len(z) // 2] - z[len(z) // 2 :]
    return result


def gate_patterns(features: Array, directions: Array) -> Array:
    """1[X h_i >= 0], (n, P) booleans, of prepared features (n, k) and gate directions h (k, P)."""
    result: Array = features @ directions >= 0
    return result


def convex_problem(
    features: Array,
    labels: Array,
    directions: Array,
    *,
    paired: bool = False,
    kind: type[ConvexProblem] = ConvexProblem,
) -> ConvexProblem:
    """Sample eq. (4) at the given gates and rotate it to the principal axes.

    Parameters
    ----------
    features : (n, k), NumPy or CuPy
        Prepared features, used as they are; a column of ones is the bias. Finite.
    labels : (n,), or (n/2,) if paired
        Targets y; the solver uses no more than that they are finite.
    directions : (k, P)
        Gate directions h_i, giving distinct patterns.
    paired : bool
        Fit the difference of the rows i and n/2 + i instead of every row.
    kind : type
        `ConvexProblem`, or `GatedProblem` for the program without cones.

    Returns
    -------
    ConvexProblem
        With d = min(n, k): an optimum has no component outside the span of the rows.
    """
    xp = namespace_of(features)
    x = asarray(features, xp, xp.float64)  # (n, k)
    patterns = gate_patterns(x, asarray(directions, xp, xp.float64)).astype(xp.float64)
    if x.shape[0] < x.shape[1]:
        # The Gram matrix would be singular: take the row space, to full accuracy, from the SVD.
        left, sigma, right = xp.linalg.svd(x, full_matrices=False)
        rotated, spectrum, axes = left * sigma, sigma**2, right.T
    else:
        spectrum, axes = xp.linalg.eigh(x.T @ x)
        rotated, spectrum = x @ axes, xp.maximum(spectrum, 0.0)
    return kind(
        features=xp.ascontiguousarray(rotated),
        labels=asarray(labels, xp, xp.float64),
        patterns=patterns,
        spectrum=spectrum,
        axes=axes,
        paired=paired,
    )
