"""From the solutions at two weights to a start at the next: a line in the logarithm of the weight."""

from __future__ import annotations

import math

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.outcome import WarmStart
from coala_core.cvxnn.updates import shrink_columns

LONGEST_STEP = 2.0  # of the last change in log weight
_ROWS = 2**16  # of s + nu in one go: it may lie on disk


class Continuation:
    """Where the next weight of a falling path starts.

    The solution moves along with the logarithm of the weight, and so do the multipliers per unit of weight: two
    ends that are scaled with one penalty per unit of weight give a line that the next one lies near.
    """

    def __init__(self) -> None:
        self._older: tuple[float, WarmStart] | None = None
        self._newer: tuple[float, WarmStart] | None = None

    def add(self, lasso_weight: float, end: WarmStart) -> None:
        """Take the end of the solve at a weight."""
        self._older, self._newer = self._newer, (lasso_weight, end)

    def forget(self) -> None:
        """Start cold again, since the last end is of no use."""
        self._older = self._newer = None

    def start(self, lasso_weight: float) -> WarmStart | None:
        """Return where to start at a weight, None to start cold; the older of the two ends is used up."""
        if self._newer is None or self._older is None:
            return self._newer[1] if self._newer else None
        (before, older), (last, newer) = self._older, self._newer
        step = min(math.log(lasso_weight / last) / math.log(last / before), LONGEST_STEP)
        self._older = None
        return _extrapolated(older, newer, step)


def _extrapolated(older: WarmStart, newer: WarmStart, step: float) -> WarmStart:
    """Write newer + step (newer - older) over the older state, its duals scaled like the newer one's."""
    behind, ahead = older.state, newer.state
    scale = older.penalty_ratio / newer.penalty_ratio
    v = shrink_columns(behind.v_lam, 1.0 / older.penalty_ratio)
    behind.v_lam[...] = v + scale * (behind.v_lam - v)
    for first in range(0, len(behind.s_nu), _ROWS):
        rows = slice(first, first + _ROWS)
        behind.s_nu[rows] = _with_scaled_duals(behind.s_nu[rows], scale)
    for start, end in zip(behind, ahead, strict=True):
        for first in range(0, len(start), _ROWS):
            rows = slice(first, first + _ROWS)
            start[rows] = end[rows] + step * (end[rows] - start[rows])
    return WarmStart(behind, newer.penalty_ratio)


def _with_scaled_duals(s_nu: Array, scale: float) -> Array:
    """S + scale nu, given s + nu, of which s is the positive and nu the negative part."""
    scaled: Array = namespace_of(s_nu).where(s_nu < 0.0, s_nu * s_nu.dtype.type(scale), s_nu)
    return scaled
