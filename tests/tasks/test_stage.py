"""A stage as a Prefect task: what is tried again, what is taken from the cache, what the page shows."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

import tasks.stage
from coala_core.config import SplitConfig
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Store, Workspace
from tasks.stage import describe_progress, reported_progress, stage_task


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 200, 5.0, "embed: 0 of 200 pairs"),
        (50, 200, 30.0, "embed: 50 of 200 pairs, 25 %, about 90 s left"),  # 150 more at 50 in 30 s
        (1500, 3000, 60.0, "embed: 1,500 of 3,000 pairs, 50 %, about 60 s left"),
        (200, 200, 30.0, "embed: 200 of 200 pairs"),
    ],
)
def test_a_log_line_says_how_far_and_how_long(done: int, total: int, seconds: float, line: str) -> None:
    assert describe_progress("embed", done, total, "pairs", seconds) == line


class Count(ModuleType):
    """A stage that writes the number of its runs and can fail on the first ones."""

    STAGE = "split"

    def __init__(self, failures: list[Exception] | None = None) -> None:
        super().__init__("count")
        self.failures = failures or []
        self.runs = 0

    def plan(self, store: Store, config: SplitConfig) -> Plan:
        return Plan(self.STAGE, 1, config.model_dump(), {}, config.model_dump())

    def run(self, store: str, config: SplitConfig) -> Artifact:
        self.runs += 1
        if self.failures:
            raise self.failures.pop(0)

        def compute(workspace: Workspace) -> None:
            workspace.write_json("runs.json", self.runs)

        return produce(Store(store), self.plan(Store(store), config), compute)


def in_a_flow(body: Callable[[], Any]) -> Any:
    """Call a function inside a flow run."""
    from prefect import flow

    return flow(name="trial")(lambda: body())()


def task_of(stage: Count) -> Callable[..., Artifact]:
    """The stage as a task."""

    def shell(store: str, config: SplitConfig) -> Artifact:
        return stage.run(store, config)

    return stage_task(stage)(shell)


@pytest.mark.usefixtures("prefect_server")
def test_what_may_pass_is_tried_again_and_what_cannot_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.stage, "RETRY_SECONDS", 0)
    failures: list[tuple[Exception, int]] = [
        (OSError(errno.EIO, "input/output error"), 3),
        (ConnectionResetError(errno.ECONNRESET, "reset"), 3),
        (httpx.ConnectError("away"), 3),
        (FileNotFoundError(errno.ENOENT, "gone"), 1),
        (OSError(errno.ENOSPC, "disk full"), 1),
        (PermissionError(errno.EACCES, "no right"), 1),
        (ValueError("refused"), 1),
    ]

    def trial() -> list[int]:
        runs = []
        for number, (failure, _) in enumerate(failures):
            stage = Count([failure, failure])
            try:
                task_of(stage)(str(tmp_path / str(number)), SplitConfig())
            except Exception as error:  # noqa: BLE001 - whatever it is, it must be the stage's own
                assert error is failure or str(error) == str(failure)
            runs.append(stage.runs)
        return runs

    assert in_a_flow(trial) == [runs for _, runs in failures]


@pytest.mark.usefixtures("prefect_server")
def test_a_failure_that_stays_ends_after_three_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.stage, "RETRY_SECONDS", 0)
    stage = Count([OSError(errno.EIO, "input/output error")] * 9)
    with pytest.raises(OSError, match="input/output error"):
        in_a_flow(lambda: task_of(stage)(str(tmp_path), SplitConfig()))
    assert stage.runs == 1 + tasks.stage.RETRIES


@pytest.mark.usefixtures("prefect_server")
def test_a_result_is_reused_in_its_store_only_and_only_while_it_is_intact(tmp_path: Path) -> None:
    stage = Count()
    one, two = str(tmp_path / "one"), str(tmp_path / "two")

    def trial() -> list[int]:
        task, runs = task_of(stage), []
        for store, config in [(one, 0), (one, 0), (two, 0), (one, 1), (one, 0)]:
            made = task(store, SplitConfig(seed=config))
            assert made.path.is_relative_to(store)
            runs.append(stage.runs)
        (made.path / "runs.json").write_text("damaged")
        again = task(one, SplitConfig(seed=0))
        assert Store(one).is_intact("split", again.key)
        return [*runs, stage.runs]

    assert in_a_flow(trial) == [1, 1, 2, 3, 3, 4]


@pytest.mark.usefixtures("prefect_server")
def test_progress_is_an_artifact_and_a_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from prefect.artifacts import Artifact as Shown
    from prefect.context import FlowRunContext

    monkeypatch.setattr(tasks.stage, "ARTIFACT_SECONDS", 0.0)
    monkeypatch.setattr(tasks.stage, "LOG_SECONDS", 0.0)

    def trial() -> list[tuple[float, str]]:
        shown = []
        with reported_progress("embed") as progress:
            progress(30, 120, "pairs")
            shown.append(Shown.get("embed-progress"))
        assert FlowRunContext.get() is not None
        shown.append(Shown.get("embed-progress"))
        return [(float(artifact.data), artifact.description) for artifact in shown]

    (during, text), (after, last) = in_a_flow(trial)
    assert (during, after) == (25.0, 100.0)
    assert text.startswith("embed: 30 of 120 pairs, 25 %")
    assert last.startswith("embed: done in ")
    assert [
        r for r in caplog.records if r.getMessage().startswith("embed: 30 of 120 pairs") and r.levelno == logging.INFO
    ]


@pytest.mark.usefixtures("prefect_server")
def test_work_goes_on_while_progress_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("connection refused")

    monkeypatch.setattr(tasks.stage, "ARTIFACT_SECONDS", 0.0)
    monkeypatch.setattr(tasks.stage, "update_progress_artifact", away)

    def trial() -> int:
        with reported_progress("solve") as progress:
            progress(1, 2, "sweeps")
        return 7

    assert in_a_flow(trial) == 7
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["progress of the run could not be shown: connection refused"] * 2
