"""A real Prefect server in a process of its own, and what tests ask of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.flows.conftest import clean_environment, free_port, kill_group

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect"]


NAMES = {
    "coala/pipeline",
    "coala-data/data",
    "coala-head/head",
    "coala-sweep/sweep",
    "coala-generate/generate",
    "coala-gc/housekeeping",
    "coala-compare/compare",
    "coala-promote/promote",
}
"""Deployments of `prefect.yaml`."""


def urlopen_when_free(request: Request) -> Any:
    """Ask again where a server on SQLite is busy, which it says with 503, as Prefect's own client does."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return urlopen(request, timeout=30)
        except HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


class Server:
    """A running server, asked over HTTP and by Prefect's own command."""

    def __init__(self, home: Path, port: int) -> None:
        self.pages = f"http://127.0.0.1:{port}"
        self.api = f"{self.pages}/api"
        self.environment = clean_environment(
            PREFECT_HOME=str(home), PREFECT_API_URL=self.api, PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1"
        )

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.api}{path}", data=data, headers={"Content-Type": "application/json"})
        with urlopen_when_free(request) as answer:
            return json.load(answer)

    def prefect(self, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run Prefect's command, in the repository's root unless a folder is given."""
        return subprocess.run(
            [*PREFECT, *arguments],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def is_up(self) -> bool:
        try:
            return bool(self.ask("/health"))
        except OSError:
            return False


@contextmanager
def running_server(folder: Path, *, ui: bool = False) -> Iterator[Server]:
    """A server that is gone afterwards, whatever happens."""
    port = free_port()
    server = Server(folder / "home", port)
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--ui" if ui else "--no-ui"],
            env=server.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while not server.is_up():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        kill_group(process)
        process.wait(30)
