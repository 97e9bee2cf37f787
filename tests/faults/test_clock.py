"""A clock that is set back between runs and in the middle of one: artifacts stay reusable, records stay sane."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.faults.conftest import Undisturbed, digests_of, settings, slow_config, stages_of, torn
from tests.faults.test_cancelled import parents
from tests.faults.world import wait_for
from tests.flows.conftest import clean_environment

pytestmark = pytest.mark.slow

HOUR, DAY = 3600, 86_400
BY_ANOTHER_CLOCK = """
import sys, time
from pathlib import Path

file, *words = sys.argv[1:]
time_ns, gmtime = time.time_ns, time.gmtime
time.time_ns = lambda: time_ns() - int(Path(file).read_text()) * 10**9
time.time = lambda: time.time_ns() / 1e9
time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)
from flows.cli import main
sys.exit(main(words))
"""


class Clock:
    """The clock of a process; it can be set while the process runs.

    Sleeping and waiting go by another one, as they do where an administrator sets the clock. libfaketime cannot do
    that: with it, Python's sleep fails unless the monotonic clock is set back as well.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.home = folder / "behind", folder / "prefect"
        self.behind(0)

    def behind(self, seconds: int) -> None:
        """Set the clock so far behind the real one."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self.file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def run(clock: Clock, config: dict[str, Any], during: Callable[[], None] = lambda: None) -> None:
    """A whole run by that clock."""
    process = subprocess.Popen(
        [sys.executable, "-c", BY_ANOTHER_CLOCK, str(clock.file), "run", *settings(config)],
        env=clean_environment(PREFECT_HOME=str(clock.home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        during()
        _, err = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, err


def children(store: Path, parent: Run) -> dict[str, Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    wanted = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return {run.info.run_name: run for run in client.search_runs([parent.info.experiment_id], wanted)}


def test_a_clock_set_back_between_runs_changes_nothing_that_is_reused(
    clock: Clock, undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path]
) -> None:
    store = make_store("store")
    config = slow_config(store, undisturbed.conversations, model)
    run(clock, config)
    made = {stage: (folder / "manifest.json").stat().st_mtime_ns for stage, folder in stages_of(store).items()}
    shutil.rmtree(stages_of(store)["evaluate"])
    for seconds in (HOUR, DAY):
        clock.behind(seconds)
        run(clock, config)
        now = {stage: (folder / "manifest.json").stat().st_mtime_ns for stage, folder in stages_of(store).items()}
        assert {stage: now[stage] for stage in made if stage != "evaluate"} == {
            stage: made[stage] for stage in made if stage != "evaluate"
        }
        assert digests_of(store) == undisturbed.digests
    by_start = parents(store)
    assert [run.info.status for run in by_start] == ["FINISHED"] * 3
    day, hour, _ = by_start
    assert {stage for stage, run in children(store, hour).items() if run.data.tags["coala.reused"] == "false"} == {
        "evaluate"
    }
    assert {run.data.tags["coala.reused"] for run in children(store, day).values()} == {"true"}
    for whole, behind in ((hour, HOUR), (day, DAY)):
        assert abs(time.time() - behind - whole.info.start_time / 1000) < 600
        for child in children(store, whole).values():
            assert -1 <= child.info.end_time - child.info.start_time < 120_000  # each is rounded to milliseconds


def test_a_clock_set_back_in_the_middle_of_a_run_loses_nothing(
    clock: Clock, undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path]
) -> None:
    store = make_store("store")
    config = slow_config(store, undisturbed.conversations, model)

    def set_back() -> None:
        wait_for(lambda: list(store.glob("embed/*.partial")), "the run embeds", pause=0.01)
        clock.behind(DAY)

    run(clock, config, set_back)
    finished = {stage: json.loads((folder / "timing.json").read_text()) for stage, folder in stages_of(store).items()}
    assert finished["evaluate"]["finished_at"] < time.time() - DAY / 2 < finished["triplets"]["finished_at"]
    assert digests_of(store) == undisturbed.digests
    assert torn(store) == []
    (whole,) = parents(store)
    assert whole.info.status == "FINISHED"
    told = children(store, whole)
    assert set(told) == set(undisturbed.digests)
    assert {child.info.status for child in told.values()} == {"FINISHED"}
    assert {child.data.tags["coala.reused"] for child in told.values()} == {"false"}
    for child in told.values():
        assert child.data.metrics["seconds"] < 120
    (journal,) = store.glob("tracking/*.jsonl")
    times = [json.loads(line).get("time", 0) for line in journal.read_text().splitlines()]
    assert sorted(times) != times, "the journal has seen the clock go back"
