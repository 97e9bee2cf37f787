"""Accuracy, margins and intervals of scored preference pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]

_DRAWS_PER_BLOCK = 1_000_000  # bounds the memory of a bootstrap over many groups


@dataclass(frozen=True)
class PairAccuracy:
    """Share of pairs whose chosen response scores higher; a tie counts one half."""

    accuracy: float
    """(wins + ties / 2) / pairs, from 0 to 1."""
    successes: float
    """wins + ties / 2."""
    ties: int
    """Pairs with equal scores."""
    pairs: int
    """All pairs, n."""


@dataclass(frozen=True)
class MarginSummary:
    """Five numbers that describe a sample of margins."""

    mean: float
    """Arithmetic mean."""
    std: float
    """Standard deviation with divisor n."""
    min: float
    """Smallest margin."""
    median: float
    """Middle margin; the mean of the two middle ones for even n."""
    max: float
    """Largest margin."""


def pair_metrics(chosen_scores: ArrayLike, rejected_scores: ArrayLike, beta: float) -> dict[str, float]:
    """Compute reward metrics of scored pairs, under the names TRL's trainers log.

    Rewards are beta h, which is eq. (7) of Feng & Pilanci (2026) with scores for log-probabilities.

    Parameters
    ----------
    chosen_scores, rejected_scores : (n,) array_like
        Scores h_w and h_l of the two responses of each pair.
    beta : float, above 0
        Reward scale.

    Returns
    -------
    dict
        ``rewards/chosen``, ``rewards/rejected``: mean rewards. ``rewards/margins``, with
        ``rewards/margins_min`` and ``rewards/margins_max``: beta (h_w - h_l), mean and
        extremes. ``rewards/accuracies``: share of pairs with h_w > h_l; as in TRL a tie counts
        as a miss, unlike in `pair_accuracy`. ``probability_margin``: mean of
        sigma(h_w - h_l), in [0, 1], the margin that the paper plots; it has no beta.

    Raises
    ------
    ValueError
        If the scores are not two vectors of one length, or beta is not above 0.
    """
    chosen, rejected = _paired("pair_metrics", chosen_scores, rejected_scores)
    if not beta > 0:
        raise ValueError(f"`pair_metrics(beta=...)` must be above 0, got {beta}; use the `finetune.beta` of the head.")
    differences = chosen - rejected
    return {
        "rewards/chosen": float(beta * chosen.mean()),
        "rewards/rejected": float(beta * rejected.mean()),
        "rewards/margins": float(beta * differences.mean()),
        "rewards/margins_min": float(beta * differences.min()),
        "rewards/margins_max": float(beta * differences.max()),
        "rewards/accuracies": float((differences > 0).mean()),
        "probability_margin": float(expit(differences).mean()),
    }


def pair_outcomes(chosen_scores: ArrayLike, rejected_scores: ArrayLike) -> NDArray[np.float64]:
    """Score each pair 1 where the chosen response scores higher, 1/2 at a tie, 0 otherwise.

    Parameters
    ----------
    chosen_scores, rejected_scores : (n,) array_like
        Scores of the two responses of each pair, on any scale.

    Returns
    -------
    (n,) float64
        0, 1/2 or 1.

    Raises
    ------
    ValueError
        If the scores are not two vectors of one length.
    """
    chosen, rejected = _paired("pair_outcomes", chosen_scores, rejected_scores)
    return (np.sign(chosen - rejected) + 1) / 2


def pair_accuracy(chosen_scores: ArrayLike, rejected_scores: ArrayLike) -> PairAccuracy:
    """Count the pairs whose chosen response scores higher, ties as one half.

    Parameters
    ----------
    chosen_scores, rejected_scores : (n,) array_like
        Scores of the two responses of each pair, on any scale.

    Returns
    -------
    PairAccuracy
        Accuracy with the number of ties in it.

    Raises
    ------
    ValueError
        If the scores are not two vectors of one length.
    """
    outcomes = pair_outcomes(chosen_scores, rejected_scores)
    return PairAccuracy(
        accuracy=float(outcomes.mean()),
        successes=float(outcomes.sum()),
        ties=int((outcomes == 0.5).sum()),
        pairs=len(outcomes),
    )


def margin_summary(margins: ArrayLike) -> MarginSummary:
    """Summarise a sample of margins.

    Parameters
    ----------
    margins : (n,) array_like, n at least 1
        Differences of rewards or of scores.

    Raises
    ------
    ValueError
        If `margins` is not a non-empty vector.
    """
    values = np.asarray(margins, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"`margin_summary(margins=...)` must be a non-empty vector, got shape {values.shape}; "
            "pass one margin per pair."
        )
    return MarginSummary(
        mean=float(values.mean()),
        std=float(values.std()),
        min=float(values.min()),
        median=float(np.median(values)),
        max=float(values.max()),
    )


def wilson_interval(successes: float, n: int, confidence: float) -> Interval:
    """Wilson score interval of a proportion, which stays inside [0, 1] at any count.

    The interval takes the n trials as independent; for pairs that share conversations
    see `group_bootstrap_interval`.

    Parameters
    ----------
    successes : float, 0 to n
        Successes; a fraction arises from ties counted one half.
    n : int, at least 1
        Trials.
    confidence : float, inside (0, 1)
        Coverage.

    Returns
    -------
    (float, float)
        Lower and upper end.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(
            f"`wilson_interval(successes=..., n=...)` must satisfy 0 <= successes <= n and n >= 1, "
            f"got {successes} and {n}; count successes among the trials."
        )
    _require_confidence("wilson_interval", confidence)
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return float(low), float(high)


