"""Processes by file: a process writes who it is, and is found again, or not, never another of its number."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

_STOPPED = (psutil.NoSuchProcess, psutil.ZombieProcess)


def write_identity(file: Path) -> None:
    """Write this process's number and time of birth; both outlive `exec`."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(f"{os.getpid()} {psutil.Process().create_time()}\n", encoding="ascii")
    partial.replace(file)


def find_process(file: Path) -> psutil.Process | None:
    """Find the process that wrote the file, or nothing if it is gone."""
    try:
        number, born = file.read_text(encoding="ascii").split()
        process = psutil.Process(int(number))
        same = process.create_time() == float(born) and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, *_STOPPED):
        return None
    return process if same else None


def marks(folder: Path, service: str) -> dict[str, str]:
    """Variables by which a service's processes are known, also those that leave its group or outlive it."""
    return {"COALA_SERVICES": str(folder), "COALA_SERVICE": service}


def marked(folder: Path, service: str | None = None) -> list[psutil.Process]:
    """List the processes of one service, or of all, except this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            ours = variables.get("COALA_SERVICES") == str(folder)
            if ours and service in (None, variables.get("COALA_SERVICE")) and process.pid != os.getpid():
                found.append(process)
    return found


def stop(process: psutil.Process, how: signal.Signals, seconds: float) -> None:
    """Signal a process and wait; kill it if it stays."""
    with contextlib.suppress(*_STOPPED):
        process.send_signal(how)
    wait_gone([process], seconds)
    kill([process])


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill those that still run."""
    left = [process for process in processes if process.is_running()]
    for process in left:
        with contextlib.suppress(*_STOPPED):
            process.kill()
    wait_gone(left, 10)


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> bool:
    """Wait until none runs any more; whose child they are does not matter."""
    deadline = time.monotonic() + seconds
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except _STOPPED:
        return False
