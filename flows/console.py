"""What the terminal shows: progress bars, the result table, and the commands to look further."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from coala_core.embed.reuse import Explanation
from coala_core.feature_cache import SpaceUsage
from coala_core.progress import Progress as Listener
from coala_core.storage import Artifact
from tasks.compared import ComparedHead, comparison_table
from tasks.doctor import Check
from tasks.report import LOCAL_MLFLOW, mlflow_link
from tasks.results import result_rows, stage_rows
from tasks.summary import RunSummary
from tasks.sweep import SweepResult, sweep_table

# A folder's name may hold what rich takes for an emoji.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

_COLOURS = {"ok": "green", "note": "cyan", "problem": "red"}


@contextmanager
def progress_bar(stage: str) -> Iterator[Listener]:
    """Give a listener that draws a bar on a terminal; where there is none, nothing is drawn."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        row = bar.add_task(stage, total=None)

        def listen(done: int, total: int, what: str) -> None:
            bar.update(row, completed=done, total=total, description=f"{stage}, {what}")

        yield listen


def show_artifact(artifact: Artifact) -> None:
    """Print a stage's report and the folder to give to the next stage."""
    table = Table(title=f"{artifact.stage} {artifact.key[:8]}", title_justify="left", show_header=False, box=None)
    for name, value in (artifact.report | artifact.timing.get("performance", {})).items():
        table.add_row(name, _plain(value))
    err.print(table)
    out.print(str(artifact.path), markup=False)


def show_summary(summary: RunSummary) -> None:
    """Print the one table of a run, and the two commands that open it in Prefect and MLflow."""
    table = Table(title=summary.name, title_justify="left", header_style="bold")
    table.add_column("result")
    table.add_column("value")
    for name, value in result_rows(summary):
        table.add_row(name, _plain(value))
    table.add_section()
    for row in stage_rows(summary):
        table.add_row(f"seconds, {row['stage']}", row["seconds"])
    out.print(table)
    out.print("Results:", markup=False)
    out.print(f"  {list(summary.stages.values())[-1].path}", markup=False)
    out.print("Open what this run did:", markup=False)
    out.print(f"  {prefect_command()}", markup=False)
    out.print(f"  {mlflow_command(summary)}", markup=False)
    if summary.pending:
        out.print(f"{summary.pending} tracking records wait for MLflow; `coala replay` delivers them.", markup=False)


def show_comparison(heads: Sequence[ComparedHead]) -> None:
    """Print heads beside the first one."""
    _show_rows("heads on the same test pairs, beside the first", comparison_table(heads))


def show_sweep(result: SweepResult) -> None:
    """Print the runs of a sweep, the best first."""
    _show_rows("sweep, by validation loss", sweep_table(result))


def _show_rows(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of the same columns."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_plain, row.values()))
    out.print(table)


def prefect_command() -> str:
    """Give the command, or the address, that shows the flow run in the Prefect UI."""
    if api := os.environ.get("PREFECT_API_URL"):
        return f"Prefect: {api.removesuffix('/api')}"
    home = os.environ.get("PREFECT_HOME")
    setting = f"PREFECT_HOME={shlex.quote(home)} " if home else ""
    return f"{setting}{_program('prefect')} server start    # then http://127.0.0.1:4200/runs"


def mlflow_command(summary: RunSummary) -> str:
    """Give the command, or the address, that shows the run in the MLflow UI."""
    if summary.tracking_url:
        return f"MLflow: {summary.tracking_url}"
    uri = shlex.quote(summary.tracking_uri)
    setting = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false "
    page = mlflow_link(summary) or LOCAL_MLFLOW
    return f"{setting}{_program('mlflow')} ui --backend-store-uri {uri}    # then {page}"


def show_checks(checks: list[Check]) -> None:
    """Print the doctor's findings, problems with what to do about them."""
    table = Table(title="coala doctor", title_justify="left", header_style="bold")
    for column in ("check", "", "finding", "what to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        colour = _COLOURS[check.status]
        table.add_row(check.name, f"[{colour}]{check.status}[/{colour}]", _plain(check.finding), _plain(check.remedy))
    Console(highlight=False).print(table)


def show_explanation(explanation: Explanation) -> None:
    """Print what the stage ``embed`` would reuse, shard by shard, and why it would compute the rest."""
    reused = sum(shard.served for shard in explanation.reused)
    out.print(
        f"{explanation.pairs:,} pairs, {explanation.texts:,} different: {reused:,} stored, "
        f"{explanation.to_embed:,} to embed. Cache {explanation.cache}, space {explanation.space}.",
        markup=False,
    )
    if explanation.finished:
        out.print("The artifact is finished and intact: the stage would reuse it whole.", markup=False)
    table = Table(header_style="bold")
    table.add_column("pairs", justify="right")
    table.add_column("reused")
    table.add_column("why", overflow="fold")
    for shard in explanation.reused:
        table.add_row(f"{shard.served:,}", "yes", f"{shard.shard}, which holds {shard.rows:,}")
    for reason, pairs in explanation.reasons.items():
        table.add_row(f"{pairs:,}", "no", _plain(reason))
    out.print(table)
    for name, reason in explanation.damaged.items():
        out.print(f"{name}: {reason}", markup=False)


def show_cache(label: str, spaces: Sequence[SpaceUsage]) -> None:
    """Print the spaces of a feature cache."""
    out.print(f"Features in {label}:", markup=False)
    table = Table(header_style="bold", box=None)
    for column in ("space", "model and settings", "columns"):
        table.add_column(column, no_wrap=column == "space", overflow="fold")
    for column in ("shards", "pairs", "MB"):
        table.add_column(column, justify="right")
    for space in spaces:
        shown = {name: value for name, value in space.identity.items() if name not in ("model", "model_fingerprint")}
        settings = [f"{name} {value}" for name, value in sorted(shown.items())]
        table.add_row(
            space.key,
            _plain("\n".join([str(space.identity.get("model", "unknown")), *settings])),
            _plain("\n".join(space.columns)),
            f"{space.shards:,}" + (f"\n{space.broken:,} broken" if space.broken else ""),
            f"{space.rows:,}",
            f"{space.bytes / 1e6:.1f}",
        )
    out.print(table)


def _program(name: str) -> str:
    """Path of a program of this environment, short where it lies below the working directory."""
    path = Path(sys.executable).parent / name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _plain(value: object) -> str:
    """Text without markup: square brackets in data are no commands to rich."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return escape(str(value))
