r"""Two-sided bounds on the optimum of eq. (4), from any point and any multipliers.

For r (n,) and mu >= 0 (2, n, P) let m = max_i (||g_i||, ||h_i||) with (g, h) = F'r + G'mu. Minimising the
Lagrangian over the residual and over each v_i, w_i shows that for every t in [0, beta/m]

    t r'y - t^2/2 ||r||^2  <=  optimum.

The upper bound is the convex objective at a point whose cone violation is reported beside it. Outside the
cones that objective can lie below the optimum, and the gap can cross zero by accident. With the optimal
multipliers, objective + mu'max(-G u, 0) is at least the optimum at every u; this price of the violation,
at the multipliers at hand, is what a stopping rule should add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.problem import Block, ConvexProblem, column_norms, columns_of, halves_of


@dataclass(frozen=True)
class Certificate:
    """What is proven about a point: bounds on the optimum and how far the point is outside the cones."""

    lower_bound: float
    """No point in the cones has a smaller objective."""
    upper_bound: float
    """Convex objective at the point."""
    cone_violation: float
    """Largest violation relative to the largest pre-activation."""
    violation_price: float = 0.0
    """mu'max(-G u, 0): what the violation is worth in the objective, to first order."""

    @property
    def priced_gap(self) -> float:
        """Relative gap with the price of the violation added to the upper bound."""
        return self.gap + self.violation_price / max(1.0, abs(self.upper_bound))

    @property
    def gap(self) -> float:
        """Relative gap (upper - lower) / max(1, |upper|); below zero only where the cones are violated."""
        return (self.upper_bound - self.lower_bound) / max(1.0, abs(self.upper_bound))


def lower_bound(lasso_weight: float, labels: Array, residual: Array, pull: Array) -> float:
    """Best dual value on the ray through (r, mu), scaled into the dual feasible set.

    Parameters
    ----------
    lasso_weight : float
        beta of eq. (4), above 0.
    labels : (n,)
        y.
    residual : (n,)
        r, near y - F u at the optimum.
    pull : (2, d, P)
        F'r + G'mu for some mu >= 0 (2, n, P); the caller vouches for the sign.

    Returns
    -------
    float
        A lower bound on the optimum, never below 0.
    """
    m = float(column_norms(pull).max())
    along, square = float(residual @ labels), float(residual @ residual)
    if square == 0.0 or along <= 0.0:
        return 0.0
    t = along / square if m * along <= lasso_weight * square else lasso_weight / m
    return t * along - 0.5 * t * t * square


@dataclass(frozen=True)
class Duals:
    """Multipliers mu = scale max(-z, 0) of the cones, from what the sweeps keep per row."""

    s_nu: Array
    """z, (n, halves P), or no rows where there are no cones."""
    scale: float
    """rho tau^2."""


def certify(
    problem: ConvexProblem, lasso_weight: float, point: Array, duals: Duals, candidate: Array | None = None
) -> tuple[Certificate, Array]:
    """Bound the optimum at a point, in float64 and in one pass over the rows.

    Parameters
    ----------
    problem : ConvexProblem
    lasso_weight : float
        beta of eq. (4), above 0.
    point : (halves, d, P)
        Gives the upper bound and, with its residual, a lower one.
    duals : Duals
    candidate : (halves, d, P), optional
        A point whose residual gives another lower bound; by default `point`.

    Returns
    -------
    certificate : Certificate
    fit : (m,)
        F of the candidate.
    """
    candidate = point if candidate is None else candidate
    look = _Look(problem, point, duals, candidate)
    for block in problem.blocks():
        look.take_in(block)
    at_point = lower_bound(lasso_weight, problem.labels, look.misfit[0], look.pull(0))
    at_candidate = lower_bound(lasso_weight, problem.labels, look.misfit[1], look.pull(1))
    proven = Certificate(
        lower_bound=max(at_point, at_candidate),
        upper_bound=0.5 * float(look.misfit[0] @ look.misfit[0]) + lasso_weight * float(column_norms(point).sum()),
        cone_violation=float(look.outside) / max(float(look.largest), 1e-300),
        violation_price=float(look.price),
    )
    return proven, problem.labels - look.misfit[1]


