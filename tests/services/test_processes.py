"""Processes found again by file and by mark: the right one, or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.services.processes import find_process, kill, marked, marks, stop, wait_gone, write_identity

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A marked process that leads a session of its own."""
    process = subprocess.Popen(SLEEP, env=os.environ | marks(tmp_path, "worker"), start_new_session=True)
    yield process
    process.kill()
    process.wait(10)


def test_a_process_is_found_by_what_it_wrote(tmp_path: Path) -> None:
    write_identity(tmp_path / "me")
    found = find_process(tmp_path / "me")
    assert found is not None and found.pid == os.getpid()


@pytest.mark.parametrize("content", ["", "x y", "1", "{me} 12.5"])
def test_another_process_of_the_same_number_is_not_taken_for_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content.format(me=os.getpid()))
    assert find_process(tmp_path / "file") is None
    assert find_process(tmp_path / "absent") is None


def test_marked_processes_are_found_in_any_session(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    assert [process.pid for process in marked(tmp_path)] == [sleeper.pid]
    assert [process.pid for process in marked(tmp_path, "worker")] == [sleeper.pid]
    assert marked(tmp_path, "mlflow") == []
    assert marked(tmp_path / "other") == []


def test_a_deaf_process_is_killed_in_the_end(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stop(psutil.Process(process.pid), signal.SIGTERM, seconds=0.3)
        assert process.wait(10) == -signal.SIGKILL


def test_waiting_says_whether_they_are_gone(sleeper: subprocess.Popen[bytes]) -> None:
    process = psutil.Process(sleeper.pid)
    assert not wait_gone([process], 0.2)
    kill([process])
    assert wait_gone([process], 0.2)
