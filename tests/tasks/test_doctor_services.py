import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prefect import __version__ as PREFECT

from tasks import doctor_services
from tasks.doctor_services import check_mlflow, check_prefect, check_prefect_key
from tests.tasks.local_http import LocalServer, closed_port, serve


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with serve() as server:
        yield server


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "profiles.toml"))


def good_prefect(server: LocalServer, monkeypatch: pytest.MonkeyPatch, version: str = PREFECT) -> None:
    server.answers["/api/health"] = (200, "true")
    server.answers["/api/admin/version"] = (200, json.dumps(version))
    monkeypatch.setenv("PREFECT_API_URL", f"{server.address}/api")


# Prefect


def test_prefect_server_of_the_same_version_is_fine(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    good_prefect(server, monkeypatch)
    check = check_prefect()
    assert (check.status, PREFECT in check.finding) == ("ok", True)
    assert [path for path, _ in server.asked] == ["/api/health", "/api/admin/version"]


@pytest.mark.parametrize(("version", "status"), [("3.0.0", "problem"), ("99.0.0", "note")])
def test_prefect_server_of_another_version(
    version: str, status: str, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_prefect(server, monkeypatch, version)
    check = check_prefect()
    assert check.status == status
    assert version in check.finding
    # An old server is upgraded to the client's version, an old client to the server's.
    assert f"prefect=={PREFECT if status == 'problem' else version}" in check.remedy


def test_prefect_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    check = check_prefect()
    assert (check.status, "ConnectError" in check.finding) == ("problem", True)
    assert check.remedy == f"prefect server start --host 127.0.0.1 --port {port}"


def test_prefect_address_without_api(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    good_prefect(server, monkeypatch)
    monkeypatch.setenv("PREFECT_API_URL", server.address)
    check = check_prefect()
    assert (check.status, check.remedy) == ("problem", f"export PREFECT_API_URL={server.address}/api")


@pytest.mark.parametrize("body", ["<html>", "7", '"not a version"'])
def test_something_else_on_prefects_port(body: str, server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    good_prefect(server, monkeypatch)
    server.answers["/api/admin/version"] = (200, body)
    check = check_prefect()
    assert (check.status, "not as a Prefect server" in check.finding) == ("problem", True)


def test_prefect_server_that_refuses_the_client(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    good_prefect(server, monkeypatch)
    server.answers["/api/admin/version"] = (401, "")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_1")
    check = check_prefect()
    assert (check.status, "refuses this client (401)" in check.finding) == ("problem", True)
    assert server.asked[-1] == ("/api/admin/version", "Bearer pnu_1")


def test_prefect_login_goes_as_basic_authorisation(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    good_prefect(server, monkeypatch)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:pass")
    assert check_prefect().status == "ok"
    assert server.asked[-1][1] == "Basic YWRtaW46cGFzcw=="  # base64 of admin:pass


def test_no_prefect_server_configured() -> None:
    check = check_prefect()
    assert (check.status, check.remedy) == ("note", "prefect server start")
    assert "temporary" in check.finding


def test_no_prefect_server_and_no_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_ENABLED", "false")
    assert check_prefect().status == "problem"


@pytest.mark.parametrize(
    ("url", "key", "status"),
    [
        (None, None, "ok"),
        ("https://api.prefect.cloud/api/accounts/a/workspaces/b", "pnu_1", "ok"),
        ("http://127.0.0.1:4200/api", "pnu_1", "note"),
    ],
)
def test_a_cloud_key_beside_a_server_of_ones_own(
    url: str | None, key: str | None, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PREFECT_API_URL", url), ("PREFECT_API_KEY", key)):
        if value is not None:
            monkeypatch.setenv(name, value)
    check = check_prefect_key()
    assert check.status == status
    assert "pnu_1" not in repr(check)


# MLflow


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


@pytest.mark.parametrize(
    ("health", "search", "status", "remedy"),
    [
        ((200, "OK"), (200, "{}"), "ok", ""),
        ((200, "<html>"), (200, "{}"), "problem", "unset MLFLOW_TRACKING_URI"),
        ((500, "OK"), (200, "{}"), "problem", "unset MLFLOW_TRACKING_URI"),
        # MLflow 3.17 answers GET /health under any host name, and refuses the rest.
        ((200, "OK"), (403, "Invalid Host header"), "problem", "--allowed-hosts 127.0.0.1,127.0.0.1:"),
        ((200, "OK"), (401, "log in"), "problem", "read -r MLFLOW_TRACKING_USERNAME"),
        ((200, "OK"), (403, "not yours"), "problem", "read -r MLFLOW_TRACKING_USERNAME"),
        ((200, "OK"), (503, "starting"), "problem", "curl -i"),
    ],
)
def test_mlflow_server(
    health: tuple[int, str],
    search: tuple[int, str],
    status: str,
    remedy: str,
    server: LocalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.answers.update({"/health": health, SEARCH: search})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address + "/")
    check = check_mlflow(tmp_path)
    assert check.status == status
    assert remedy in check.remedy


@pytest.mark.parametrize(
    ("variables", "authorisation"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_TOKEN": "t"}, "Bearer t"),
        # base64 of admin:pass
        ({"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "pass"}, "Basic YWRtaW46cGFzcw=="),
    ],
)
def test_mlflow_login(
    variables: dict[str, str],
    authorisation: str | None,
    server: LocalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.answers.update({"/health": (200, "OK"), SEARCH: (200, "{}")})
    for name, value in (variables | {"MLFLOW_TRACKING_URI": server.address}).items():
        monkeypatch.setenv(name, value)
    assert check_mlflow(tmp_path).status == "ok"
    assert server.asked[-1] == (SEARCH, authorisation)


def test_mlflow_server_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    check = check_mlflow(tmp_path)
    assert (check.status, check.remedy) == ("problem", f"mlflow server --host 127.0.0.1 --port {port}")


def test_a_silent_server_does_not_hold_the_doctor_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_services, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        check = check_mlflow(tmp_path)
    assert (check.status, "ReadTimeout" in check.finding) == ("problem", True)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns"])
def test_a_folder_is_no_tracking_address(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    check = check_mlflow(tmp_path)
    assert (check.status, check.remedy) == ("problem", "unset MLFLOW_TRACKING_URI")


def test_a_local_database_that_is_to_be_made(tmp_path: Path) -> None:
    check = check_mlflow(tmp_path / "store")
    assert check.status == "ok"
    assert str(tmp_path / "store" / "mlflow" / "mlflow.db") in check.finding
    assert list(tmp_path.iterdir()) == []


def test_a_local_database_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table runs (id integer)")
    content = path.read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    assert check_mlflow(tmp_path).status == "ok"
    assert path.read_bytes() == content


def test_a_file_that_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    path.write_text("not a database at all")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    check = check_mlflow(tmp_path)
    assert (check.status, check.remedy) == ("problem", f"mv {path} {path}.other")


def test_a_database_below_a_file_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/runs.db")
    check = check_mlflow(tmp_path)
    assert (check.status, "is not a folder" in check.finding) == ("problem", True)


def test_another_database_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann@db.example/mlflow")
    check = check_mlflow(tmp_path)
    assert (check.status, check.finding) == ("note", "postgresql database on db.example, which is not probed")
