"""The point that a solve would return now: the best that its checks have seen."""

from __future__ import annotations

from dataclasses import replace

from coala_core.backend import Array, namespace_of
from coala_core.config import SolveConfig
from coala_core.cvxnn.certificate import Certificate
from coala_core.cvxnn.problem import ConvexProblem


class Best:
    """Hold the best checked point, from the zero head on, and the best lower bound.

    Of points whose cone violation is acceptable the best has the lowest objective plus price of its violation:
    without the price a point slightly outside the cones could beat the optimum. A point with a larger violation
    is held only as long as there is nothing but the zero head besides.
    """

    def __init__(self, problem: ConvexProblem, like: Array, config: SolveConfig) -> None:
        y = problem.labels
        self._config = config
        self._zero = namespace_of(like).zeros_like(like)
        self._zero_objective = 0.5 * float(y @ y)
        self.point: Array = self._zero
        self.certificate = Certificate(0.0, self._zero_objective, 0.0)

    def offer(self, point: Array, certificate: Certificate) -> bool:
        """Take in a finite checked point and its lower bound; tell whether what is held now is proven well enough."""
        lower = max(self.certificate.lower_bound, certificate.lower_bound)
        held = self.point, replace(self.certificate, lower_bound=lower)
        new = point, replace(certificate, lower_bound=lower)
        zero = self._zero, Certificate(lower, self._zero_objective, 0.0)
        is_better_than_zero = certificate.upper_bound < self._zero_objective
        candidates = [new, held, zero] if is_better_than_zero else [held, zero]
        proven = [candidate for candidate in candidates if self.shortfall(candidate[1]) <= 1.0]
        if proven:
            self.point, self.certificate = proven[0]
        elif is_better_than_zero and (self.point is self._zero or self._rank(new[1]) < self._rank(held[1])):
            self.point, self.certificate = new
        else:
            self.point, self.certificate = held
        return bool(proven)

    def _rank(self, proven: Certificate) -> tuple[bool, float]:
        """Order of preference, the smaller the better: acceptable violation first, priced objective second."""
        outside = proven.cone_violation > self._config.max_cone_violation
        return outside, proven.upper_bound + proven.violation_price

    def shortfall(self, proven: Certificate) -> float:
        """How many times as large as its tolerance the worse of gap and violation is: at most 1 where both are met."""
        return max(self.gap_shortfall(proven), proven.cone_violation / self._config.max_cone_violation)

    def gap_shortfall(self, proven: Certificate) -> float:
        """How many times as large as its tolerance the gap is, the price of the violation included."""
        # A point outside the cones can lie below the optimum: the price of that counts as well.
        return max(abs(proven.gap), abs(proven.priced_gap)) / self._config.tolerance
