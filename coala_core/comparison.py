"""Is one head better than another on the same pairs, by more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from coala_core.metrics import Interval, group_bootstrap_interval


@dataclass(frozen=True)
class Comparison:
    """A head against a rival on the same pairs, or against guessing."""

    lead: float
    """Accuracy minus that of the rival, or minus one half; ties count one half."""
    interval: Interval | None
    """Bootstrap interval of `lead` over whole groups; None where groups are too few for one."""
    won: int
    """Pairs on which it does better."""
    lost: int
    """Pairs on which it does worse."""
    pairs: int
    """All pairs."""
    groups: int
    """Distinct groups among them."""
    confidence: float
    """Coverage of the interval."""

    @property
    def better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval is not None and self.interval[0] > 0.0


def compare_paired(
    outcomes: ArrayLike,
    rival: ArrayLike | None,
    groups: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare two scorers pair by pair, resampling whole groups.

    No interval is given where the groups are so few that all of them agreeing would still happen by chance more
    often than the interval may miss: g groups need 2^-g <= (1 - confidence) / 2, six at 95 per cent.

    Parameters
    ----------
    outcomes : (n,) array_like
        `metrics.pair_outcomes` of the scorer: 1, 1/2 or 0.
    rival : (n,) array_like, optional
        The same of the rival, in the same order; None compares with guessing, one half everywhere.
    groups : sequence of str, n
        Group of each pair.
    confidence : float, inside (0, 1)
        Coverage.
    resamples : int, at least 1
        Number of resamples.
    seed : int
        Seed of the draws.

    Raises
    ------
    ValueError
        If the vectors do not have one entry per group label, or a number is out of range.
    """
    mine = np.asarray(outcomes, dtype=np.float64)
    theirs = np.full(mine.shape, 0.5) if rival is None else np.asarray(rival, dtype=np.float64)
    if mine.ndim != 1 or not mine.size or mine.shape != theirs.shape or len(groups) != len(mine):
        raise ValueError(
            "`compare_paired(outcomes, rival, groups)` must hold one entry per pair, at least 1, got shapes "
            f"{mine.shape}, {theirs.shape} and {len(groups)} groups; take all three from the same pairs."
        )
    leads, distinct = mine - theirs, len(set(groups))
    enough = distinct >= fewest_groups(confidence)
    return Comparison(
        lead=float(leads.mean()),
        interval=group_bootstrap_interval(leads, groups, confidence, resamples, seed) if enough else None,
        won=int((leads > 0).sum()),
        lost=int((leads < 0).sum()),
        pairs=len(leads),
        groups=distinct,
        confidence=confidence,
    )


def fewest_groups(confidence: float) -> int:
    """Fewest groups that can tell a lead from chance at this confidence.

    >>> fewest_groups(0.95), fewest_groups(0.99)
    (6, 8)
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"`fewest_groups(confidence=...)` must lie inside (0, 1), got {confidence}; use 0.95 for 95 per cent."
        )
    return max(2, math.ceil(math.log2(2 / (1 - confidence))))