def group_bootstrap_interval(
    outcomes: ArrayLike, groups: Sequence[str], confidence: float, resamples: int, seed: int
) -> Interval:
    """Percentile bootstrap interval of a mean, resampling whole groups.

    Each resample draws as many groups as there are, with replacement, and takes the mean
    over all rows of the drawn groups. Rows of one conversation are thus never treated
    as independent.

    Parameters
    ----------
    outcomes : (n,) array_like
        One value per row: 0, 1/2 or 1 for an accuracy, differences of those for a comparison.
    groups : sequence of str, n
        Group of each row; at least two distinct ones.
    confidence : float, inside (0, 1)
        Coverage.
    resamples : int, at least 1
        Number of resamples.
    seed : int
        Seed of the draws.

    Returns
    -------
    (float, float)
        Lower and upper end.

    Raises
    ------
    ValueError
        If rows and groups disagree, there are fewer than two groups, or a number is out of range.
    """
    values = np.asarray(outcomes, dtype=np.float64)
    if values.shape != (len(groups),):
        raise ValueError(
            f"`group_bootstrap_interval(groups=...)` must name one group per outcome, "
            f"got {len(groups)} for shape {values.shape}; build both from the same rows."
        )
    names, membership = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2 or resamples < 1:
        raise ValueError(
            f"`group_bootstrap_interval` must have at least 2 groups and 1 resample, "
            f"got {len(names)} and {resamples}; use `wilson_interval` for a single group."
        )
    _require_confidence("group_bootstrap_interval", confidence)
    sums = np.bincount(membership, weights=values).astype(np.float64)
    means = _resampled_means(sums, np.bincount(membership), resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.int64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Means over resampled groups, from the sum and the size of each group."""
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS_PER_BLOCK // len(sums))
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = rng.integers(len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def _paired(
    call: str, chosen_scores: ArrayLike, rejected_scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both vectors of scores in float64, or an error in the name of `call`."""
    chosen = np.asarray(chosen_scores, dtype=np.float64)
    rejected = np.asarray(rejected_scores, dtype=np.float64)
    if chosen.ndim != 1 or chosen.shape != rejected.shape or not chosen.size:
        raise ValueError(
            f"`{call}(chosen_scores=..., rejected_scores=...)` must be two vectors of one length, at least 1, "
            f"got shapes {chosen.shape} and {rejected.shape}; score both responses of each pair."
        )
    return chosen, rejected


def _require_confidence(call: str, confidence: float) -> None:
    """Refuse a coverage outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(
            f"`{call}(confidence=...)` must lie inside (0, 1), got {confidence}; use 0.95 for 95 per cent."
        )
