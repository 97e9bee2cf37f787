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
from tests.flows.conftest import clean_environment, start_coala

pytestmark = pytest.mark.slow


def belongs(process: psutil.Process, home: str) -> bool:
    try:
        return bool(process.environ().get("PREFECT_HOME") == home) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_a_killed_run_takes_its_temporary_server_with_it(
    lessons: Path, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store, home = make_store("store"), str(tmp_path / "prefect")
    words = ["run", "--store", store, "--conversations", lessons, "--model", model]
    with kept_waiting(store, lessons):
        process = start_coala(words, PREFECT_HOME=home)
        helpers: list[psutil.Process] = []
        try:
            wait_for(lambda: list(store.glob("tracking/*.jsonl")), "the run has begun")
            helpers = [each for each in family(process.pid) if each.pid != process.pid]
            assert any("uvicorn" in each.cmdline() for each in helpers)
            process.kill()
            process.communicate(timeout=60)
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
