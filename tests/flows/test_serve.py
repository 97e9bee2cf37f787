"""`coala serve` on a real Prefect server: runs without a work pool, and schedules that stay as people leave them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.serve import served_deployments
from tests.flows.conftest import COALA, kill_group
from tests.flows.prefect_server import NAMES, ROOT, Server, running_server
from tests.lessons import quick_config

PATIENCE = 120.0


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [("0", "must be at least 1, got 0"), ("1", "needs a Prefect server that stays, got no PREFECT_API_URL")],
)
def test_what_cannot_be_served_is_refused(
    limit: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert main(["serve", "--limit", limit]) == 2
    assert sentence in capsys.readouterr().err


def test_without_the_project_s_folder_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install the project in place"):
        served_deployments(tmp_path / "prefect.yaml")


@contextmanager
def serving(server: Server, log: Path) -> Iterator[None]:
    """A `coala serve` that has registered all deployments."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [*COALA, "serve", "--limit", "2"],
            cwd=log.parent,
            env={**server.environment, "PYTHONPATH": str(ROOT), "PREFECT_RUNNER_POLL_FREQUENCY": "2"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "Your deployments are being served" in log.read_text(), process, log)
        yield
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(30)
        kill_group(process)
        process.wait(30)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes], log: Path) -> Any:
    """Wait until something is true, or show the log."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.3)
    return found


@pytest.mark.slow
def test_a_served_run_ends_and_schedules_survive_a_restart(
    tmp_path: Path, lessons: Path, model: Path, make_store: Callable[[str], Path]
) -> None:
    config = quick_config(make_store("store"), lessons, model).model_dump(mode="json", exclude_unset=True)
    with running_server(tmp_path) as server:
        with serving(server, tmp_path / "first.log"):
            deployment = server.ask("/deployments/name/coala/pipeline")
            assert deployment["work_pool_name"] is None
            assert deployment["schedules"][0]["active"] is False
            assert {each["name"] for each in server.ask("/deployments/filter", {})} == {
                name.partition("/")[2] for name in NAMES
            }
            made = server.prefect("deployment", "run", "coala/pipeline", "--param", f"config={json.dumps(config)}")
            assert made.returncode == 0, made.stdout + made.stderr
            deadline = time.monotonic() + PATIENCE
            while (state := only_run(server, deployment)["state"])["type"] not in ("COMPLETED", "FAILED", "CRASHED"):
                assert time.monotonic() < deadline, state
                time.sleep(0.5)
            assert state["type"] == "COMPLETED", (tmp_path / "first.log").read_text()
            switched = server.prefect("deployment", "schedule", "resume", "coala/pipeline", schedule_id(deployment))
            assert switched.returncode == 0, switched.stdout + switched.stderr
            deadline = time.monotonic() + PATIENCE
            while not planned_runs(server, deployment):
                assert time.monotonic() < deadline, "the server's scheduler planned no run"
                time.sleep(0.5)
        stopped = server.ask("/deployments/name/coala/pipeline")
        assert stopped["schedules"][0]["active"] is True
        with serving(server, tmp_path / "second.log"):
            again = server.ask("/deployments/name/coala/pipeline")
    assert again["id"] == deployment["id"]
    assert [(each["slug"], each["active"]) for each in again["schedules"]] == [("nightly", True)]


def only_run(server: Server, deployment: Any) -> Any:
    """The one run of the deployment that a person asked for."""
    runs = server.ask("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment["id"]]}}})
    (run,) = [run for run in runs if not run["auto_scheduled"]]
    return run


def planned_runs(server: Server, deployment: Any) -> list[Any]:
    """Runs that the schedule has planned."""
    runs = server.ask("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment["id"]]}}})
    return [run for run in runs if run["auto_scheduled"]]


def schedule_id(deployment: Any) -> str:
    return str(deployment["schedules"][0]["id"])
