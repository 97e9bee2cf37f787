r"""Passes over the rows that a certificate is computed from, in float64.

`Look` reads a point: what it costs, how far it is outside the cones, and how the lengths of its columns should change.
`Pull` reads two vectors of residuals and the multipliers: what F' and G' bring back to the small side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.problem import Block, ConvexProblem, columns_of, halves_of

STIFFNESS = 0.01  # with which a column keeps its length, relative to the longest column's share of F u


@dataclass(frozen=True)
class Duals:
    """Multipliers mu = scale max(-z, 0) of the cones, from what the sweeps keep per row."""

    s_nu: Array
    """z, (n, halves P), or no rows where there are no cones."""
    scale: float
    """rho tau^2."""

    def at(self, rows: slice) -> Array:
        """Compute mu at some rows, (k, halves P) float64."""
        z = self.s_nu[rows].astype(np.float64)
        multipliers: Array = (-self.scale) * namespace_of(z).minimum(z, 0.0)
        return multipliers


class Look:
    r"""What one pass over the rows tells about a point, given multipliers.

    Scaling its columns by c, with A_j = F u_j and g_j = mu_j'G u_j, makes the Lagrangian

        1/2 ||A c - y||^2 + beta sum_j c_j ||u_j|| - c'g,

    which is least where A'A (c - 1) = A'(y - A 1) + g - beta ||u_j||: the residual there pulls every column along
    itself with exactly beta. A dual bound is lost to first order in what it pulls too much, so this takes most of
    the loss away. Columns that hardly count in F u would be scaled at will and are held near 1 by a ridge.

    Parameters
    ----------
    problem : ConvexProblem
    point : (halves, d, P)
    duals : Duals
    """

    def __init__(self, problem: ConvexProblem, point: Array, duals: Duals) -> None:
        xp = namespace_of(point)
        self.problem, self.duals, self._columns = problem, duals, columns_of(point)  # (d, c)
        self._alive = xp.flatnonzero((self._columns * self._columns).sum(axis=0))
        kept = len(self._alive)
        self.square, self.outside, self.largest, self.price = (xp.zeros(()) for _ in range(4))
        self._gram, self._along = xp.zeros((kept, kept)), xp.zeros(kept)  # A'A, A'(y - A 1) + g
        living = xp.ascontiguousarray(self._living(self._columns))
        for block in problem.blocks():
            self._take_in(block, living)

    def _take_in(self, block: Block, columns: Array) -> None:
        """Add a block of rows."""
        targets = self.problem.labels[block.targets]
        shares = namespace_of(targets).zeros((len(targets), len(self._alive)))  # A
        for rows, sign in block.slabs:
            x, signs = self.problem.slab(rows, np.float64)
            product = self.problem.products.times(x, columns)
            inside = self._living(signs) * product
            if len(self.duals.s_nu):
                self._measure(inside, self._living(self.duals.at(rows)))
            product += inside
            product *= sign * self._living(self.problem.column_shares)
            shares += product
        misfit = targets - shares.sum(axis=1)
        self.square += misfit @ misfit
        self._gram += shares.T @ shares
        self._along += shares.T @ misfit

    def _living(self, entries: Array) -> Array:
        """Those of entries (..., c) that belong to columns which are not zero."""
        return entries if len(self._alive) == self._columns.shape[1] else entries[..., self._alive]

    def _measure(self, inside: Array, multipliers: Array) -> None:
        """Look how far G u is outside the cones, and what the multipliers charge for it."""
        xp = namespace_of(inside)
        if inside.size == 0:
            return
        least = inside.min()
        self.largest = xp.maximum(self.largest, xp.maximum(inside.max(), -least))
        self.outside = xp.maximum(self.outside, -least)
        self._along += xp.einsum("nc,nc->c", multipliers, inside)
        self.price -= xp.einsum("nc,nc->", multipliers, xp.minimum(inside, 0.0))

    def stretched(self, lasso_weight: float) -> Array:
        """Return the point with its columns at the lengths where the Lagrangian is least, (halves, d, P)."""
        xp, columns = namespace_of(self._columns), self._columns.copy()
        if len(self._alive):
            living = self._living(columns)
            slope = self._along - lasso_weight * xp.sqrt((living * living).sum(axis=0))
            ridge = STIFFNESS * self._gram.diagonal().max() * xp.eye(len(slope))
            columns[:, self._alive] = living * (1.0 + xp.linalg.solve(self._gram + ridge, slope))
        return halves_of(columns, self.problem.halves)


class Pull:
    """F'r and G'mu, of the residuals of a point and of a vector F u that is at hand.

    Parameters
    ----------
    problem : ConvexProblem
    duals : Duals
    point : (halves, d, P)
    fit : (m,), optional
        F u of another point, in any precision; by default the residual of `point` stands alone.
    """

    def __init__(self, problem: ConvexProblem, duals: Duals, point: Array, fit: Array | None) -> None:
        xp, (_, d, gates) = namespace_of(point), problem.shape
        self.problem, self.duals = problem, duals
        self.residuals = [problem.labels.copy()]  # (m,) each
        if fit is not None:
            self.residuals.append(problem.labels - fit)
        self._cones = xp.zeros((d, problem.halves * gates))  # G'mu
        self._fits = xp.zeros((d, len(self.residuals) * gates))  # F~'r of each
        columns = columns_of(point)
        for block in problem.blocks():
            self._take_in(block, columns)

    def of(self, which: int) -> Array:
        """F'r + G'mu for one of the residuals, (halves, d, P)."""
        halves, gates = self.problem.halves, self.problem.shape[2]
        fits = self._fits[:, which * gates : (which + 1) * gates]
        signs = [fits, -fits][:halves]
        return halves_of(self._cones + namespace_of(fits).concatenate(signs, axis=1), halves)

    def _take_in(self, block: Block, columns: Array) -> None:
        """Add a block of rows."""
        parts = [(*self.problem.slab(rows, np.float64), rows, sign) for rows, sign in block.slabs]
        for x, signs, _, sign in parts:
            product = self.problem.products.times(x, columns)
            self.residuals[0][block.targets] -= sign * self.problem.fit_of(product, signs)
        for x, signs, rows, sign in parts:
            self._add(x, signs, rows, [sign * residual[block.targets] for residual in self.residuals])

    def _add(self, x: Array, signs: Array, rows: slice, residuals: list[Array]) -> None:
        """Add X'D r and X'E mu of some rows."""
        gates, width = self.problem.shape[2], self._fits.shape[1]
        xp, has_cones = namespace_of(x), len(self.duals.s_nu) > 0
        right = xp.empty((len(x), width + has_cones * signs.shape[1]))
        active = signs[:, :gates] > 0.0
        for first, residual in zip(range(0, width, gates), residuals, strict=True):
            xp.multiply(active, residual[:, None], out=right[:, first : first + gates])
        if has_cones:
            xp.multiply(signs, self.duals.at(rows), out=right[:, width:])
        pulls = self.problem.products.back(x, right)
        self._fits += pulls[:, :width]
        if has_cones:
            self._cones += pulls[:, width:]
