r"""The b-system by preconditioned conjugate gradients: nothing of size (dP)^2 or n^2 is formed.

A step costs two products of X with P columns. The preconditioner replaces the coupling by the product

    F~'F~  ~  Q (x) Lambda,     Lambda = X'X (diagonal),     Q_ij = trace(X'D_i Delta'Delta D_j X) / trace(X'X)

the best one of this form in Frobenius norm up to the shape of Lambda. For features that are symmetric about
the origin, E[1[x'h_i >= 0] 1[x'h_j >= 0] x x'] differs from Q_ij E[x x'] by a matrix of rank 2 only, which is why
this sees the coupling between gates where one block per gate does not. In the eigenvectors of Q and the principal
axes it is diagonal: it costs nothing to apply, P^2 numbers to hold, and nothing to follow the penalty.
Decision record 0006 has the counts against the other candidates.
"""

from __future__ import annotations

import math

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.problem import ConvexProblem
from coala_core.cvxnn.system import SQRT2, Iterate, Products, Schedule, cone_metric, conjugate_gradients, join, split

REFRESH_EVERY = 20  # solves after which F~'F~ b is computed afresh, so that rounding does not accumulate
ACCURACY = 0.2  # a solve's reduction of what the sweep changed: costs a few per cent of sweeps and saves half the steps


class KroneckerPreconditioner:
    """(I (x) H + (2/rho) Q (x) Lambda)^-1.

    Parameters
    ----------
    problem : ConvexProblem
    metric : (d, 1)
        Diagonal of H.
    """

    def __init__(self, problem: ConvexProblem, metric: Array) -> None:
        xp = namespace_of(problem.features)
        shares, self.rotation = xp.linalg.eigh(gate_overlaps(problem))  # (P,), (P, P)
        self.coupling = problem.spectrum[:, None] * xp.maximum(shares, 0.0)  # (d, P)
        self.metric, self.inverse = metric, xp.zeros_like(self.coupling)

    def refactor(self, penalty: float) -> None:
        """Follow the penalty."""
        self.inverse = 1.0 / (self.metric + (2.0 / penalty) * self.coupling)

    def apply(self, residual: Array) -> Array:
        """Return M^-1 residual, (d, P)."""
        result: Array = ((residual @ self.rotation) * self.inverse) @ self.rotation.T
        return result

    def length(self, residual: Array) -> float:
        """Return (residual' M^-1 residual)^(1/2): for M = A, the error in the metric of the u-update."""
        rotated = residual @ self.rotation
        return math.sqrt(float((rotated * rotated * self.inverse).sum()))


def gate_overlaps(problem: ConvexProblem) -> Array:
    """Q, (P, P): how much of the features' energy two gates share, after differences of pairs are taken."""
    xp, d = namespace_of(problem.features), problem.patterns
    energy = xp.einsum("nd,nd->n", problem.features, problem.features)
    overlaps = d.T @ (energy[:, None] * d)
    if problem.paired:
        half = len(d) // 2
        shared = xp.einsum("nd,nd->n", problem.features[:half], problem.features[half:])
        cross = d[:half].T @ (shared[:, None] * d[half:])
        overlaps = overlaps - cross - cross.T
    trace = float(problem.spectrum.sum())
    result: Array = overlaps / trace if trace > 0.0 else overlaps
    return result


class Pcg:
    """Conjugate gradients on the b-system, each solve starting from the last one's point.

    Parameters
    ----------
    problem : ConvexProblem
    cone_scale_squared : float
        tau^2.
    accuracy : float
        Reduction of the first residual that a solve asks for; see `Schedule`.
    """

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float, accuracy: float = ACCURACY) -> None:
        xp = namespace_of(problem.features)
        self.problem, self.metric = problem, cone_metric(problem, cone_scale_squared)
        self.preconditioner = KroneckerPreconditioner(problem, self.metric)
        self.f_y = SQRT2 * problem.predict_adjoint(problem.labels)  # (d, P)
        self.b = xp.zeros_like(self.f_y)
        self.image = xp.zeros_like(self.f_y)  # F~'F~ b
        self.products, self.schedule = Products(problem, accuracy), Schedule(accuracy)
        self.penalty, self.steps = math.nan, 0

    def refactor(self, penalty: float) -> None:
        """Follow the penalty, which costs no more than a step."""
        self.penalty = penalty
        self.preconditioner.refactor(penalty)
        self.schedule.restart()

    def solve(self, right: Array) -> Array:
        """Return u (2, d, P) for right (2, d, P); `steps` then says how many steps it took."""
        if self.schedule.solves % REFRESH_EVERY == 0:
            self.image = self.problem.predict_adjoint(self.problem.predict(self.b))
        r_a, r_b = split(right)
        r_b = r_b + self.f_y / self.penalty
        length = self.preconditioner.length
        residual = r_b - self._whole(self.b, self.image)
        target = self.schedule.target(length(residual), length(r_b))
        start = Iterate(self.b, self.image, residual, 0)
        end = conjugate_gradients(start, self.products.couple, self._whole, self.preconditioner.apply, length, target)
        self.b, self.image, self.steps = end.x, end.image, end.steps
        return join(r_a / self.metric, self.b)

    def _whole(self, b: Array, image: Array) -> Array:
        """Left side of the b-system from b and F~'F~ b."""
        whole: Array = self.metric * b + (2.0 / self.penalty) * image
        return whole