class _Look:
    """What a pass over the rows gathers about two points and the multipliers."""

    def __init__(self, problem: ConvexProblem, point: Array, duals: Duals, candidate: Array) -> None:
        xp, gates = namespace_of(point), problem.shape[2]
        self.problem, self.duals = problem, duals
        columns = columns_of(point)  # (d, c)
        self._alive = xp.flatnonzero((columns * columns).sum(axis=0))
        self._columns = xp.concatenate([columns[:, self._alive], columns_of(candidate)], axis=1)
        self.misfit = xp.stack([problem.labels, problem.labels])  # (2, m), of point and candidate
        self.outside, self.largest, self.price = xp.zeros(()), xp.zeros(()), xp.zeros(())
        self._cones = xp.zeros(columns.shape)  # G'mu, (d, c)
        self._fits = xp.zeros((columns.shape[0], 2 * gates))  # F~'r of both

    def pull(self, which: int) -> Array:
        """F'r + G'mu at the point (0) or the candidate (1), (halves, d, P)."""
        halves, gates = self.problem.halves, self.problem.shape[2]
        fits = self._fits[:, which * gates : (which + 1) * gates]
        signs = [fits, -fits][:halves]
        return halves_of(self._cones + namespace_of(fits).concatenate(signs, axis=1), halves)

    def take_in(self, block: Block) -> None:
        """Add a block of rows."""
        parts = [(*self.problem.slab(rows, np.float64), rows, sign) for rows, sign in block.slabs]
        for x, signs, rows, sign in parts:
            products = x @ self._columns
            at_point, at_candidate = products[:, : len(self._alive)], products[:, len(self._alive) :]
            self.misfit[0, block.targets] -= sign * self._fit(at_point, signs[:, self._alive], self._alive)
            self.misfit[1, block.targets] -= sign * self._fit(at_candidate, signs, slice(None))
            if len(self.duals.s_nu):
                self._measure(at_point, signs, rows)
        for x, signs, rows, sign in parts:
            self._add_pulls(x, signs, rows, sign * self.misfit[:, block.targets])

    def _fit(self, product: Array, signs: Array, columns: Array | slice) -> Array:
        """D_i X u_i summed over the gates, v minus w, (k,)."""
        shares = self.problem.column_shares[columns]
        fit: Array = product @ shares + (signs * product) @ shares
        return fit

    def _measure(self, product: Array, signs: Array, rows: slice) -> None:
        """Look how far the point is outside the cones, and what the multipliers charge for it."""
        xp = namespace_of(product)
        if product.size == 0:
            return
        self.largest = xp.maximum(self.largest, xp.abs(product).max())
        outside = xp.maximum(-(signs[:, self._alive] * product), 0.0)
        self.outside = xp.maximum(self.outside, outside.max())
        self.price = self.price + (self._multipliers(rows)[:, self._alive] * outside).sum()

    def _add_pulls(self, x: Array, signs: Array, rows: slice, misfit: Array) -> None:
        """Add X'E mu and X'D r of some rows."""
        xp, gates = namespace_of(x), self.problem.shape[2]
        active = 0.5 * (signs[:, :gates] + 1.0)
        right = [active * misfit[0][:, None], active * misfit[1][:, None]]
        if len(self.duals.s_nu):
            right.append(signs * self._multipliers(rows))
        pulls = x.T @ xp.concatenate(right, axis=1)
        self._fits += pulls[:, : 2 * gates]
        if len(self.duals.s_nu):
            self._cones += pulls[:, 2 * gates :]

    def _multipliers(self, rows: slice) -> Array:
        """Compute mu at some rows, (k, c)."""
        z = self.duals.s_nu[rows].astype(np.float64)
        multipliers: Array = (-self.duals.scale) * namespace_of(z).minimum(z, 0.0)
        return multipliers
