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
    def priced_gap(self) -> float:
        """Relative gap with the price of the violation added to the upper bound."""
        return self.gap + self.violation_price / max(1.0, abs(self.upper_bound))

    @property
    def gap(self) -> float:
        """Relative gap (upper - lower) / max(1, |upper|); below zero only where the cones are violated."""
        return (self.upper_bound - self.lower_bound) / max(1.0, abs(self.upper_bound))


def lower_bound(problem: ConvexProblem, lasso_weight: float, residual: Array, pull: Array) -> float:
    """Best dual value on the ray through (r, mu), scaled into the dual feasible set.

    Parameters
    ----------
    problem : ConvexProblem
    lasso_weight : float
        beta of eq. (4), above 0.
    residual : (n,)
        r, near y - F u at the optimum.
    pull : (2, d, P)
        G'mu for some mu >= 0 (2, n, P); the caller vouches for the sign.

    Returns
    -------
    float
        A lower bound on the optimum, never below 0.
    """
    m = float(column_norms(problem.apply_f_adjoint(residual) + pull).max())
    along, square = float(residual @ problem.labels), float(residual @ residual)
    if square == 0.0 or along <= 0.0:
        return 0.0
    t = along / square if m * along <= lasso_weight * square else lasso_weight / m
    return t * along - 0.5 * t * t * square


def certify(problem: ConvexProblem, lasso_weight: float, u: Array, multipliers: Array) -> Certificate:
    """Bound the optimum at the point u (2, d, P) with multipliers mu >= 0 (2, n, P)."""
    residual = problem.labels - problem.apply_f(u)
    outside = (-problem.apply_g(u)).clip(min=0.0)  # (2, n, P)
    return Certificate(
        lower_bound=lower_bound(problem, lasso_weight, residual, problem.apply_g_adjoint(multipliers)),
        upper_bound=0.5 * float(residual @ residual) + lasso_weight * float(column_norms(u).sum()),
        cone_violation=problem.cone_violation(u),
        violation_price=float((multipliers * outside).sum()),
    )
