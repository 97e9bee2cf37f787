"""The services under supervisord: started in order, restarted when they die, stopped in the opposite order."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from pathlib import Path

import psutil

from flows.services.environment import ROOT, Environment
from flows.services.health import answers
from flows.services.postgres import Postgres
from flows.services.processes import find_process, kill, marked, stop, wait_gone, write_identity
from flows.services.programs import NAMES, Program, log_file, pid_file, programs

Say = Callable[[str], None]

SUPERVISOR = "supervisor"
_DEADLINE = 300.0
_SUPERVISOR_SECONDS = 30.0
_STEADY_SECONDS = 20  # a service that lived shorter is restarted after a pause that grows
_DEATHS = 4  # of one service during the start


def supervisor_of(folder: Path) -> psutil.Process | None:
    """Find the supervisor that runs for this folder, if any."""
    return find_process(pid_file(folder, SUPERVISOR))


def start(environment: Environment, postgres: Postgres, file: Path) -> None:
    """Start the supervisor, which starts the services, in a session of its own.

    Raises
    ------
    ValueError
        If it does not run after half a minute.
    """
    folder = environment.folder
    for below in ("prefect", "mlflow/artifacts"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    configuration = folder / "supervisord.conf"
    with configuration.open("w", encoding="utf-8") as output:
        _configuration(programs(environment, postgres), file.absolute(), folder).write(output)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.services.supervisor", str(configuration), str(folder)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + _SUPERVISOR_SECONDS
    try:
        while supervisor_of(folder) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                log = log_file(folder, SUPERVISOR)
                raise ValueError(f"`coala services up` needs supervisord to run, got none that stays; see {log}.")
            time.sleep(0.1)
    except BaseException:
        process.kill()
        raise


def wait_healthy(environment: Environment, postgres: Postgres, say: Say) -> None:
    """Wait until every service answers, saying so as each does.

    Raises
    ------
    ValueError
        If one dies again and again, or does not answer in five minutes.
    """
    begun = time.monotonic()
    for name in NAMES:
        while not answers(name, environment, postgres):
            _check_alive(environment.folder, name, begun)
            time.sleep(0.5)
        say(f"{name} answers after {time.monotonic() - begun:.0f} s")


def stop_all(folder: Path, say: Say) -> bool:
    """Stop the worker first, PostgreSQL last, and whatever outlives a supervisor that was killed.

    Returns
    -------
    bool
        Whether anything ran.
    """
    head = supervisor_of(folder)
    ran = head is not None
    if head is not None:
        say("stopping the worker, MLflow, Prefect and PostgreSQL, in this order")
        head.send_signal(signal.SIGTERM)
        wait_gone([head], 180)
    for name in reversed(NAMES):
        process = find_process(pid_file(folder, name))
        if process is not None:
            ran = True
            say(f"stopping {name}, which has no supervisor")
            stop(process, signal.SIGINT if name == "postgres" else signal.SIGTERM, 30)
        kill(marked(folder, name))
    for name in (*NAMES, SUPERVISOR):
        pid_file(folder, name).unlink(missing_ok=True)
    return ran


def taken_ports(environment: Environment) -> Iterator[str]:
    """Ports that something listens on already, as `NAME (port)`."""
    for name, port in environment.ports().items():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                yield f"COALA_{name.upper()}_PORT ({port})"


def _configuration(services: dict[str, Program], file: Path, folder: Path) -> RawConfigParser:
    """Supervisord's configuration; it names no secret."""
    parser = RawConfigParser()
    parser["supervisord"] = {
        "nodaemon": "true",
        "logfile": _plain(log_file(folder, SUPERVISOR)),
        "logfile_maxbytes": "5MB",
        "pidfile": _plain(folder / "supervisord.pid"),
        "directory": _plain(ROOT),
        "umask": "077",
    } | ({"user": "root"} if os.geteuid() == 0 else {})
    for priority, program in enumerate(services.values(), start=1):
        command = [sys.executable, "-m", "flows.services.child", program.name, str(file), str(folder)]
        parser[f"program:{program.name}"] = {
            "command": _plain(shlex.join(command)),
            "priority": str(priority),
            "autorestart": "true",
            "startsecs": str(_STEADY_SECONDS),
            "startretries": "1000000",
            "stopsignal": program.stop_signal,
            "stopwaitsecs": str(program.stop_seconds),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": _plain(log_file(folder, program.name)),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "3",
        }
    return parser


def _plain(text: object) -> str:
    """Text that supervisord does not expand."""
    return str(text).replace("%", "%%")


def _check_alive(folder: Path, name: str, begun: float) -> None:
    log = log_file(folder, SUPERVISOR)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    start_of_this = text[text.rfind("supervisord started with pid") :]
    waited = time.monotonic() - begun
    if start_of_this.count(f"exited: {name} ") >= _DEATHS:
        fault = f"{_DEATHS} deaths of {name}"
    elif supervisor_of(folder) is None:
        fault = "a supervisor that does not run"
    elif waited > _DEADLINE:
        fault = f"no answer of {name} in {_DEADLINE:.0f} s"
    else:
        return
    raise ValueError(f"`coala services up` needs all services to answer, got {fault}; see {log_file(folder, name)}.")


def main(configuration: str, folder: str) -> None:
    """Become supervisord."""
    from supervisor.supervisord import main as supervise

    write_identity(pid_file(Path(folder), SUPERVISOR))
    supervise(["--configuration", configuration])


if __name__ == "__main__":
    main(*sys.argv[1:])
