"""What the tests of whole runs share: the tiny model and real `coala` processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

COALA = [sys.executable, "-m", "flows.cli"]


@pytest.fixture(scope="session")
def model(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


class Outcome(NamedTuple):
    """How a process ended and what it wrote."""

    status: int
    out: str
    err: str


def clean_environment(**more: str) -> dict[str, str]:
    """The tests' environment without what a developer may have set for Prefect and MLflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    root = str(Path(__file__).parents[2])
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": root} | more


def start_coala(arguments: Sequence[object], **environment: str) -> subprocess.Popen[str]:
    """Start a real process; it leads its own group, so that nothing it starts outlives the test."""
    return subprocess.Popen(
        [*COALA, *map(str, arguments)],
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that leads its group, and what it started; either may have ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_coala(*arguments: object, timeout: float = 240, **environment: str) -> Outcome:
    """Run a real process to its end."""
    with start_coala(arguments, **environment) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return Outcome(process.returncode, out, err)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
