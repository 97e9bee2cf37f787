"""Whether length or place alone tells which response is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coala_core.metrics import pair_accuracy, pair_outcomes, wilson_interval
from coala_core.quality.batches import Ints
from coala_core.quality.numbers import PairNumbers

CONFIDENCE = 0.95
LAST_TURN = 12
"""Later turns are counted together."""


def length_bias(chosen: ArrayLike, rejected: ArrayLike, groups: ArrayLike) -> dict[str, Any]:
    """Measure how well the longer response can be taken for the chosen one.

    Parameters
    ----------
    chosen, rejected : (n,) array-like of int
        Characters of the two responses, n at least 1.
    groups : (n,) array-like of int
        Number of the group of each pair, from 0.

    Returns
    -------
    dict
        ``longer_share``, ``shorter_share``, ``equal_share`` of pairs, by the chosen response; ``longer_wins`` and
        ``shorter_wins``, the accuracies of these rules with ties as one half; ``wilson``, a 95 % Wilson interval of
        the former, for ``effective_pairs`` in place of n, since pairs of one group are not independent;
        ``mean_log_ratio``, mean of ln(chosen / rejected), and ``typical_ratio``, its exponential.
    """
    ours, theirs = np.asarray(chosen), np.asarray(rejected)
    outcomes = pair_outcomes(ours, theirs)
    accuracy = pair_accuracy(ours, theirs)
    pairs = effective_pairs(outcomes, np.asarray(groups))
    low, high = wilson_interval(accuracy.accuracy * pairs, pairs, CONFIDENCE)
    mean_log_ratio = float(np.mean(np.log(np.maximum(ours, 1) / np.maximum(theirs, 1))))
    return {
        "longer_share": float((outcomes == 1).mean()),
        "shorter_share": float((outcomes == 0).mean()),
        "equal_share": float((outcomes == 0.5).mean()),
        "longer_wins": accuracy.accuracy,
        "shorter_wins": 1 - accuracy.accuracy,
        "wilson": [low, high],
        "effective_pairs": pairs,
        "mean_log_ratio": mean_log_ratio,
        "typical_ratio": float(np.exp(mean_log_ratio)),
    }


def effective_pairs(outcomes: NDArray[np.float64], groups: Ints) -> int:
    """Independent pairs that would give the mean of clustered ones the same variance; at most n, at least 1.

    The variance of a mean over whole groups, sum_g (S_g - p n_g)^2 / n^2, is set against that of independent
    outcomes. Where it says nothing, as all outcomes are alike, every group counts once.

    Parameters
    ----------
    outcomes : (n,) float64
        0, 1/2 or 1.
    groups : (n,) int
        Number of the group of each, from 0.
    """
    mean, count = outcomes.mean(), len(outcomes)
    clustered = float(np.sum(np.bincount(groups, weights=outcomes - mean) ** 2)) / count**2
    independent = float(np.mean((outcomes - mean) ** 2)) / count
    if independent == 0:
        return int(np.count_nonzero(np.bincount(groups)))
    return max(1, min(count, round(count * independent / clustered))) if clustered > 0 else count


def by_turn(numbers: PairNumbers) -> list[dict[str, Any]]:
    """Describe the pairs of each turn: their number, mean characters of both responses, how often the longer wins.

    Turns from `LAST_TURN` on are one row, marked ``and_later``.
    """
    chosen, rejected = numbers.characters["chosen"], numbers.characters["rejected"]
    outcomes = pair_outcomes(chosen, rejected)
    rows = []
    for turn in np.unique(np.minimum(numbers.turn, LAST_TURN)).tolist():
        here = numbers.turn >= turn if turn == LAST_TURN else numbers.turn == turn
        rows.append(
            {
                "turn": turn,
                "and_later": bool(turn == LAST_TURN and numbers.turn.max() > LAST_TURN),
                "pairs": int(here.sum()),
                "chosen_characters": float(chosen[here].mean()),
                "rejected_characters": float(rejected[here].mean()),
                "longer_wins": float(outcomes[here].mean()),
                "wilson": list(wilson_interval(float(outcomes[here].sum()), int(here.sum()), CONFIDENCE)),
            }
        )
    return rows


def length_by_turn(turns: Sequence[Mapping[str, Any]]) -> float:
    """Accuracy of going by length, in each turn in the direction that is right more often there; at least one half.

    Parameters
    ----------
    turns : sequence of rows
        Of `by_turn`, at least one.
    """
    right = sum(row["pairs"] * max(row["longer_wins"], 1 - row["longer_wins"]) for row in turns)
    return float(right / sum(row["pairs"] for row in turns))


def by_position(numbers: PairNumbers) -> list[dict[str, Any]]:
    """Describe the replies at each place in a conversation, of pairs that alternating population made.

    A reply counts once for each pair that it is in; places after `LAST_TURN` are left out. ``chosen_share`` is how
    often a reply at that place is the chosen one, ``characters`` their mean length.
    """
    chosen, rejected = (np.minimum(places, LAST_TURN + 1) for places in (numbers.turn, numbers.later))
    size = LAST_TURN + 2
    counts = np.bincount(chosen, minlength=size), np.bincount(rejected, minlength=size)
    characters = np.bincount(chosen, weights=numbers.characters["chosen"], minlength=size)
    characters += np.bincount(rejected, weights=numbers.characters["rejected"], minlength=size)
    return [
        {
            "position": place,
            "chosen": int(ours),
            "rejected": int(theirs),
            "chosen_share": float(ours / (ours + theirs)),
            "characters": float(characters[place] / (ours + theirs)),
        }
        for place, (ours, theirs) in enumerate(zip(*counts, strict=True))
        if 1 <= place <= LAST_TURN and ours + theirs
    ]
