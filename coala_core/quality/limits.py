"""Measures against their limits: what a measure above its limit means, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from coala_core.config import QualityConfig


class Verdict(NamedTuple):
    """One measure beside its limit."""

    limit_name: str
    """Setting that holds the limit."""
    measure: str
    """What is measured, in words."""
    value: float | None
    """Measured value; None where it could not be measured."""
    limit: float
    """Largest value that is kept."""
    kept: bool | None
    """Whether the value is at most the limit; None where there is no value."""
    advice: str
    """What a value above the limit means, and what to do."""


class _Rule(NamedTuple):
    limit_name: str
    measure: str
    value: Callable[[Mapping[str, Any]], float | None]
    advice: str


def verdicts(report: Mapping[str, Any], config: QualityConfig) -> list[Verdict]:
    """Compare the measures of a report with the limits of a configuration.

    Parameters
    ----------
    report : mapping
        Measures, of `coala_core.quality.assess`.
    config : QualityConfig
        Limits.
    """
    found = []
    for rule in _RULES:
        value, limit = rule.value(report), float(getattr(config, rule.limit_name))
        kept = None if value is None else value <= limit
        found.append(Verdict(rule.limit_name, rule.measure, value, limit, kept, rule.advice))
    return found


def _leak(report: Mapping[str, Any]) -> float | None:
    leaks = report["leaks"]
    return max(float(leaks[kind]["share"]) for kind in ("prompts", "responses")) if leaks else None


_RULES = (
    _Rule(
        "max_rejected_share",
        "rows rejected",
        lambda report: report["rows"]["rejected_share"],
        "Much of the file is not used and what remains may be a selection; mend the rows that rejects.jsonl names.",
    ),
    _Rule(
        "max_identical_share",
        "identical pairs",
        lambda report: report["size"]["identical_share"],
        "Such pairs teach nothing and cap the accuracy; set triplets.identical_pairs to reject.",
    ),
    _Rule(
        "max_near_duplicate_share",
        "near-duplicate responses",
        lambda report: report["near_duplicates"]["share"],
        "The set holds less than its size says, and splits share wording; remove repeated conversations, or group by "
        "what they have in common.",
    ),
    _Rule(
        "max_length_bias",
        "length bias, distance from one half",
        lambda report: abs(report["length_bias"]["longer_wins"] - 0.5),
        "A head can score well by length alone; compare with the baseline of that rule, or balance the lengths.",
    ),
    _Rule(
        "max_leak_share",
        "test texts seen in training",
        _leak,
        "Test accuracy will be too good; group by what such rows have in common, with triplets.group_by.",
    ),
    _Rule(
        "max_marker_share",
        "pairs with control tokens or active HTML",
        lambda report: report["markers"]["share"],
        "A model reads such texts as commands and a page may run them; clean them, or raise the limit where they are "
        "what is taught.",
    ),
)
