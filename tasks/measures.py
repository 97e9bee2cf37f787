"""What runs are compared by: one name for one quantity, whatever the run did.

A parent run has these metrics; a stage that did not run leaves its own out. The runs of the stages have their
reports in the stages' own words, curves in the names of TRL's trainers, and ``test/...`` where a head was scored.

==========================  =====================================================================================
metric                      meaning
==========================  =====================================================================================
``test/accuracy``           share of held-out pairs that the head orders rightly, ties one half
``test/accuracy_low``,      Wilson interval of it
``test/accuracy_high``
``test/group_low``,         bootstrap interval of it over whole groups
``test/group_high``
``test/pairs``,             size of the test split, and pairs with equal scores
``test/groups``,
``test/ties``
``test/reward_margin``      mean of beta (h_w - h_l)
``test/probability_margin`` mean of sigma(h_w - h_l)
``lead/NAME``,              accuracy of the head minus that of a baseline (longer_response, linear_probe,
``lead/NAME_low``,          phase_one_head), with its bootstrap interval over whole groups
``lead/NAME_high``
``baseline/NAME``           accuracy of that baseline
``validation/accuracy``,    share of validation pairs with h_w > h_l, and loss, at the epoch that was kept
``validation/loss``
``solve/gap``,              certified relative gap of Phase I, sweeps of the chosen weight, neurons, weight,
``solve/sweeps`` ...        cone violation
``finetune/kept_epoch``     epoch of Phase II that was kept
``embed/tokens``,           tokens of all rows, share of pairs with equal features
``embed/equal_features``
``data/pairs``,             pairs, conversations, rows that were not used
``data/conversations``,
``data/rejected_rows``
``seconds/STAGE``           what computing the stage took, also where it was reused
==========================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
Metrics = dict[str, float]

_SOLVE = ("gap", "sweeps", "neurons", "lasso_weight", "cone_violation")


def compared_metrics(reports: Mapping[str, Report], seconds: Mapping[str, float]) -> Metrics:
    """Collect the metrics of a parent run.

    Parameters
    ----------
    reports : mapping of str to mapping
        Report of each stage that the run has.
    seconds : mapping of str to float
        Wall-clock time of each.
    """
    metrics: Metrics = {}
    for stage, read in _READERS.items():
        if stage in reports:
            metrics |= _known(read(reports[stage]))
    return metrics | {f"seconds/{stage}": value for stage, value in seconds.items()}


def head_metrics(evaluation: Report, baseline: str | None = None) -> Metrics:
    """Metrics of one head on the test pairs: the tuned one, or a baseline that is a head too.

    Parameters
    ----------
    evaluation : mapping
        Report of the stage ``evaluate``.
    baseline : str, optional
        ``phase_one_head`` for the head before Phase II.
    """
    verdict = evaluation["head"] if baseline is None else evaluation["baselines"][baseline]
    low_high = _ends(verdict["wilson"], "test/accuracy") | _ends(verdict.get("group_bootstrap"), "test/group")
    counts = {"test/accuracy": verdict["accuracy"], "test/ties": verdict["ties"], "test/pairs": verdict.get("pairs")}
    return _known(counts | low_high)


def _evaluate(report: Report) -> Report:
    """Metrics of the verdict."""
    metrics: dict[str, Any] = {
        **head_metrics(report),
        "test/groups": report.get("groups"),
        "test/reward_margin": report["margins"]["mean"],
        "test/probability_margin": report["metrics"]["probability_margin"],
    }
    for name, verdict in report["baselines"].items():
        metrics |= {f"baseline/{name}": verdict["accuracy"], f"lead/{name}": verdict.get("lead")}
        metrics |= _ends(verdict.get("lead_interval"), f"lead/{name}")
    return metrics


def _solve(report: Report) -> Report:
    return {f"solve/{name}": report.get(name) for name in _SOLVE}


def _finetune(report: Report) -> Report:
    return {
        "finetune/kept_epoch": report.get("kept_epoch"),
        "validation/loss": report.get("eval_loss"),
        "validation/accuracy": report.get("eval_rewards/accuracies"),
    }


def _embed(report: Report) -> Report:
    return {"embed/tokens": report.get("tokens"), "embed/equal_features": report.get("equal_feature_share")}


def _triplets(report: Report) -> Report:
    return {
        "data/pairs": report.get("triplets"),
        "data/conversations": report.get("conversations"),
        "data/rejected_rows": report.get("rows_rejected"),
    }


_READERS = {
    "triplets": _triplets,
    "embed": _embed,
    "solve": _solve,
    "finetune": _finetune,
    "evaluate": _evaluate,
}


def _ends(interval: Sequence[float] | None, name: str) -> dict[str, Any]:
    """Both ends of an interval, nothing where there is none."""
    return {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def _known(values: Report) -> Metrics:
    """Numbers, without what a stage could not say."""
    return {name: float(value) for name, value in values.items() if value is not None}
