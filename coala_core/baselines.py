"""Simple rivals of the head: the longer response, and a linear probe."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from coala_core.pairs import PairFeatures

PROBE_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of scikit-learn's C that the probe tries; smaller is more regularised."""

_PROBE_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Linear scores of standardised features, fitted on differences of pairs."""

    direction: NDArray[np.float64]
    """(d,) weights on raw features; the offset cancels in every pair and is left out."""
    strength: float
    """The C chosen."""
    validation_loss: float
    """Mean logistic loss on the validation pairs at that C."""

    def score(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score raw embeddings.

        Parameters
        ----------
        embeddings : (n, d) float32
            One row per response.

        Returns
        -------
        (n,) float64
            Scores, up to a constant.
        """
        return embeddings.astype(np.float64) @ self.direction


def fit_linear_probe(train: PairFeatures, validation: PairFeatures) -> LinearProbe:
    """Fit a logistic regression on differences of standardised features.

    It is fitted on chosen minus rejected, without an intercept, rather than on single
    responses with labels +1 and -1: this is the Bradley-Terry model, the linear
    counterpart of eq. (8) of Feng & Pilanci (2026). What separates it from the head is then
    the hidden layer, not the task; what all responses to a prompt share cancels.
    Each difference enters with both signs, which only makes it a two-class problem.

    The scale of each feature comes from the training responses, C from `PROBE_STRENGTHS`
    by the lowest logistic loss on the validation pairs, the smallest of equals. The fit is
    deterministic and does not depend on the order of the rows.

    Parameters
    ----------
    train, validation : PairFeatures
        Pairs to fit, and pairs to choose C with.

    Returns
    -------
    LinearProbe
        The best of the grid.
    """
    train, validation = train.sorted_by_id(), validation.sorted_by_id()
    scale = StandardScaler().fit(np.concatenate([train.chosen, train.rejected]).astype(np.float64)).scale_
    differences = _differences(train) / scale
    held_out = _differences(validation) / scale
    probes = []
    for strength in PROBE_STRENGTHS:
        direction = _logistic_direction(differences, strength)
        loss = float(np.logaddexp(0, -held_out @ direction).mean())
        probes.append(LinearProbe(direction / scale, strength, loss))
    return min(probes, key=lambda probe: (probe.validation_loss, probe.strength))


def _differences(pairs: PairFeatures) -> NDArray[np.float64]:
    """Chosen minus rejected features in float64, (n, d)."""
    return pairs.chosen.astype(np.float64) - pairs.rejected.astype(np.float64)


def _logistic_direction(differences: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """Weights of scikit-learn's logistic regression that ranks the differences above zero."""
    rows = np.concatenate([differences, -differences])
    labels = np.repeat([1, -1], len(differences))
    model = LogisticRegression(C=strength, fit_intercept=False, max_iter=_PROBE_ITERATIONS)
    with warnings.catch_warnings():
        # A fit stopped early is a valid candidate: the validation pairs judge it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, labels)
    return np.asarray(model.coef_[0], dtype=np.float64)
