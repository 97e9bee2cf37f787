"""Activation patterns: random hyperplanes, and hyperplanes around a linear probe.

Random gates sample eq. (3) as the paper does. On language model features a few gates around the
direction of a linear probe carry as much as many random ones, so some come from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from coala_core.backend import Array, asarray, namespace_of, to_numpy
from coala_core.config import SolveConfig

PROBE_RIDGE = 1.0  # in units of trace(X'X) / k
PROBE_SPREAD = 0.3  # size of a perturbation's pre-activations, relative to the probe's own
DRAWS_PER_GATE = 50  # candidates at most for one gate before its absence is reported

Directions: TypeAlias = NDArray[np.float64]
_Draw: TypeAlias = Callable[[int], Directions]


@runtime_checkable
class Rows(Protocol):
    """Prepared features, wherever they are: standardised, a constant 1 last."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, k)."""

    def product(self, directions: Array) -> Array:
        """X h, (n, c), for directions h (k, c) on the host."""

    def gram(self) -> Array:
        """X'X, (k, k)."""

    def correlation(self, labels: Array) -> Array:
        """X'y, (k,), for labels y (n,)."""


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Prepared features (n, k) as an array."""

    features: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, k)."""
        n, k = self.features.shape
        return n, k

    def product(self, directions: Array) -> Array:
        """X h, (n, c), for directions h (k, c) on the host."""
        xp = namespace_of(self.features)
        result: Array = self.features @ asarray(directions, xp, xp.float64)
        return result

    def gram(self) -> Array:
        """X'X, (k, k)."""
        result: Array = self.features.T @ self.features
        return result

    def correlation(self, labels: Array) -> Array:
        """X'y, (k,), for labels y (n,)."""
        xp = namespace_of(self.features)
        result: Array = self.features.T @ asarray(labels, xp, xp.float64)
        return result


class _Collector:
    """Keep the directions whose pattern has not been seen; the pattern with no active row is dead weight."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.seen = {np.packbits(np.zeros(rows.shape[0], dtype=bool)).tobytes()}
        self.directions: list[Directions] = []

    def offer(self, candidates: Directions, wanted: int) -> None:
        """Take from candidates (k, c), in order, until `wanted` directions are held."""
        patterns = to_numpy(self.rows.product(candidates) >= 0)
        for direction, pattern in zip(candidates.T, np.packbits(patterns, axis=0).T, strict=True):
            key = pattern.tobytes()
            if len(self.directions) < wanted and key not in self.seen:
                self.seen.add(key)
                self.directions.append(direction)


def sample_gates(features: Array | Rows, labels: Array, config: SolveConfig) -> Directions:
    """Draw gate directions with distinct patterns.

    Parameters
    ----------
    features : (n, k), NumPy or CuPy, or Rows
        Prepared features: standardised, a constant 1 last.
    labels : (n,)
        -1 or +1; the probe is the ridge regression on them.
    config : SolveConfig
        `gates` P, `probe_gates` of which lie around the probe (its direction, its negative, and perturbations
        of both in turn), and `seed`.

    Returns
    -------
    (k, P) float64, NumPy
        Directions h_i whose patterns 1[X h_i >= 0] differ and have an active row.

    Raises
    ------
    ValueError
        If P distinct patterns are not found.
    """
    rng = np.random.default_rng(config.seed)
    rows: Rows = features if isinstance(features, Rows) else ArrayRows(features)
    found = _Collector(rows)
    probe = _probe_direction(rows, labels)
    if config.probe_gates and probe.any():
        found.offer(np.stack([probe, -probe], axis=1), config.probe_gates)
        _offer_until(found, config.probe_gates, lambda count: _near_probe(rows, probe, rng, count))
    n, k = rows.shape
    drawn = _offer_until(found, config.gates, lambda count: rng.standard_normal((k, count)))
    if len(found.directions) < config.gates:
        raise ValueError(
            f"`sample_gates` must find {config.gates} distinct activation patterns, found {len(found.directions)} "
            f"in {drawn} random draws on {n} rows; lower `solve.gates`."
        )
    return np.stack(found.directions, axis=1)


def check_gates(rows: Rows, directions: Array, caller: str) -> None:
    """Refuse gate directions (k, P) that do not fit prepared features (n, k) or repeat a pattern.

    Raises
    ------
    ValueError
        If the shape is wrong, an entry is not finite, or two directions give the same pattern.
    """
    xp = namespace_of(directions)
    shape, k = tuple(directions.shape), rows.shape[1]
    if len(shape) != 2 or shape[0] != k or shape[1] == 0:
        raise ValueError(
            f"`{caller}(gates=...)` must hold one direction per column with {k} entries, the last for the bias, "
            f"got shape {shape}; pass what `sample_gates` returns."
        )
    if not bool(xp.isfinite(directions).all()):
        raise ValueError(f"`{caller}(gates=...)` must be finite, got NaN or infinity; draw the directions again.")
    patterns = to_numpy(rows.product(to_numpy(directions)) >= 0)
    distinct = len({column.tobytes() for column in np.packbits(patterns, axis=0).T})
    if distinct < shape[1]:
        raise ValueError(
            f"`{caller}(gates=...)` must give distinct activation patterns, got {distinct} from {shape[1]} "
            "directions; drop the repeated ones."
        )


def _probe_direction(rows: Rows, labels: Array) -> Directions:
    """Ridge regression of the labels on the features, (k,), in closed form."""
    gram = rows.gram()  # (k, k)
    xp, k = namespace_of(gram), len(gram)
    ridge = PROBE_RIDGE * float(xp.trace(gram)) / k
    probe = xp.linalg.solve(gram + ridge * xp.eye(k), rows.correlation(labels))
    return to_numpy(probe)


def _near_probe(rows: Rows, probe: Directions, rng: np.random.Generator, count: int) -> Directions:
    """Perturbed probes (k, count), of alternating sign."""
    noise = rng.standard_normal((len(probe), count))
    moved = rows.product(np.column_stack([noise, probe]))  # (n, count + 1)
    lengths = to_numpy(namespace_of(moved).linalg.norm(moved, axis=0))
    noise *= PROBE_SPREAD * lengths[-1] / np.maximum(lengths[:-1], 1e-300)
    signs = 1.0 - 2.0 * (np.arange(count) % 2)
    result: Directions = signs * probe[:, None] + noise
    return result


def _offer_until(found: _Collector, wanted: int, draw: _Draw) -> int:
    """Offer drawn candidates until `wanted` are held or the draws run out; return how many were drawn."""
    missing = wanted - len(found.directions)
    drawn, limit = 0, DRAWS_PER_GATE * missing
    while len(found.directions) < wanted and drawn < limit:
        count = max(wanted - len(found.directions), 8)
        found.offer(draw(count), wanted)
        drawn += count
    return drawn
