r"""The gated-ReLU program: free-sign vectors behind fixed gates, and no cones.

    minimise_u  1/2 ||sum_i D_i X u_i - y||^2 + beta sum_i ||u_i||,     D_i = diag(1[X h_i >= 0])

Its network g(x) = sum_j 1[h_j . x >= 0] (Theta_1j . x) theta_2j keeps the gates (Mishkin, Sahiner & Pilanci 2022).
Every point is feasible, so its objective is an upper bound without reserve, and t r'y - t^2/2 ||r||^2 is a lower
one for every t in [0, beta/m], m = max_i ||X'D_i r||. Unknowns are one half, u (1, d, P), and G has no rows:
the sweeps, the certificate and the path of eq. (4) then apply as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.problem import ConvexProblem


@dataclass(frozen=True, eq=False)
class GatedProblem(ConvexProblem):
    """The same data as `ConvexProblem`, with one free vector per gate; build it with `convex_problem`."""

    halves: ClassVar[int] = 1

    @property
    def cone_rows(self) -> int:
        """Rows of one half of G: none."""
        return 0

    def apply_f(self, u: Array) -> Array:
        """F u = F~ u_0, the prediction (m,) of u (1, d, P)."""
        return self.predict(u[0])

    def apply_f_adjoint(self, residual: Array) -> Array:
        """F' r = F~' r, (1, d, P), of r (m,)."""
        return self.predict_adjoint(residual)[None]

    def apply_g(self, u: Array) -> Array:
        """G u, which is empty, (1, 0, P)."""
        return u[:, :0]

    def apply_g_adjoint(self, s: Array) -> Array:
        """G' s = 0, (1, d, P), of the empty s (1, 0, P)."""
        _, d, gates = self.shape
        zeros: Array = namespace_of(s).zeros((1, d, gates))
        return zeros

    def cone_violation(self, u: Array) -> float:
        """Return 0: there is no cone."""
        return 0.0
