"""A Prefect server that dies and comes back, workers on it, and what tests of faults ask of them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request

import psutil

from tests.flows.conftest import free_port
from tests.flows.prefect_server import PREFECT, Server, urlopen_when_free

PATIENCE = 240.0
"""Seconds after which what should have happened has not; generous, since a busy machine takes ten times its time."""
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE, pause: float = 0.2) -> Any:
    """Ask again until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)
    return found


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, which may lead groups of their own; the youngest first."""
    with suppress(psutil.NoSuchProcess):
        head = psutil.Process(pid)
        return [*reversed(head.children(recursive=True)), head]
    return []


def kill_all(processes: list[psutil.Process]) -> None:
    """`kill -9` of each, as fast as can be."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)


class Run(NamedTuple):
    """A flow run, as the server has it."""

    id: str
    name: str
    type: str
    state: dict[str, Any]


class World(Server):
    """A server with the repository's deployments; `settings` are variables of the server alone."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder / "home", free_port())
        self.folder, self.settings = folder, settings
        self.command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", self.pages.rpartition(":")[2]]
        self.environment["PREFECT_LOGGING_EXTRA_LOGGERS"] = "coala"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers, the second time on the same port and home."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("a") as output:
            self.process = subprocess.Popen(
                [*self.command, "--no-ui"],
                env=self.environment | self.settings,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_for(self.is_up, "the server answers")

    def kill(self) -> None:
        """`kill -9` of the server and of what it started."""
        if self.process is not None:
            kill_all(family(self.process.pid))
            self.process.wait(30)

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def deploy(self) -> None:
        """Make the work pool and the deployments of `prefect.yaml`."""
        self.ask("/variables/", {"name": "coala_work_pool", "value": "coala"})
        self.ask("/work_pools/", {"name": "coala", "type": "process"})
        done = self.prefect("--no-prompt", "deploy", "--all")
        assert done.returncode == 0, done.stdout + done.stderr

    def change(self, path: str, body: dict[str, Any]) -> None:
        """PATCH, as switches in the UI do."""
        self.order(path, body, "PATCH")

    def order(self, path: str, body: dict[str, Any], method: str = "POST") -> None:
        """Ask for something that has no answer."""
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.api}{path}", data=json.dumps(body).encode(), headers=headers, method=method)
        with urlopen_when_free(request):
            pass

    def submit(self, config: dict[str, Any], deployment: str = "coala/pipeline") -> str:
        """Ask for a run as the UI's form does; its id."""
        found = self.ask(f"/deployments/name/{deployment}")
        made = self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": {"config": config}})
        return str(made["id"])

    def run(self, number: str) -> Run:
        found = self.ask(f"/flow_runs/{number}")
        return Run(number, found["name"], found["state"]["type"], found["state"])

    def ended(self, number: str, seconds: float = PATIENCE) -> Run:
        """Wait until the run is over, whatever becomes of it."""

        def over() -> Run | None:
            with suppress(OSError):  # the server may be away
                found = self.run(number)
                return found if found.type in FINAL else None
            return None

        run: Run = wait_for(over, f"run {number} ends", seconds, pause=0.5)
        return run

    def set_state(self, number: str, kind: str) -> dict[str, Any]:
        """Ask for another state, as the buttons of a run's page do."""
        answer: dict[str, Any] = self.ask(f"/flow_runs/{number}/set_state", {"state": {"type": kind}})
        return answer

    def logs(self, number: str) -> str:
        found = self.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [number]}}, "limit": 200})
        return "\n".join(line["message"] for line in found)

    def bury(self, number: str) -> None:
        """Crash a run by hand, as people do with one whose process is gone."""
        if self.run(number).type not in FINAL:
            self.set_state(number, "CRASHED")
        assert self.run(number).type == "CRASHED"

    def tidy(self) -> None:
        """Leave nothing to the next test's worker."""
        waiting = {"flow_runs": {"state": {"type": {"not_any_": list(FINAL)}}}}
        for run in self.ask("/flow_runs/filter", waiting):
            self.ask(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})

    @contextmanager
    def working(self, log: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker, or another command that runs flows; it and its flows are gone afterwards."""
        words = list(command) or [*PREFECT, "worker", "start", "--pool", "coala", "--type", "process"]
        quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        with log.open("a") as output:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment | quick | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A test started in the background ignores Ctrl-C, and its children would too.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
            )
        try:
            yield process
        finally:
            kill_all(family(process.pid))
            process.wait(30)


@contextmanager
def world(folder: Path, **settings: str) -> Iterator[World]:
    """A server with its deployments that is gone afterwards, whatever happens."""
    server = World(folder, **settings)
    try:
        server.start()
        server.deploy()
        yield server
    finally:
        server.kill()


def flow_processes(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What a worker has started."""
    return [process for process in family(worker.pid) if process.pid != worker.pid]
