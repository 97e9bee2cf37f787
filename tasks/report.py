"""What a run leaves on its Prefect page: tables, a report in Markdown, and a link to MLflow."""

from __future__ import annotations

import os
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from tasks.results import result_rows, stage_rows
from tasks.summary import RunSummary

LOCAL_MLFLOW = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers unless told otherwise."""

_INERT = {ord(sign): f"&#{ord(sign)};" for sign in "&\\`*_{}[]<>#|~"}


def publish(summary: RunSummary) -> None:
    """Put the results on the page of the Prefect run: tables, Markdown, and a link to MLflow."""
    table = [{"result": name.strip(), "value": value} for name, value in result_rows(summary)]
    create_table_artifact(table, key="results", description=f"Results of {_escaped(summary.name)}")
    create_table_artifact(stage_rows(summary), key="stages", description="Stages and the folders of their artifacts")
    create_markdown_artifact(markdown(summary), key="report", description=f"Report of {_escaped(summary.name)}")
    if "quality" in summary.stages:
        _publish_quality(summary.stages["quality"].path)
    if link := mlflow_link(summary):
        needs = None if summary.tracking_url else f"Start `mlflow ui --backend-store-uri {summary.tracking_uri}` first."
        create_link_artifact(link, link_text="this run in MLflow", key="mlflow-run", description=needs)


def mlflow_link(summary: RunSummary) -> str | None:
    """Address of the run's page in MLflow: on its server, or where `mlflow ui` shows a local database.

    COALA_MLFLOW_URL is where people's browsers find the server, if that is not where this process does.
    """
    if (public := os.environ.get("COALA_MLFLOW_URL")) and summary.tracking_page:
        return f"{public.rstrip('/')}{summary.tracking_page}"
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


def _publish_quality(folder: Path) -> None:
    """Show the report on the pairs; its pictures are in MLflow and in the artifact's folder."""
    from coala_core.stages.quality import page

    create_markdown_artifact(page(folder), key="quality", description="What the pairs are like")


def _escaped(text: str) -> str:
    """Make text inert in Markdown and HTML."""
    return " ".join(text.translate(_INERT).split())
