"""What each service runs: command, environment, order, and how it stops."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.services.environment import Environment
from flows.services.postgres import Postgres

NAMES = ("postgres", "prefect", "mlflow", "worker")


@dataclass(frozen=True)
class Program:
    """One service as a process; `environment` is all that it gets beside what is inherited."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    needs: tuple[str, ...] = ()
    stop_signal: str = "TERM"
    stop_seconds: int = 30
    user: str | None = None


def programs(environment: Environment, postgres: Postgres) -> dict[str, Program]:
    """Every service in the order of its start."""
    values = environment.values
    prefect = (sys.executable, "-m", "prefect")
    return {
        # INT is PostgreSQL's fast shutdown; TERM would wait for every client.
        "postgres": Program("postgres", postgres.command(), {}, stop_signal="INT", user=postgres.user),
        "prefect": Program(
            "prefect",
            (*prefect, "server", "start", "--host", values["COALA_BIND"], "--port", values["COALA_PREFECT_PORT"]),
            environment.prefect_server(),
            needs=("postgres",),
        ),
        "mlflow": Program("mlflow", _mlflow(environment), environment.mlflow_server(), needs=("postgres",)),
        "worker": Program(
            "worker",
            (*prefect, "worker", "start", "--pool", values["COALA_POOL"], "--type", "process")
            + ("--install-policy", "never"),
            environment.client(),
            needs=("prefect", "mlflow"),
            stop_seconds=60,
        ),
    }


def _mlflow(environment: Environment) -> tuple[str, ...]:
    values = environment.values
    names = ("localhost", "127.0.0.1", environment.host)
    hosts = [*names, *(f"{name}:*" for name in names), *filter(None, values["COALA_HOSTS"].split(","))]
    return (
        *(sys.executable, "-m", "mlflow", "server", "--app-name=basic-auth", "--workers=1"),
        f"--host={values['COALA_BIND']}",
        f"--port={values['COALA_MLFLOW_PORT']}",
        "--backend-store-uri=postgresql+psycopg:///mlflow",
        f"--artifacts-destination={environment.folder / 'mlflow' / 'artifacts'}",
        f"--allowed-hosts={','.join(hosts)}",
        f"--cors-allowed-origins={values.get('COALA_MLFLOW_URL') or environment.mlflow_url}",
    )


def log_file(folder: Path, name: str) -> Path:
    """Where a service's output goes."""
    return folder / "logs" / f"{name}.log"


def pid_file(folder: Path, name: str) -> Path:
    """Where a service says which process it is."""
    return folder / "pids" / name
