"""The verdict on a head: accuracy, margins and rivals on pairs that nothing was chosen with."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from coala_core.baselines import fit_linear_probe
from coala_core.config import EvaluateConfig
from coala_core.cvxnn.network import Head
from coala_core.metrics import (
    Interval,
    MarginSummary,
    PairAccuracy,
    group_bootstrap_interval,
    margin_summary,
    pair_accuracy,
    pair_metrics,
    pair_outcomes,
    wilson_interval,
)
from coala_core.pairs import PairFeatures, require_same_width, require_separate_groups
from coala_core.progress import Progress, silent

FloatArray = NDArray[np.float64]
Scores = tuple[FloatArray, FloatArray]

LONGER_RESPONSE = "longer_response"
LINEAR_PROBE = "linear_probe"
PHASE_ONE_HEAD = "phase_one_head"


@dataclass(frozen=True)
class Verdict:
    """Accuracy of one scorer on the test pairs, with intervals."""

    accuracy: PairAccuracy
    """Share of pairs ordered correctly, ties one half."""
    wilson: Interval
    """Wilson interval, which takes pairs as independent."""
    group_bootstrap: Interval | None
    """Bootstrap interval over whole groups; None where the test split has one group."""

    def report(self) -> dict[str, object]:
        """Return the verdict as plain JSON values."""
        return {
            **asdict(self.accuracy),
            "wilson": list(self.wilson),
            "group_bootstrap": _listed(self.group_bootstrap),
        }


@dataclass(frozen=True)
class Baseline:
    """A rival's verdict, and how far the head is ahead of it on the same pairs."""

    verdict: Verdict
    """The rival's accuracy."""
    lead: float
    """Accuracy of the head minus that of the rival."""
    lead_interval: Interval | None
    """Bootstrap interval of `lead` over whole groups, paired; None where there is one group."""

    def report(self) -> dict[str, object]:
        """Return the comparison as plain JSON values."""
        return {**self.verdict.report(), "lead": self.lead, "lead_interval": _listed(self.lead_interval)}


@dataclass(frozen=True)
class PairScore:
    """One test pair as the head sees it."""

    pair_id: str
    """Name of the pair."""
    group: str
    """Group of the pair."""
    chosen_score: float
    """h_w."""
    rejected_score: float
    """h_l."""
    margin: float
    """Reward margin, beta (h_w - h_l)."""


@dataclass(frozen=True)
class Evaluation:
    """All results of the test split."""

    beta: float
    """Reward scale of the margins."""
    confidence: float
    """Coverage of every interval."""
    groups: int
    """Distinct groups among the test pairs."""
    head: Verdict
    """The tuned head."""
    metrics: dict[str, float]
    """`pair_metrics` of the tuned head: rewards under TRL's names, and the probability margin."""
    margins: MarginSummary
    """Reward margins of the tuned head."""
    baselines: dict[str, Baseline]
    """`LONGER_RESPONSE`, `LINEAR_PROBE` and `PHASE_ONE_HEAD`."""
    probe_strength: float
    """C of the linear probe, chosen on the validation pairs."""
    pairs: tuple[PairScore, ...]
    """One entry per test pair, in the order of their ids."""

    def report(self) -> dict[str, object]:
        """Return everything but the pairs as plain JSON values."""
        return {
            "beta": self.beta,
            "confidence": self.confidence,
            "groups": self.groups,
            "head": self.head.report(),
            "metrics": dict(self.metrics),
            "margins": asdict(self.margins),
            "baselines": {name: baseline.report() for name, baseline in self.baselines.items()},
            "probe_strength": self.probe_strength,
        }

    def table(self) -> list[dict[str, object]]:
        """Return the pairs as plain rows, for a table or a histogram of margins."""
        return [asdict(pair) for pair in self.pairs]


