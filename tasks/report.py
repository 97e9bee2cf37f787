"""The result of a run as rows, for the terminal, the Prefect page and a Markdown artifact alike."""

from __future__ import annotations

from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from coala_core.embed.shard_worker import describe_performance
from tasks.summary import RunSummary, StageRecord

LOCAL_MLFLOW = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers unless told otherwise."""

BASELINES = {
    "longer_response": "longer response wins",
    "linear_probe": "linear probe, same features",
    "phase_one_head": "head after Phase I",
}


_INERT = {ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_{}[]<>#|~"}


def result_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """List what came out, as (name, value)."""
    triplets, split, embed, solve, finetune, evaluate = (entry.report for entry in summary.stages.values())
    groups = split["groups"]
    share = f"{solve['share']:.3g} of the weight that gives the zero head"
    rows = [
        ("pairs", _pairs(triplets, split)),
        ("groups", f"{sum(groups.values())} (train {groups['train']}, validation {groups['validation']}, "
                   f"test {groups['test']})"),
        ("pairs with equal features", f"{embed['equal_feature_share']:.1%}"),
        ("tokens embedded", _tokens(summary.stages["embed"])),
        ("held-out accuracy", _accuracy(evaluate["head"], evaluate["confidence"])),
        *((f"  {label}", _accuracy(evaluate["baselines"][name], evaluate["confidence"]))
          for name, label in BASELINES.items()),
        ("reward margin, test", f"{evaluate['margins']['mean']:.3f} mean, {evaluate['margins']['median']:.3f} median"),
        ("probability margin, test", f"{evaluate['metrics']['probability_margin']:.3f}"),
        ("certified gap, Phase I", f"{abs(solve['gap']):.1e} after {solve['sweeps']} sweeps ({solve['status']}), "
                                   f"cone violation {solve['cone_violation']:.1e}"),
        ("group-lasso weight", f"{solve['lasso_weight']:.4g}, {share}; {solve['neurons']} neurons"),
        ("AdamW from the optimum, Phase II", _optimum(finetune)),
    ]  # fmt: skip
    return rows


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


def publish(summary: RunSummary) -> None:
    """Put the results on the page of the Prefect run: tables, Markdown, and a link to MLflow."""
    table = [{"result": name.strip(), "value": value} for name, value in result_rows(summary)]
    create_table_artifact(table, key="results", description=f"Results of {_escaped(summary.name)}")
    create_table_artifact(stage_rows(summary), key="stages", description="Stages and the folders of their artifacts")
    create_markdown_artifact(markdown(summary), key="report", description=f"Report of {_escaped(summary.name)}")
    if link := mlflow_link(summary):
        needs = None if summary.tracking_url else f"Start `mlflow ui --backend-store-uri {summary.tracking_uri}` first."
        create_link_artifact(link, link_text="this run in MLflow", key="mlflow-run", description=needs)


def mlflow_link(summary: RunSummary) -> str | None:
    """Address of the run's page in MLflow: on its server, or where `mlflow ui` shows a local database."""
    if summary.tracking_url or not summary.tracking_page:
        return summary.tracking_url
    return f"{LOCAL_MLFLOW}{summary.tracking_page}"


def markdown(summary: RunSummary) -> str:
    """Write the report as Markdown; names that come from data are escaped."""
    lines = [f"## {_escaped(summary.name)}", "", "| result | value |", "| --- | --- |"]
    lines += [f"| {_escaped(name.strip())} | {_escaped(value)} |" for name, value in result_rows(summary)]
    lines += ["", "| stage | seconds | digest |", "| --- | ---: | --- |"]
    lines += [f"| {row['stage']} | {row['seconds']} | `{row['digest']}` |" for row in stage_rows(summary)]
    tracked = summary.tracking_url or summary.tracking_uri
    waiting = f", {summary.pending} records pending" if summary.pending else ""
    lines += ["", f"Tracked in MLflow at `{tracked}`{waiting}."]
    return "\n".join(lines) + "\n"


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


def _escaped(text: str) -> str:
    """Make text inert in Markdown and HTML."""
    return " ".join(text.translate(_INERT).split())
