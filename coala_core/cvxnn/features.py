"""The door of Phase I: refuse bad features and labels, standardise good ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from coala_core.backend import Array, namespace_of, to_numpy

BLOCK_BYTES = 8 * 1024**2  # of features that are looked at together: more of them leave the nearest cache
DEVICE_BLOCK_BYTES = 512 * 1024**2  # the same on a device, where a block costs launches and room, and no cache is near
SMALLEST_SPREAD = 1e-30  # of a column that counts; one over less would overflow the head's float32


def check_types(features: Any, labels: Any, gates: Any, caller: str) -> None:
    """Refuse arrays whose type says that they are something else than features, labels and gates, if given.

    Raises
    ------
    ValueError
        If features are not floating-point numbers, or labels or gates are no real numbers.
    """
    allowed = {"features": "f", "labels": "fiu", "gates": "fiu"}
    for (name, kinds), given in zip(allowed.items(), (features, labels, gates), strict=True):
        dtype = np.dtype(np.float64) if given is None else _dtype_of(given)
        if dtype.kind not in kinds:
            wanted = "floating-point numbers" if kinds == "f" else "real numbers"
            raise ValueError(
                f"`{caller}({name}=...)` must hold {wanted}, got dtype {dtype}; "
                "convert it with `astype(np.float32)` if it means numbers."
            )


def _dtype_of(given: Any) -> np.dtype[Any]:
    """Type of the entries of an array of either library, or of what NumPy would make an array."""
    result: np.dtype[Any] = np.asarray(given).dtype if namespace_of(given) is np else given.dtype
    return result


def check_features(features: Array, labels: Array, caller: str) -> None:
    """Refuse data that Phase I cannot use, naming the public function `caller`.

    Raises
    ------
    ValueError
        If shapes disagree, a feature is not finite in float32, a label is not -1 or +1, or one class is absent.
    """
    shape = tuple(features.shape)
    if features.ndim != 2 or 0 in shape:
        raise ValueError(
            f"`{caller}(features=...)` must be a matrix of at least one row and one column, got shape {shape}; "
            "pass one row of features per response."
        )
    if tuple(labels.shape) != shape[:1]:
        raise ValueError(
            f"`{caller}(labels=...)` must hold one label per row of features, got shape {tuple(labels.shape)} "
            f"for {shape[0]} rows; pass a vector of that length."
        )
    values = [float(value) for value in np.unique(to_numpy(labels))]  # in order, NaN last
    if not set(values) <= {-1.0, 1.0}:
        shown = ", ".join(f"{value:g}" for value in values[:5])
        raise ValueError(
            f"`{caller}(labels=...)` must hold only -1 and +1, got {{{shown}}}; map rejected responses to -1."
        )
    if len(values) == 1:
        raise ValueError(
            f"`{caller}(labels=...)` must hold both classes, got only {values.pop():+g}; "
            "pass chosen and rejected responses together."
        )
    _check_finite(features, caller)


def check_pairs(labels: Array, caller: str) -> None:
    """Refuse labels (n,), known to be -1 and +1, that do not put the chosen response of every pair first.

    Raises
    ------
    ValueError
        If n is odd, or the labels are not n/2 times +1 and then n/2 times -1.
    """
    n = len(labels)
    if n % 2:
        raise ValueError(
            f"`{caller}(features=...)` must hold two rows a pair where `solve.rows` is pairwise, got {n} rows; "
            "pass as many rejected responses as chosen ones."
        )
    misplaced = to_numpy(labels) != np.repeat([1.0, -1.0], n // 2)
    if misplaced.any():
        raise ValueError(
            f"`{caller}(labels=...)` must be +1 in the first half and -1 in the second where `solve.rows` is "
            f"pairwise, got {int(misplaced.sum())} others, first in row {int(misplaced.argmax())}; "
            "stack all chosen responses, then the rejected ones in the same order."
        )


def _check_finite(features: Array, caller: str) -> None:
    """Refuse entries that float32, in which a head is stored, cannot hold."""
    count, first = 0, None
    for rows in row_blocks(features):
        block = features[rows]
        xp = namespace_of(block)
        bad = ~(xp.abs(block) <= np.finfo(np.float32).max)  # True for NaN
        here = int(bad.sum())
        if here and first is None:
            first = rows.start + int(to_numpy(bad.any(axis=1)).argmax())
        count += here
    if count:
        cause = "float16 overflows above 65504, use float32" if features.dtype == np.float16 else "check that stage"
        raise ValueError(
            f"`{caller}(features=...)` must be finite in float32, got {count} entries that are not, "
            f"first in row {first}; embed again: {cause}."
        )


def row_blocks(features: Array) -> Iterator[slice]:
    """Rows of features (n, d) in blocks of about `BLOCK_BYTES` as float64, on a device `DEVICE_BLOCK_BYTES`."""
    size = BLOCK_BYTES if namespace_of(features) is np else DEVICE_BLOCK_BYTES
    step = max(1, size // (8 * features.shape[1]))
    for start in range(0, len(features), step):
        yield slice(start, min(start + step, len(features)))


@dataclass(frozen=True, eq=False)
class Standardiser:
    """The affine map z = (x - mean) * inverse_scale, and a constant 1 after it for the bias."""

    mean: Array
    """Training means, (d,) float64."""
    inverse_scale: Array
    """One over the training standard deviations, (d,) float64; 0 for a constant column."""

    @property
    def constant_columns(self) -> int:
        """Columns that do not vary; they become zeros and carry nothing."""
        return int((self.inverse_scale == 0.0).sum())

    def apply(self, features: Array) -> Array:
        """Return prepared features (n, d + 1) float64 of raw features (n, d)."""
        xp, (n, d) = namespace_of(features), features.shape
        prepared: Array = xp.empty((n, d + 1))
        z = prepared[:, :-1]  # in place: copies of the features would take twice as long, and their room
        xp.subtract(features, self.mean, out=z)
        z *= self.inverse_scale
        prepared[:, -1] = 1.0
        return prepared

    def fold(self, weights: Array) -> tuple[Array, Array]:
        """Turn weights (d + 1, m) on prepared features into raw ones (m, d) and biases (m,)."""
        raw = weights[:-1] * self.inverse_scale[:, None]  # (d, m)
        return raw.T, weights[-1] - self.mean @ raw


def fit_standardiser(features: Array) -> Standardiser:
    """Measure mean and standard deviation of every column of features (n, d), block by block."""
    return fit_moments(features)[0]


def fit_moments(features: Array) -> tuple[Standardiser, Array]:
    """Measure a standardiser, and the Gram matrix of the centred features, (d, d), in two passes over the rows."""
    xp, (n, d) = namespace_of(features), features.shape
    total, largest = xp.zeros(d), xp.zeros(d)
    for rows in row_blocks(features):
        x = features[rows].astype(xp.float64)
        total += x.sum(axis=0)
        largest = xp.maximum(largest, xp.abs(x).max(axis=0))
    mean = total / n
    gram = xp.zeros((d, d))
    for rows in row_blocks(features):
        x = features[rows].astype(xp.float64) - mean
        gram += x.T @ x
    deviation = xp.sqrt(xp.maximum(gram.diagonal(), 0.0) / n)
    # Spread at the rounding of float32 is no information: such a column counts as constant.
    constant = deviation <= xp.maximum(np.finfo(np.float32).eps * largest, SMALLEST_SPREAD)
    inverse_scale = xp.where(constant, 0.0, 1.0 / xp.where(constant, 1.0, deviation))
    return Standardiser(mean, inverse_scale), gram
