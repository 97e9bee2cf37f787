"""The environment file that the compose file and the processes share: secrets, ports and names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).parents[2]
ENV_FILE = ROOT / "docker" / ".env"
SECRETS = (
    "COALA_POSTGRES_PASSWORD",
    "COALA_PREFECT_DB_PASSWORD",
    "COALA_MLFLOW_DB_PASSWORD",
    "COALA_PREFECT_PASSWORD",
    "COALA_MLFLOW_PASSWORD",
    "COALA_MLFLOW_SECRET_KEY",
)
DEFAULTS = {
    "COALA_USER": "coala",
    "COALA_POOL": "coala",
    "COALA_BIND": "127.0.0.1",
    "COALA_PREFECT_PORT": "4200",
    "COALA_MLFLOW_PORT": "5000",
    "COALA_POSTGRES_PORT": "5433",
    "COALA_HOSTS": "",
}
_SHORTEST = 12  # MLflow refuses shorter passwords
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYTHONUNBUFFERED": "1",
}
# What decides which server is spoken to, and who speaks, comes from the file alone.
_OWN = ("PREFECT_", "MLFLOW_", "PG", "COALA_")


@dataclass(frozen=True)
class Environment:
    """Checked values of the environment file, and the folder of the services' state."""

    values: Mapping[str, str]
    folder: Path

    def __repr__(self) -> str:
        return f"Environment(folder={str(self.folder)!r})"  # values hold secrets

    @property
    def host(self) -> str:
        """Address by which this machine reaches the servers."""
        bind = self.values["COALA_BIND"]
        return "127.0.0.1" if bind == "0.0.0.0" else bind

    @property
    def prefect_url(self) -> str:
        """Prefect's address as this machine reaches it, without `/api`."""
        return f"http://{self.host}:{self.values['COALA_PREFECT_PORT']}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's address as this machine reaches it."""
        return f"http://{self.host}:{self.values['COALA_MLFLOW_PORT']}"

    def ports(self) -> dict[str, int]:
        """Port of each server by service name."""
        names = ("postgres", "prefect", "mlflow")
        return {name: int(self.values[f"COALA_{name.upper()}_PORT"]) for name in names}

    def prefect_login(self) -> tuple[str, str]:
        """User and password of Prefect."""
        return self.values["COALA_USER"], self.values["COALA_PREFECT_PASSWORD"]

    def client(self) -> dict[str, str]:
        """Variables with which Prefect's and MLflow's clients reach the services, and keys that the file adds."""
        return {
            **_QUIET,
            **{name: value for name, value in self.values.items() if not name.startswith("COALA_")},
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_API_AUTH_STRING": ":".join(self.prefect_login()),
            "PREFECT_LOGGING_EXTRA_LOGGERS": "coala",
            "PREFECT_WORKER_QUERY_SECONDS": "5",
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": self.values["COALA_USER"],
            "MLFLOW_TRACKING_PASSWORD": self.values["COALA_MLFLOW_PASSWORD"],
            "COALA_POOL": self.values["COALA_POOL"],
            "COALA_MLFLOW_URL": self.values.get("COALA_MLFLOW_URL") or self.mlflow_url,
        }

    def prefect_server(self) -> dict[str, str]:
        """Variables of Prefect's server."""
        public = self.values.get("COALA_PREFECT_URL") or self.prefect_url
        return {
            **_QUIET,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_API_AUTH_STRING": ":".join(self.prefect_login()),
            "PREFECT_SERVER_UI_API_URL": f"{public}/api",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": public,
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.folder / "prefect" / "ui"),
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "10",
            "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
            "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
            "PREFECT_SERVER_DATABASE_PORT": self.values["COALA_POSTGRES_PORT"],
            "PREFECT_SERVER_DATABASE_NAME": "prefect",
            "PREFECT_SERVER_DATABASE_USER": "prefect",
            "PREFECT_SERVER_DATABASE_PASSWORD": self.values["COALA_PREFECT_DB_PASSWORD"],
        }

    def mlflow_server(self) -> dict[str, str]:
        """Variables of MLflow's server; its addresses of PostgreSQL are empty, so libpq reads host and login here."""
        return {
            **_QUIET,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "docker" / "mlflow-auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": self.values["COALA_USER"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.values["COALA_MLFLOW_PASSWORD"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.values["COALA_MLFLOW_SECRET_KEY"],
            "PGHOST": "127.0.0.1",
            "PGPORT": self.values["COALA_POSTGRES_PORT"],
            "PGUSER": "mlflow",
            "PGPASSWORD": self.values["COALA_MLFLOW_DB_PASSWORD"],
        }

    def postgres_setup(self) -> dict[str, str]:
        """Variables of the script that makes roles and databases."""
        names = ("COALA_PREFECT_DB_PASSWORD", "COALA_MLFLOW_DB_PASSWORD")
        return {name: self.values[name] for name in names} | {
            "POSTGRES_PASSWORD": self.values["COALA_POSTGRES_PASSWORD"],
            "PGHOST": "127.0.0.1",
            "PGPORT": self.values["COALA_POSTGRES_PORT"],
        }


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep what a service may inherit: everything but variables of PostgreSQL, Prefect, MLflow and COALA."""
    return {name: value for name, value in environ.items() if not name.startswith(_OWN)}


def read_environment(file: Path, folder: Path, environ: Mapping[str, str] | None = None) -> Environment:
    """Read the environment file; what the process environment sets wins, as with compose.

    Parameters
    ----------
    file
        Lines of NAME=VALUE; may be absent where the environment holds every secret.
    folder
        Where the services keep their state.
    environ
        The process environment, `os.environ` if absent.

    Raises
    ------
    ValueError
        If a secret is missing or too short, a port is none, or others may read the file.
    """
    environ = os.environ if environ is None else environ
    if file.exists() and file.stat().st_mode & 0o077:
        raise ValueError(
            f"`coala services` must be the only reader of the environment file, got mode "
            f"{file.stat().st_mode & 0o777:o} of {file}; run `chmod 600 {file}`."
        )
    given = dotenv_values(file, interpolate=False) if file.exists() else {}
    set_here = {name: value for name, value in environ.items() if name.startswith("COALA_")}
    values = DEFAULTS | {name: value for name, value in (given | set_here).items() if value}
    _check_secrets(values, file)
    _check_ports(values, file)
    return Environment(values, folder.absolute())


def _check_secrets(values: Mapping[str, str], file: Path) -> None:
    missing = [name for name in SECRETS if name not in values]
    if missing:
        raise ValueError(
            f"`coala services` needs every secret in {file}, got none for {', '.join(missing)}; "
            "run docker/make-env, which makes the file, or set each to what `openssl rand -hex 32` prints."
        )
    short = [name for name in SECRETS if len(values[name]) < _SHORTEST]
    if short:
        raise ValueError(
            f"`coala services` needs secrets of at least {_SHORTEST} characters, got fewer for {', '.join(short)} "
            f"in {file}; set each to what `openssl rand -hex 32` prints."
        )


def _check_ports(values: Mapping[str, str], file: Path) -> None:
    for name in ("COALA_PREFECT_PORT", "COALA_MLFLOW_PORT", "COALA_POSTGRES_PORT"):
        value = values[name]
        if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
            raise ValueError(f"`{name}` must be a port, 1 to 65535, got {value!r}; correct it in {file}.")
