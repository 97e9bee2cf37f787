"""Real services as processes, with random secrets, and what tests ask of them."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.services.environment import SECRETS, Environment, read_environment
from flows.services.postgres import find_postgres
from tests.flows.conftest import clean_environment, free_port

ROOT = Path(__file__).parents[2]
COALA = [sys.executable, "-m", "flows.cli", "services"]


class Services:
    """One store's services."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.folder = store / "services"
        self.started = ""
        self.file = store / "env"
        self.secrets = {name: secrets.token_hex(32) for name in SECRETS}
        self.ports = {name: free_port() for name in ("POSTGRES", "PREFECT", "MLFLOW")}
        values = self.secrets | {f"COALA_{name}_PORT": str(port) for name, port in self.ports.items()}
        self.file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        self.file.chmod(0o600)

    @property
    def environment(self) -> Environment:
        return read_environment(self.file, self.folder, {})

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        file = [] if command == "down" else ["--env-file", str(self.file)]
        return subprocess.Popen(
            [*COALA, command, "--store", str(self.store), *file, *arguments],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str, *arguments: str) -> str:
        """Run a command that must succeed, and return what it said."""
        with self.start(command, *arguments) as process:
            said, _ = process.communicate(timeout=400)
        assert process.returncode == 0, said + self.logs()
        return said

    def logs(self) -> str:
        files = sorted((self.folder / "logs").glob("*"))
        return "".join(f"\n== {file.name}\n{file.read_text(errors='replace')}" for file in files)

    def prefect(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Ask Prefect with the login; GET, or POST where there is a body."""
        method = method or ("GET" if body is None else "POST")
        url = f"{self.environment.prefect_url}/api{path}"
        answer = httpx.request(method, url, json=body, auth=self.environment.prefect_login(), timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def sql(self, role: str, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        """Ask PostgreSQL as Prefect's or MLflow's role."""
        postgres = find_postgres(self.environment)
        variables = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": role, "PGDATABASE": database}
        variables["PGPASSWORD"] = self.secrets[f"COALA_{role.upper()}_DB_PASSWORD"]
        command = [str(postgres.binaries / "psql"), "--no-psqlrc", "-At", "-c", statement]
        return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)


def need_services() -> None:
    """Skip where PostgreSQL or the extra `service` is not installed."""
    missing = [name for name in ("supervisor", "psycopg", "flask_wtf") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra `service` is not installed: no {', '.join(missing)}")
    try:
        find_postgres(
            Environment({"COALA_POSTGRES_PORT": "1", "COALA_PREFECT_PORT": "1", "COALA_MLFLOW_PORT": "1"}, ROOT)
        )
    except FileNotFoundError as error:
        pytest.skip(str(error))


@contextmanager
def store_for_services() -> Iterator[Services]:
    """A store that PostgreSQL's user can reach; nothing runs afterwards, whatever happens."""
    store = Path(tempfile.mkdtemp(prefix="coala-services-"))
    store.chmod(0o755)
    services = Services(store)
    try:
        yield services
    finally:
        with services.start("down") as process:
            process.communicate(timeout=240)
        shutil.rmtree(store, ignore_errors=True)


def wait_until(holds: Any, seconds: float, what: str) -> Any:
    """Ask again until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.5)
    return found