def evaluate_head(
    head: Head,
    phase_one_head: Head,
    train: PairFeatures,
    validation: PairFeatures,
    test: PairFeatures,
    config: EvaluateConfig,
    beta: float,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the test pairs with a head and with three baselines.

    The baselines answer three doubts. Does the longer response win as often (characters,
    ties one half)? Does a linear probe do as well (see `fit_linear_probe`)? Did Phase II
    add anything to Phase I? Test pairs enter scores and intervals only: the probe is fitted on
    `train` and its strength chosen on `validation`.

    Parameters
    ----------
    head, phase_one_head : Head
        Head after Phase II, and the head it started from.
    train, validation, test : PairFeatures
        The three splits; no group in two of them.
    config : EvaluateConfig
        Coverage, and resamples and seed of the bootstrap.
    beta : float, above 0
        Reward scale of Phase II, for the reward margins.
    progress : Progress, optional
        Called after each scorer with unit "scorers".

    Returns
    -------
    Evaluation
        Verdicts, margins and the scored test pairs.

    Raises
    ------
    ValueError
        If widths disagree, splits share a group, or beta is not above 0.
    """
    splits = {"train": train, "validation": validation, "test": test}
    require_same_width("evaluate_head", head.first_weight.shape[1], **splits)
    require_same_width("evaluate_head", phase_one_head.first_weight.shape[1], **splits)
    require_separate_groups("evaluate_head", **splits)
    test = test.sorted_by_id()
    listener = progress or silent
    chosen, rejected = _head_scores(head, test)
    metrics = pair_metrics(chosen, rejected, beta)
    verdict = _verdict((chosen, rejected), test, config)
    listener(1, 4, "scorers")
    probe = fit_linear_probe(train, validation)
    rivals: dict[str, Scores] = {
        LONGER_RESPONSE: (test.chosen_length.astype(np.float64), test.rejected_length.astype(np.float64)),
        LINEAR_PROBE: (probe.score(test.chosen), probe.score(test.rejected)),
        PHASE_ONE_HEAD: _head_scores(phase_one_head, test),
    }
    baselines = {}
    for done, (name, scores) in enumerate(rivals.items(), start=2):
        baselines[name] = _baseline((chosen, rejected), scores, test, config)
        listener(done, 4, "scorers")
    return Evaluation(
        beta=beta,
        confidence=config.confidence,
        groups=len(set(test.groups)),
        head=verdict,
        metrics=metrics,
        margins=margin_summary(beta * (chosen - rejected)),
        baselines=baselines,
        probe_strength=probe.strength,
        pairs=_pair_scores(test, chosen, rejected, beta),
    )


def _head_scores(head: Head, pairs: PairFeatures) -> Scores:
    """Scores of both responses."""
    return head.score(pairs.chosen), head.score(pairs.rejected)


def _verdict(scores: Scores, test: PairFeatures, config: EvaluateConfig) -> Verdict:
    """Accuracy of one scorer with its two intervals."""
    accuracy = pair_accuracy(*scores)
    return Verdict(
        accuracy=accuracy,
        wilson=wilson_interval(accuracy.successes, accuracy.pairs, config.confidence),
        group_bootstrap=_group_interval(pair_outcomes(*scores), test, config),
    )


def _baseline(head_scores: Scores, rival_scores: Scores, test: PairFeatures, config: EvaluateConfig) -> Baseline:
    """Verdict on a rival, and the head's lead over it pair by pair."""
    leads = pair_outcomes(*head_scores) - pair_outcomes(*rival_scores)
    return Baseline(
        verdict=_verdict(rival_scores, test, config),
        lead=float(leads.mean()),
        lead_interval=_group_interval(leads, test, config),
    )


def _group_interval(outcomes: FloatArray, test: PairFeatures, config: EvaluateConfig) -> Interval | None:
    """Bootstrap interval over the test groups, where there are two or more."""
    if len(set(test.groups)) < 2:
        return None
    return group_bootstrap_interval(outcomes, test.groups, config.confidence, config.resamples, config.seed)


def _pair_scores(test: PairFeatures, chosen: FloatArray, rejected: FloatArray, beta: float) -> tuple[PairScore, ...]:
    """Rows of the table of scores."""
    margins = beta * (chosen - rejected)
    rows = zip(test.pair_ids, test.groups, chosen, rejected, margins, strict=True)
    return tuple(PairScore(name, group, float(w), float(low), float(m)) for name, group, w, low, m in rows)


def _listed(interval: Interval | None) -> list[float] | None:
    """Interval as JSON writes it."""
    return None if interval is None else list(interval)
