"""The command line: `coala run` for the whole flow, a command for each stage, `coala doctor`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from coala_core import __version__
from coala_core.config import PipelineConfig, SweepConfig
from coala_core.storage import Damaged, Store
from flows.cache import cache
from flows.data import data
from flows.gc_command import gc
from flows.generate_command import generate
from flows.promote_command import promote
from flows.services.commands import services
from flows.settings import ConfigFile, Settings, StoreFolder, configure, configure_as, parsed
from flows.stage_commands import STAGE_COMMANDS
from flows.temporary_server import end_with_this_process

app = App(
    name="coala",
    version=__version__,
    help="Conversations in, a certified convex preference head out.",
    suppress_keyboard_interrupt=False,
)
app.command(cache)
app.command(gc)
app.command(promote)
app.command(data)
app.command(services)
app.command(generate)
for stage_command in STAGE_COMMANDS:
    app.command(stage_command)


@app.command
def run(
    *,
    config: ConfigFile = None,
    conversations: str | None = None,
    model: str | None = None,
    group_by: str | None = None,
    seed: int | None = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Run the whole pipeline as a Prefect flow, with or without a Prefect server.

    Parameters
    ----------
    config
        YAML with any of the sections.
    conversations
        File of conversations or ready triplets, or "builtin".
    model
        Folder or hub name of a causal language model, or "builtin".
    group_by
        Field whose value keeps rows together in the split.
    seed
        Seed of the split.
    store
        Folder of all artifacts.
    settings
        SECTION.NAME=VALUE, any setting, as often as needed.
    """
    checked = configure(
        config,
        settings,
        triplets__conversations=conversations,
        triplets__group_by=group_by,
        embed__model=model,
        split__seed=seed,
        store=store,
    )
    end_with_this_process()
    from flows.console import show_summary
    from flows.pipeline import coala_pipeline

    show_summary(coala_pipeline(checked))


@app.command
def sweep(
    *,
    grid: Annotated[tuple[str, ...], Parameter(negative="")],
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Run a pipeline for every combination of some settings, and rank them on the validation split.

    Parameters
    ----------
    grid
        SECTION.NAME=[VALUE, VALUE], as often as needed.
    config
        YAML with any of the sections of a pipeline.
    store
        Folder of all artifacts.
    settings
        SECTION.NAME=VALUE, the same in all runs.
    """
    pipeline = configure(config, settings, store=store)
    named = dict(parsed("--grid", choice) for choice in grid)
    checked = configure_as(SweepConfig, None, (), pipeline=pipeline, grid=named)
    checked.runs()
    end_with_this_process()
    from flows.console import show_sweep
    from flows.sweep import coala_sweep

    show_sweep(coala_sweep(checked))


@app.command
def compare(*evaluations: Path, store: StoreFolder = None) -> None:
    """Compare heads on the same test pairs, each with the first one, without a Prefect run.

    Parameters
    ----------
    evaluations
        Folders of evaluations, two or more; without any, the newest five of the store that scored the same pairs.
    store
        Folder of all artifacts.
    """
    from coala_core.storage import open_artifact
    from flows.console import show_comparison
    from tasks.compared import NEWEST, compare_evaluations, newest_evaluations

    shelf = Store(store or PipelineConfig().store)
    named = [open_artifact(folder, "evaluate") for folder in evaluations]
    show_comparison(compare_evaluations(shelf, named or newest_evaluations(shelf, NEWEST)))


@app.command
def serve(*, limit: int = 1) -> None:
    """Register the deployments on the Prefect server, and run what is scheduled or asked for, on this machine.

    Parameters
    ----------
    limit
        Runs at the same time.
    """
    from flows.serve import serve_deployments

    serve_deployments(limit)


@app.command
def doctor(*, model: str = "builtin", store: StoreFolder = None) -> int:
    """Check versions, GPU, language model, servers and disk, and say what to do about each; exit 1 on a problem."""
    from flows.console import show_checks
    from tasks.doctor import diagnose

    checks = diagnose(Path(store or PipelineConfig().store), model)
    show_checks(checks)
    return int(any(check.status == "problem" for check in checks))


@app.command
def replay(*, store: StoreFolder = None, uri: str | None = None) -> int:
    """Deliver tracking records that MLflow could not take during runs; exit 1 if any still wait.

    Parameters
    ----------
    store
        Folder of all artifacts.
    uri
        MLflow address that takes every waiting run whole; each run's own address if absent.
    """
    from flows.console import err, out
    from tasks.tracking import replay as deliver

    report = deliver(Store(store or PipelineConfig().store).root, uri)
    out.print(f"{len(report.delivered)} runs delivered, {len(report.pending)} still waiting.", markup=False)
    for name, reason in report.pending.items():
        err.print(f"{name}: {reason}", markup=False)
    for refusal in report.refused:
        err.print(refusal, markup=False)
    return int(bool(report.pending))


def quiet_environment() -> None:
    """Turn telemetry off, and give a temporary Prefect server time to start, unless the user has decided."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The default of 20 s is too short for a slow disk or two busy cores.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "coala",
        # Of runs that `coala serve` starts; see flows/zombies.py.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; a refused input is one sentence on standard error and exit status 2.

    Returns
    -------
    int
        0, or what the command returns; 2 for refused input, 130 after Ctrl-C.
    """
    quiet_environment()
    # What the stages say, such as the once-only conversion of the built-in model, is for people to see.
    logging.getLogger("coala").setLevel(logging.INFO)
    try:
        result = app(arguments, result_action="return_value", exit_on_error=False, print_error=False)
    except (CycloptsError, ValueError, OSError, ModuleNotFoundError, Damaged) as error:
        sys.stderr.write(f"coala: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("coala: interrupted; the same command continues from what is stored\n")
        return 130
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
