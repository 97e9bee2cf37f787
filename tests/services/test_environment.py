"""The environment file: what is refused at the door, what wins, and who gets which secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.services.environment import SECRETS, Environment, inherited, read_environment

GIVEN = {name: f"planted-{name}" for name in SECRETS}


def write(path: Path, values: dict[str, str], mode: int = 0o600) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    path.chmod(mode)
    return path


def read(path: Path, **environ: str) -> Environment:
    return read_environment(path, path.parent / "services", environ)


def test_every_missing_secret_is_named_in_one_sentence(tmp_path: Path) -> None:
    file = write(tmp_path / ".env", {**GIVEN, SECRETS[1]: "", "X": "y"} | {SECRETS[4]: ""})
    with pytest.raises(ValueError, match=f"got none for {SECRETS[1]}, {SECRETS[4]}; run docker/make-env") as caught:
        read(file)
    assert "planted" not in str(caught.value)


def test_without_a_file_the_environment_will_do(tmp_path: Path) -> None:
    assert read(tmp_path / "absent", **GIVEN).prefect_login() == ("coala", "planted-COALA_PREFECT_PASSWORD")
    with pytest.raises(ValueError, match=", ".join(SECRETS)):
        read(tmp_path / "absent")


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / ".env", GIVEN | {"COALA_MLFLOW_PORT": "5001", "COALA_PREFECT_PORT": "4201"})
    found = read(file, COALA_MLFLOW_PORT="5002", PREFECT_PORT="9")
    assert found.ports() == {"postgres": 5433, "prefect": 4201, "mlflow": 5002}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path / ".env", GIVEN, mode)
    with pytest.raises(ValueError, match=rf"only reader of the environment file, got mode {mode:o}.*chmod 600"):
        read(file)


def test_a_short_secret_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = write(tmp_path / ".env", GIVEN | {"COALA_MLFLOW_PASSWORD": "password123"})
    with pytest.raises(ValueError, match="at least 12 characters, got fewer for COALA_MLFLOW_PASSWORD") as caught:
        read(file)
    assert "password123" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "80x", "８０"])
def test_a_port_must_be_one(tmp_path: Path, port: str) -> None:
    file = write(tmp_path / ".env", GIVEN | {"COALA_PREFECT_PORT": port})
    with pytest.raises(ValueError, match="`COALA_PREFECT_PORT` must be a port, 1 to 65535"):
        read(file)


def test_each_program_gets_its_own_secrets_only(tmp_path: Path) -> None:
    environment = read(write(tmp_path / ".env", GIVEN))

    def secrets(variables: dict[str, str]) -> set[str]:
        return {name for name in SECRETS if any(GIVEN[name] in value for value in variables.values())}

    assert secrets(environment.client()) == {"COALA_PREFECT_PASSWORD", "COALA_MLFLOW_PASSWORD"}
    assert secrets(environment.prefect_server()) == {"COALA_PREFECT_PASSWORD", "COALA_PREFECT_DB_PASSWORD"}
    assert secrets(environment.mlflow_server()) == {
        *("COALA_MLFLOW_PASSWORD", "COALA_MLFLOW_DB_PASSWORD", "COALA_MLFLOW_SECRET_KEY")
    }


def test_keys_for_runs_reach_the_worker_only(tmp_path: Path) -> None:
    environment = read(write(tmp_path / ".env", GIVEN | {"OPENAI_API_KEY": "planted-key"}))
    assert environment.client()["OPENAI_API_KEY"] == "planted-key"
    assert "planted-key" not in {*environment.prefect_server().values(), *environment.mlflow_server().values()}


def test_a_service_inherits_nothing_that_could_mislead_it() -> None:
    ambient = {"PREFECT_API_KEY": "k", "PREFECT_PROFILE": "p", "PGPASSWORD": "x", "MLFLOW_TRACKING_URI": "u"}
    assert inherited({**ambient, **GIVEN, "PATH": "/bin", "HOME": "/root"}) == {"PATH": "/bin", "HOME": "/root"}


def test_secrets_are_not_shown_by_mistake(tmp_path: Path) -> None:
    assert "planted" not in repr(read(write(tmp_path / ".env", GIVEN)))


@pytest.mark.parametrize(
    ("bind", "host"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("10.1.2.3", "10.1.2.3")]
)
def test_this_machine_reaches_the_servers_where_they_listen(tmp_path: Path, bind: str, host: str) -> None:
    found = read(write(tmp_path / ".env", GIVEN | {"COALA_BIND": bind}))
    assert (found.prefect_url, found.mlflow_url) == (f"http://{host}:4200", f"http://{host}:5000")


def test_the_browser_may_have_another_address(tmp_path: Path) -> None:
    found = read(write(tmp_path / ".env", GIVEN | {"COALA_PREFECT_URL": "https://prefect.example"}))
    assert found.prefect_server()["PREFECT_SERVER_UI_API_URL"] == "https://prefect.example/api"
    assert found.client()["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
