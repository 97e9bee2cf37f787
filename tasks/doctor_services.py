"""The doctor's probes of the two servers: Prefect and MLflow."""

from __future__ import annotations

import json
import os
import shlex
from base64 import b64encode
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from packaging.version import InvalidVersion, Version

from tasks.doctor_check import Check
from tasks.doctor_machine import writable_folder
from tasks.tracking import tracking_uri

if TYPE_CHECKING:
    from prefect.settings import Settings

_TIMEOUT = 3.0
_CLOUD = "api.prefect.cloud"
_MLFLOW_LOGIN = (
    "read -r MLFLOW_TRACKING_USERNAME; read -rs MLFLOW_TRACKING_PASSWORD; "
    "export MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD"
)
_PREFECT_LOGIN = "unset PREFECT_API_KEY; read -rs PREFECT_API_AUTH_STRING && export PREFECT_API_AUTH_STRING"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_SQLITE_MAGIC = b"SQLite format 3\0"


def check_prefect() -> Check:
    """Look whether the configured Prefect server answers and is of the client's version."""
    settings = _prefect_settings()
    if settings.api.url is None:
        return _without_server(settings)
    url, headers = settings.api.url.rstrip("/"), _prefect_headers(settings)
    try:
        health = _get(f"{url}/health", headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Check("Prefect server", "problem", f"{url} does not answer: {_reason(error)}", _start_prefect(url))
    if health.status_code != httpx.codes.OK:
        return _not_prefect(url, f"{url} answers {health.status_code} to GET /health")
    if _CLOUD in url:
        return Check("Prefect server", "ok", f"{url} answers")
    answer = _get(f"{url}/admin/version", headers)
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        finding = f"{url} answers, but refuses this client ({answer.status_code})"
        return Check("Prefect server", "problem", finding, _PREFECT_LOGIN)
    return _compare_versions(url, _served_version(answer))


def check_prefect_key() -> Check:
    """Look for a key of Prefect Cloud that would be sent to a server of one's own."""
    settings = _prefect_settings()
    if settings.api.key is None:
        return Check("Prefect key", "ok", "no PREFECT_API_KEY")
    if settings.api.url is None or _CLOUD in settings.api.url:
        return Check("Prefect key", "ok", "PREFECT_API_KEY is set, for Prefect Cloud")
    finding = f"PREFECT_API_KEY, a key of Prefect Cloud, is set beside {settings.api.url}, which may refuse it (401)"
    return Check("Prefect key", "note", finding, "unset PREFECT_API_KEY")


def check_mlflow(store: Path) -> Check:
    """Look whether the tracking server answers, or the tracking database can be written."""
    try:
        address = tracking_uri(store)
    except ValueError as error:
        return Check("MLflow", "problem", str(error), "unset MLFLOW_TRACKING_URI")
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        return _check_mlflow_server(address.rstrip("/"))
    if parts.scheme == "sqlite":
        return _check_mlflow_file(Path(parts.path[1:]))
    return Check("MLflow", "note", f"{parts.scheme} database on {parts.hostname}, which is not probed")


def _prefect_settings() -> Settings:
    from prefect.settings import Settings

    return Settings()


def _without_server(settings: Settings) -> Check:
    if not settings.server.ephemeral.enabled:
        finding = "no server configured, and temporary ones are switched off"
        return Check("Prefect server", "problem", finding, "prefect config set PREFECT_SERVER_EPHEMERAL_ENABLED=true")
    finding = "no server configured: runs use a temporary one, which takes 5 to 20 s to start"
    return Check("Prefect server", "note", finding, "prefect server start")


def _prefect_headers(settings: Settings) -> dict[str, str]:
    """Authorisation as Prefect's client sends it: user and password before the key."""
    if settings.api.auth_string is not None:
        token = b64encode(settings.api.auth_string.get_secret_value().encode()).decode()
        return {"Authorization": f"Basic {token}"}
    return {} if settings.api.key is None else {"Authorization": f"Bearer {settings.api.key.get_secret_value()}"}


def _get(address: str, headers: dict[str, str] | None = None) -> httpx.Response:
    url = httpx.URL(address)
    # Without its credentials the address may appear in httpx's log.
    login = httpx.BasicAuth(url.username, url.password) if url.userinfo else None
    return httpx.get(url.copy_with(userinfo=b""), headers=headers, auth=login, timeout=_TIMEOUT)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()


def _start_prefect(url: str) -> str:
    parts = httpx.URL(url)
    if parts.host in _LOCAL:
        return f"prefect server start --host {parts.host} --port {parts.port or 80}"
    return f"curl -i {shlex.quote(f'{url}/health')}"


def _not_prefect(url: str, finding: str) -> Check:
    remedy = f"curl -i {shlex.quote(f'{url}/health')}" if url.endswith("/api") else f"export PREFECT_API_URL={url}/api"
    return Check("Prefect server", "problem", finding, remedy)


def _served_version(answer: httpx.Response) -> Version | None:
    try:
        return Version(answer.json())
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, InvalidVersion):
        return None


