r"""The sampled convex program of eq. (4) and its operators F and G.

    minimise_{v,w}  1/2 ||sum_i D_i X (v_i - w_i) - y||^2 + beta sum_i (||v_i|| + ||w_i||)
    subject to      E_i X v_i >= 0,  E_i X w_i >= 0,     D_i = diag(1[X h_i >= 0]),  E_i = 2 D_i - I

A pair (v, w) is one array u (2, d, P) with u[0] = v and u[1] = w. Neither F nor G is ever formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from coala_core.backend import Array, asarray, namespace_of


@dataclass(frozen=True, eq=False)
class ConvexProblem:
    """Data of the sampled program, in the principal axes of the features.

    Rotating X and every v_i, w_i by the eigenvectors of X'X changes neither a prediction, nor a norm,
    nor a cone, and it makes X'X diagonal: H = I + tau^2 X'X is then inverted entry by entry.
    Build it with `convex_problem`.
    """

    features: Array
    """X, (n, d) float64, in the principal axes."""
    labels: Array
    """y, (n,) float64."""
    patterns: Array
    """Diagonals of the D_i, (n, P) float64 of 0 and 1."""
    spectrum: Array
    """Eigenvalues of X'X, (d,)."""
    axes: Array
    """Orthonormal Q, (k, d), from principal axes to the k features as they came."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (n, d, P)."""
        return (*self.features.shape, self.patterns.shape[1])

    @cached_property
    def signs(self) -> Array:
        """Diagonals of the E_i = 2 D_i - I, (n, P)."""
        signs: Array = 2.0 * self.patterns - 1.0
        return signs

    def apply_f(self, u: Array) -> Array:
        """F u = sum_i D_i X (v_i - w_i), the prediction (n,) of u (2, d, P)."""
        prediction: Array = (self.patterns * (self.features @ (u[0] - u[1]))).sum(axis=1)
        return prediction

    def apply_f_adjoint(self, residual: Array) -> Array:
        """F' r: the pair (X'D_i r, -X'D_i r), (2, d, P), of r (n,)."""
        g = self.features.T @ (self.patterns * residual[:, None])  # (d, P)
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


def column_norms(u: Array) -> Array:
    """Euclidean norms ||v_i||, ||w_i||, (2, P), of u (2, d, P)."""
    norms: Array = namespace_of(u).sqrt((u * u).sum(axis=1))
    return norms


def gate_patterns(features: Array, directions: Array) -> Array:
    """1[X h_i >= 0], (n, P) booleans, of prepared features (n, k) and gate directions h (k, P)."""
    result: Array = features @ directions >= 0
    return result


def convex_problem(features: Array, labels: Array, directions: Array) -> ConvexProblem:
    """Sample eq. (4) at the given gates and rotate it to the principal axes.

    Parameters
    ----------
    features : (n, k), NumPy or CuPy
        Prepared features, used as they are; a column of ones is the bias. Finite.
    labels : (n,)
        Targets y; the solver uses no more than that they are finite.
    directions : (k, P)
        Gate directions h_i, giving distinct patterns.

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
    return ConvexProblem(
        features=xp.ascontiguousarray(rotated),
        labels=asarray(labels, xp, xp.float64),
        patterns=patterns,
        spectrum=spectrum,
        axes=axes,
    )
