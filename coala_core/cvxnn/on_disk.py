"""The convex program of features that are read block by block: memory holds blocks and what has no n.

X in the principal axes, the patterns and what a solve keeps per row go to files without a name (`coala_core.scratch`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coala_core.backend import Array
from coala_core.cvxnn.features import Standardiser, fit_moments, row_blocks
from coala_core.cvxnn.problem import ConvexProblem, gate_patterns
from coala_core.scratch import Scratch


@dataclass(frozen=True, eq=False)
class StandardisedRows:
    """Prepared features, computed anew from raw ones whenever they are read."""

    features: Array
    """Raw features, (n, d), anything that gives rows by slices."""
    standardiser: Standardiser
    """Of these features."""
    centred: Array
    """Gram matrix of the centred raw features, (d, d)."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, d + 1)."""
        n, d = self.features.shape
        return n, d + 1

    def gram(self) -> Array:
        """X'X, (d + 1, d + 1); centred columns are orthogonal to the constant."""
        n, k = self.shape
        scale, gram = self.standardiser.inverse_scale, np.zeros((k, k))
        gram[:-1, :-1] = scale[:, None] * self.centred * scale
        gram[-1, -1] = n
        return gram

    def product(self, directions: Array) -> Array:
        """X h, (n, c), for directions h (d + 1, c)."""
        result = np.empty((self.shape[0], directions.shape[1]))
        for rows in row_blocks(self.features):
            result[rows] = self.standardiser.apply(self.features[rows]) @ directions
        return result

    def correlation(self, labels: Array) -> Array:
        """X'y, (d + 1,), for labels y (n,)."""
        total = np.zeros(self.shape[1])
        for rows in row_blocks(self.features):
            total += self.standardiser.apply(self.features[rows]).T @ labels[rows].astype(np.float64)
        return total


def standardised_rows(features: Array) -> StandardisedRows:
    """Measure features (n, d) in two passes over their rows."""
    return StandardisedRows(features, *fit_moments(features))


def problem_on_disk(
    rows: StandardisedRows,
    labels: Array,
    directions: Array,
    scratch: Scratch,
    *,
    paired: bool = False,
    kind: type[ConvexProblem] = ConvexProblem,
) -> ConvexProblem:
    """Sample eq. (4) as `convex_problem` does, in one more pass over the rows, with X and the patterns on disk.

    X is rounded to float32 after its rotation; the program that is solved and certified is that of the rounded X.

    Parameters
    ----------
    rows : StandardisedRows
    labels : (n,), or (n/2,) if paired
        Targets y.
    directions : (d + 1, P)
        Gate directions, giving distinct patterns.
    scratch : Scratch
    paired, kind
        As `convex_problem`.

    Raises
    ------
    OSError
        If the disk has no room.
    """
    n, k = rows.shape
    spectrum, axes = np.linalg.eigh(rows.gram())
    features = scratch.array((n, k), np.float32)
    patterns = scratch.array((n, directions.shape[1]), np.float32)
    for part in row_blocks(rows.features):
        x = rows.standardiser.apply(rows.features[part])
        features[part] = x @ axes
        patterns[part] = gate_patterns(x, directions)
    return kind(
        features=features,
        labels=labels.astype(np.float64),
        patterns=patterns,
        spectrum=np.maximum(spectrum, 0.0),
        axes=axes,
        paired=paired,
        scratch=scratch,
    )