def _compare_versions(url: str, served: Version | None) -> Check:
    name, client = "Prefect server", Version(version("prefect"))
    if served is None:
        return _not_prefect(url, f"{url} answers, but not as a Prefect server")
    if served == client:
        return Check(name, "ok", f"{url} answers, version {served} like this client")
    finding = f"{url} runs Prefect {served}, this client {client}"
    if served > client:
        return Check(name, "note", f"{finding}; equal versions are safest", f"python -m pip install prefect=={served}")
    remedy = f"python -m pip install prefect=={client}  # where the server runs, then restart it"
    return Check(name, "problem", f"{finding}; a server must not be older than its clients", remedy)


def _check_mlflow_server(address: str) -> Check:
    host, port = urlsplit(address).hostname, urlsplit(address).port or 5000
    start = f"mlflow server --host {host} --port {port}"
    try:
        answer = _get(f"{address}/health")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        remedy = start if host in _LOCAL else f"curl -i {shlex.quote(f'{address}/health')}"
        return Check("MLflow", "problem", f"{address} does not answer: {_reason(error)}", remedy)
    if answer.status_code != httpx.codes.OK or answer.text.strip() != "OK":
        finding = f"{address} answers {answer.status_code} to GET /health, but not as an MLflow server"
        return Check("MLflow", "problem", finding, "unset MLFLOW_TRACKING_URI")
    return _check_mlflow_access(address, f"{host}:{port}")


def _check_mlflow_access(address: str, netloc: str) -> Check:
    """Make a harmless call: MLflow answers GET /health even to those whom it refuses everything else."""
    answer = _get(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", _mlflow_headers())
    if answer.status_code == httpx.codes.FORBIDDEN and "host header" in answer.text.lower():
        host, _, port = netloc.rpartition(":")
        remedy = f"mlflow server --host 0.0.0.0 --port {port} --allowed-hosts {host},{netloc}"
        return Check("MLflow", "problem", f"{address} refuses the host name {host} (403)", remedy)
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        finding = f"{address} answers, but refuses this client ({answer.status_code})"
        return Check("MLflow", "problem", finding, _MLFLOW_LOGIN)
    if not answer.is_success:
        finding = f"{address} answers {answer.status_code} to a search for experiments"
        return Check("MLflow", "problem", finding, f"curl -i {shlex.quote(str(answer.url))}")
    return Check("MLflow", "ok", f"{address} answers")


def _mlflow_headers() -> dict[str, str]:
    """Authorisation as MLflow's client sends it: user and password before the token."""
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _check_mlflow_file(path: Path) -> Check:
    try:
        finding = _probe_database(path)
    except OSError as error:
        folder = shlex.quote(str(path.parent))
        remedy = f"mkdir -p {folder} && chmod u+rwx {folder}"
        return Check("MLflow", "problem", f"{path} cannot be written: {error}", remedy)
    if finding is None:
        remedy = shlex.join(["mv", str(path), f"{path}.other"])
        return Check("MLflow", "problem", f"{path} is not an SQLite database", remedy)
    return Check("MLflow", "ok", finding)


def _probe_database(path: Path) -> str | None:
    """Say what is at the path, or None for a file of another kind; opens for writing but writes nothing."""
    if path.exists():
        with path.open("r+b") as file:
            start = file.read(len(_SQLITE_MAGIC))
        return f"local database {path}" if start in (b"", _SQLITE_MAGIC) else None
    writable_folder(path.parent)
    return f"local database {path}, not made yet"
