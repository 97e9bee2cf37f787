"""From the convex program back to the two-layer network of eq. (1), ReLU or gated ReLU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coala_core.backend import Array, namespace_of, to_numpy
from coala_core.cvxnn.problem import column_norms, difference

BLOCK_ROWS = 8192  # whose responses are held at once


@dataclass(frozen=True, eq=False)
class Head:
    """The network g(x) = sum_j theta_2j max(Theta_1j . x + bias_j, 0) on raw embeddings.

    With gates a neuron is active where its gate is: 1[gate_j . x + gate_bias_j >= 0] (Theta_1j . x + bias_j).
    It may have no neurons; it then scores everything 0.

    Raises
    ------
    ValueError
        If the shapes of the arrays disagree.
    """

    first_weight: NDArray[np.float32]
    """Theta_1, (m, d), standardisation folded in."""
    first_bias: NDArray[np.float32]
    """Bias of the hidden layer, (m,)."""
    second_weight: NDArray[np.float32]
    """theta_2, (m,)."""
    gate_weight: NDArray[np.floating] | None = None
    """Gates of a gated network, (m, d), standardisation folded in; float64, for a rounded gate switches rows."""
    gate_bias: NDArray[np.floating] | None = None
    """Their biases, (m,)."""

    def __post_init__(self) -> None:
        """Check the shapes."""
        self._check_gates()
        neurons = self.first_weight.shape[:1]
        if self.first_weight.ndim != 2 or self.first_bias.shape != neurons or self.second_weight.shape != neurons:
            raise ValueError(
                "`Head(first_weight, first_bias, second_weight)` must have shapes (m, d), (m,), (m,), got "
                f"{self.first_weight.shape}, {self.first_bias.shape}, {self.second_weight.shape}; "
                "take all three from one head."
            )

    def _check_gates(self) -> None:
        """Refuse gates that are not one per neuron."""
        weight, bias = (None if part is None else part.shape for part in (self.gate_weight, self.gate_bias))
        expected = (self.first_weight.shape, self.first_bias.shape)
        if (weight, bias) not in ((None, None), expected):
            raise ValueError(
                f"`Head(gate_weight, gate_bias)` must have shapes {expected[0]}, {expected[1]} or both be left out, "
                f"got {weight}, {bias}; take all arrays from one head."
            )

    def hidden(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the hidden activations (n, m) of raw embeddings (n, d).

        Raises
        ------
        ValueError
            If the embeddings do not have d columns.
        """
        width = self.first_weight.shape[1]
        if embeddings.ndim != 2 or embeddings.shape[1] != width:
            raise ValueError(
                f"`Head.hidden(embeddings=...)` must have {width} columns, got shape {embeddings.shape}; "
                "embed with the settings that the head was fitted on."
            )
        # float64: raw embeddings hold a few huge dimensions, which the bias must cancel.
        x, weight = embeddings.astype(np.float64), self.first_weight.astype(np.float64)
        response = x @ weight.T + self.first_bias  # (n, m)
        gate = response if self.gate_weight is None else x @ self.gate_weight.T + self.gate_bias
        result: NDArray[np.float64] = np.where(gate >= 0.0, response, 0.0)
        return result

    def score(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the scores (n,) of raw embeddings (n, d), in memory for a block of rows.

        Raises
        ------
        ValueError
            If the embeddings do not have d columns.
        """
        second = self.second_weight.astype(np.float64)
        starts = range(0, max(len(embeddings), 1), BLOCK_ROWS)
        return np.concatenate([self.hidden(embeddings[start : start + BLOCK_ROWS]) @ second for start in starts])


def network_of(u: Array) -> tuple[Array, Array]:
    """Turn convex pairs into neurons (Pilanci & Ergen 2020, Theorem 1).

    Parameters
    ----------
    u : (2, d, P)
        v in u[0], w in u[1]. Zero columns drop out. A gated program has u[0] alone.

    Returns
    -------
    tuple of (d, m) and (m,)
        Theta_1' with columns v_i / sqrt||v_i|| and w_i / sqrt||w_i||, and theta_2 with sqrt||v_i|| and -sqrt||w_i||.
    """
    xp = namespace_of(u)
    halves, d, gates = u.shape
    columns = xp.moveaxis(u, 0, 1).reshape(d, halves * gates)  # every v, then every w
    norms = column_norms(u).reshape(-1)  # (2P,)
    signs = xp.repeat(xp.asarray([1.0, -1.0][:halves]), gates)
    alive = norms > 0.0
    roots = xp.sqrt(norms[alive])  # (m,)
    return columns[:, alive] / roots, signs[alive] * roots


def network_objective(
    features: Array,
    labels: Array,
    first: Array,
    second: Array,
    lasso_weight: float,
    *,
    paired: bool = False,
    active: Array | None = None,
) -> float:
    """Squared loss plus weight decay of the network, the non-convex objective of eq. (2).

    It equals the convex objective on the cones. Outside them it may be smaller than the optimum of the
    sampled program, so it is no upper bound.

    Parameters
    ----------
    features : (n, d), the features that the weights act on
    labels : (n,), or (n/2,) if paired
    first : (d, m)
    second : (m,)
    lasso_weight : float
        beta; the decay is beta/2 times all squared weights.
    paired : bool
        Whether the loss sees the difference of the rows i and n/2 + i.
    active : (n, m), optional
        0 and 1, where gates let a neuron through; by default where its pre-activation is positive.
    """
    xp = namespace_of(features)
    scores = xp.zeros(len(features))
    for start in range(0, len(features), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        response = features[rows].astype(xp.float64, copy=False) @ first  # (k, m)
        response *= response > 0.0 if active is None else active[rows]
        scores[rows] = response @ second
    misfit = (difference(scores) if paired else scores) - labels
    decay = float((first * first).sum() + (second * second).sum())
    return 0.5 * float(misfit @ misfit) + 0.5 * lasso_weight * decay


def head_of(
    weight: Array,
    bias: Array,
    second: Array,
    gates: tuple[Array, Array] | None = None,
) -> Head:
    """Store neurons on raw features, weight (m, d), bias (m,), second (m,), as a float32 head; gates in float64."""
    stored = np.ascontiguousarray(to_numpy(weight), dtype=np.float32)
    thresholds = [np.ascontiguousarray(to_numpy(part)) for part in gates or ()]
    return Head(stored, to_numpy(bias).astype(np.float32), to_numpy(second).astype(np.float32), *thresholds)
