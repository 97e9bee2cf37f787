"""`kill -9` of a run without a Prefect server: the temporary one that Prefect started for it does not stay."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.test_zombies import kept_waiting
from tests.faults.world import family, kill_all, wait_for
from tests.flows.conftest import clean_environment
from tests.lessons import quick_config

pytestmark = pytest.mark.slow

COMMAND = """
import json, sys
from flows.temporary_server import end_with_this_process
end_with_this_process()
from coala_core.config import PipelineConfig
from flows.pipeline import coala_pipeline
coala_pipeline(PipelineConfig.model_validate_json(sys.argv[1]))
"""


def belongs(process: psutil.Process, home: str) -> bool:
    try:
        return bool(process.environ().get("PREFECT_HOME") == home) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_a_killed_run_takes_its_temporary_server_with_it(
    lessons: Path, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store, home = make_store("store"), str(tmp_path / "prefect")
    config = quick_config(store, lessons, model).model_dump_json(exclude_unset=True)
    environment = clean_environment(PREFECT_HOME=home, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="180")
    with kept_waiting(store, lessons), (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, config], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        helpers: list[psutil.Process] = []
        try:
            wait_for(lambda: list(store.glob("tracking/*.jsonl")), "the run has begun")
            helpers = [each for each in family(process.pid) if each.pid != process.pid]
            assert any("uvicorn" in each.cmdline() for each in helpers)
            process.kill()
            process.wait(30)
            wait_for(lambda: not any(belongs(each, home) for each in helpers), "all that it started is gone", 60)
        finally:
            kill_all([*helpers, *family(process.pid)])


def test_a_run_that_names_its_server_is_left_alone() -> None:
    words = "from flows import temporary_server as t; t.end_with_this_process(); print(len(t._watchers))"
    counts = []
    for more in ({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, {}):
        done = subprocess.run(
            [sys.executable, "-c", words], env=clean_environment(**more), capture_output=True, text=True, check=True
        )
        counts.append(json.loads(done.stdout))
    assert counts == [0, 1]
