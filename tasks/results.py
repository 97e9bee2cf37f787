"""The result of a run as rows, the same for the terminal, the Prefect page and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from coala_core.embed.shard_worker import describe_performance
from tasks.summary import RunSummary, StageRecord

BASELINES = {
    "longer_response": "longer response wins",
    "linear_probe": "linear probe, same features",
    "phase_one_head": "head after Phase I",
}

Rows = list[tuple[str, str]]


def result_rows(summary: RunSummary) -> Rows:
    """List what came out of the stages that ran, as (name, value)."""
    return [row for rows in _ROWS if rows.stages <= summary.stages.keys() for row in rows.of(summary.stages)]


def stage_rows(summary: RunSummary) -> list[dict[str, str]]:
    """Where the time went, a row a stage."""
    return [
        {
            "stage": entry.stage,
            "seconds": "reused" if entry.reused else f"{entry.seconds:.1f}",
            "digest": entry.sha256[:12],
            "folder": str(entry.path),
        }
        for entry in summary.stages.values()
    ]


def _conversations(stages: Mapping[str, StageRecord]) -> Rows:
    """Rows on what two agents wrote."""
    generate, triplets = stages["generate"].report, stages["triplets"].report
    reasons = ", ".join(f"{count} {reason}" for reason, count in generate["rejected_by_reason"].items())
    finished = f"{generate['finished']} of {generate['conversations']}"
    return [
        ("conversations", f"{finished} ({reasons})" if reasons else finished),
        ("tokens", f"{generate['prompt_tokens']:,} read, {generate['completion_tokens']:,} written"),
        ("pairs", f"{triplets['triplets']}"),
    ]


def _data(stages: Mapping[str, StageRecord]) -> Rows:
    """Rows on pairs and groups."""
    triplets, split = stages["triplets"].report, stages["split"].report
    groups = split["groups"]
    shares = f"train {groups['train']}, validation {groups['validation']}, test {groups['test']}"
    return [("pairs", _pairs(triplets, split)), ("groups", f"{sum(groups.values())} ({shares})")]


def _quality(stages: Mapping[str, StageRecord]) -> Rows:
    """Row on the limits of the report on the pairs."""
    exceeded = stages["quality"].report["exceeded"]
    return [("limits of the quality report", f"exceeded: {', '.join(exceeded)}" if exceeded else "all kept")]


def _features(stages: Mapping[str, StageRecord]) -> Rows:
    """Rows on the embedding."""
    embed = stages["embed"]
    return [
        ("pairs with equal features", f"{embed.report['equal_feature_share']:.1%}"),
        ("tokens embedded", _tokens(embed)),
    ]


def _verdict(stages: Mapping[str, StageRecord]) -> Rows:
    """Rows on the test split."""
    evaluate = stages["evaluate"].report
    confidence, margins = evaluate["confidence"], evaluate["margins"]
    baselines = [
        (f"  {label}", _accuracy(evaluate["baselines"][name], confidence)) for name, label in BASELINES.items()
    ]
    return [
        ("held-out accuracy", _accuracy(evaluate["head"], confidence)),
        *baselines,
        ("reward margin, test", f"{margins['mean']:.3f} mean, {margins['median']:.3f} median"),
        ("probability margin, test", f"{evaluate['metrics']['probability_margin']:.3f}"),
    ]


def _certificate(stages: Mapping[str, StageRecord]) -> Rows:
    """Rows on Phase I."""
    solve = stages["solve"].report
    share = f"{solve['share']:.3g} of the weight that gives the zero head"
    proven = f"{abs(solve['gap']):.1e} after {solve['sweeps']} sweeps ({solve['status']})"
    return [
        ("certified gap, Phase I", f"{proven}, cone violation {solve['cone_violation']:.1e}"),
        ("group-lasso weight", f"{solve['lasso_weight']:.4g}, {share}; {solve['neurons']} neurons"),
    ]


def _tuning(stages: Mapping[str, StageRecord]) -> Rows:
    """Rows on Phase II."""
    return [("AdamW from the optimum, Phase II", _optimum(stages["finetune"].report))]


class _Part:
    """Rows that need the reports of some stages."""

    def __init__(self, stages: Iterable[str], of: Callable[[Mapping[str, StageRecord]], Rows]) -> None:
        self.stages, self.of = frozenset(stages), of


_ROWS = (
    _Part(["generate", "triplets"], _conversations),
    _Part(["triplets", "split"], _data),
    _Part(["quality"], _quality),
    _Part(["embed"], _features),
    _Part(["evaluate"], _verdict),
    _Part(["solve"], _certificate),
    _Part(["finetune"], _tuning),
)


def _pairs(triplets: dict[str, Any], split: dict[str, Any]) -> str:
    pairs = split["pairs"]
    text = (
        f"{triplets['triplets']} (train {pairs['train']}, validation {pairs['validation']}, test {pairs['test']}) "
        f"from {triplets['conversations']} conversations"
    )
    rejects = triplets["rows_rejected"]
    return text + (f", {rejects} rows rejected" if rejects else "")


def _tokens(embed: StageRecord) -> str:
    """Say how many tokens the language model computed in this run, how fast, and of how many."""
    if not embed.performance.get("computed_tokens"):
        return f"none computed; all {embed.report['tokens']:,} were stored"
    return describe_performance(embed.performance)


def _accuracy(verdict: dict[str, Any], confidence: float) -> str:
    low, high = verdict["wilson"]
    ties = f", {verdict['ties']} ties" if verdict["ties"] else ""
    return f"{verdict['accuracy']:.3f}  [{low:.3f}, {high:.3f}] at {confidence:.0%}{ties}"


def _optimum(finetune: dict[str, Any]) -> str:
    kept = f"epoch {finetune['kept_epoch']} kept for its validation loss"
    if finetune["relative_gap"] is None:
        return f"no finite optimum ({finetune['optimum_status']}), {kept}"
    return f"{finetune['relative_gap']:.1e} relative after the last epoch; {kept}"
