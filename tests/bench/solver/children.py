"""Child processes of the benchmark: one at a time, with a time limit, and a result that is always a dictionary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.solver.problems import ROOT

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PEERS_LOCK = Path(__file__).with_name("peers.txt")
START_SECONDS = 60.0
"""Allowance for imports and for reading arrays."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def cores() -> int:
    """Threads that every child may use: OMP_NUM_THREADS if set, or all cores of this process."""
    return int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))


def call_ours(task: dict[str, Any], limit: float) -> dict[str, Any]:
    """Run a task of `ours`."""
    return _call([sys.executable, "-m", "tests.bench.solver.ours", json.dumps(task)], limit)


def call_peer(task: dict[str, Any]) -> dict[str, Any]:
    """Run a task of `peers` for its budget and not much longer."""
    found = _call([str(PEERS_PYTHON), "-m", "tests.bench.solver.peers", json.dumps(task)], task["seconds"])
    return {"points": [], **found}


def prepare(name: str, *, quick: bool) -> str | None:
    """Prepare a problem in a process of its own; return what went wrong, if anything."""
    command = [sys.executable, "-m", "tests.bench.solver.problems", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), stderr=subprocess.PIPE, text=True)
    return _last_line(done.stderr) if done.returncode else None


def install_peers() -> str | None:
    """Make the peers' environment if it is absent or older than its lock; return what went wrong, if anything."""
    installed = PEERS_PYTHON.parents[1] / "installed"
    if installed.exists() and installed.stat().st_mtime >= PEERS_LOCK.stat().st_mtime:
        return None
    pip = [str(PEERS_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(PEERS_LOCK)]
    for command in ([sys.executable, "-m", "venv", str(PEERS_PYTHON.parents[1])], pip):
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            return _last_line(done.stderr)
    installed.touch()
    return None


def _call(command: list[str], limit: float) -> dict[str, Any]:
    """Run a command and return its last line, or {"failed": why}."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=limit + START_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"ended {START_SECONDS:.0f} s after its limit of {limit:.0f} s"}
    if done.returncode:
        return {"failed": _last_line(done.stderr) or f"exit status {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _environment() -> dict[str, str]:
    """Let this environment pass, with the number of threads."""
    return {**os.environ, **dict.fromkeys(_THREADS, str(cores()))}


def _last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
