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

from coala_core.backend import Array
from coala_core.cvxnn.looks import Duals, Look, Pull
from coala_core.cvxnn.problem import ConvexProblem, column_norms


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
    def relative_price(self) -> float:
        """Price of the violation, relative as the gap is."""
        return self.violation_price / max(1.0, abs(self.upper_bound))

    @property
    def priced_gap(self) -> float:
        """Relative gap with the price of the violation added to the upper bound."""
        return self.gap + self.relative_price

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


def measure(problem: ConvexProblem, lasso_weight: float, point: Array, duals: Duals) -> Certificate:
    """Look at a point alone, in float64 and in one pass over the rows: nothing is proven about the optimum.

    Parameters
    ----------
    problem : ConvexProblem
    lasso_weight : float
        beta of eq. (4), above 0.
    point : (halves, d, P)
    duals : Duals

    Returns
    -------
    Certificate
        Its lower bound is 0.
    """
    return _measured(Look(problem, point, duals), lasso_weight, point, 0.0)


def certify(
    problem: ConvexProblem, lasso_weight: float, point: Array, duals: Duals, fit: Array | None = None
) -> Certificate:
    """Bound the optimum at a point, in float64 and in two passes over the rows.

    Parameters
    ----------
    problem : ConvexProblem
    lasso_weight : float
        beta of eq. (4), above 0.
    point : (halves, d, P)
        Gives the upper bound and, with its columns stretched to suit the multipliers, a lower one.
    duals : Duals
    fit : (m,), optional
        F u at some other point, whose residual gives another lower bound. Any vector gives a valid one.

    Returns
    -------
    Certificate
    """
    look = Look(problem, point, duals)
    pull = Pull(problem, duals, look.stretched(lasso_weight), fit)
    bounds = [
        lower_bound(lasso_weight, problem.labels, residual, pull.of(which))
        for which, residual in enumerate(pull.residuals)
    ]
    return _measured(look, lasso_weight, point, max(bounds))


def _measured(look: Look, lasso_weight: float, point: Array, bound: float) -> Certificate:
    """Write down what a look has seen."""
    return Certificate(
        lower_bound=bound,
        upper_bound=0.5 * float(look.square) + lasso_weight * float(column_norms(point).sum()),
        cone_violation=float(look.outside) / max(float(look.largest), 1e-300),
        violation_price=float(look.price),
    )
