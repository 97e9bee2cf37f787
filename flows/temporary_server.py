"""The Prefect server that Prefect starts for a run without one: it must not outlive the run.

Prefect stops it when the run's process ends. A process that is killed ends nothing, so another one waits for that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import psutil

_MARK = "COALA_RUN_PROCESS"
_PREFECTS_MARK = "PREFECT__SERVER_EPHEMERAL"
_watchers: list[subprocess.Popen[bytes]] = []


def end_with_this_process() -> None:
    """Have a temporary server that Prefect starts from now on end with this process, however the process ends.

    Where PREFECT_API_URL names a server there will be no temporary one, and nothing is done.
    """
    if os.environ.get("PREFECT_API_URL") or _watchers:
        return
    me = psutil.Process()
    os.environ[_MARK] = f"{me.pid}-{me.create_time()}"
    # The kernel closes this process's end of the pipe when the process is gone.
    watcher = subprocess.Popen(
        [sys.executable, "-m", "flows.temporary_server", os.environ[_MARK]],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _watchers.append(watcher)


def end_servers(mark: str) -> int:
    """Kill the temporary servers of a process that is gone.

    Parameters
    ----------
    mark : str
        What the process wrote into its environment.

    Returns
    -------
    int
        How many there were.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            if variables.get(_MARK) == mark and _PREFECTS_MARK in variables:
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=10)
    return len(found)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_servers(sys.argv[1])
