"""The compose file as compose reads it: what starts, what is refused, what is published, what linters say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.services.environment import DEFAULTS, SECRETS, Environment
from flows.services.postgres import Postgres
from flows.services.programs import programs

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
SERVERS = ("postgres", "prefect", "mlflow")
OURS = ("prefect", "mlflow", "deploy", "worker")
GIVEN = {name: f"planted-{name}" for name in SECRETS}
OPENING = re.compile(r"\$\{(\w+)(:[-?+])?")


class Refused(Exception):
    """A variable that compose insists on is not set."""


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Replace ${A}, ${A:-default}, ${A:+replacement} and ${A:?message}, nested ones too, as compose documents it."""
    found = OPENING.search(text)
    if found is None:
        return text
    end = closing_brace(text, found.end())
    value, word = values.get(found[1], ""), text[found.end() : end]
    if found[2] == ":?" and not value:
        raise Refused(found[1])
    chosen = {":-": value or word, ":+": word if value else ""}.get(found[2], value)
    return text[: found.start()] + interpolate(chosen, values) + interpolate(text[end + 1 :], values)


def closing_brace(text: str, position: int) -> int:
    depth = 1
    while True:
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
        position += 1


def compose(**values: str) -> dict[str, Any]:
    """The file with variables set, and those of `GIVEN` unless they are set otherwise."""
    content: Any = yaml.safe_load((DOCKER / "compose.yaml").read_text())

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return interpolate(node, GIVEN | values) if isinstance(node, str) else node

    found: dict[str, Any] = walk(content)
    return found


@cache
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


@cache
def process_form() -> dict[str, Any]:
    """The same services as `coala services` runs them."""
    environment = Environment(DEFAULTS | GIVEN, Path("/state"))
    return programs(environment, Postgres(Path("/bin"), Path("/state/postgres"), 5433, None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a${X}b", "ab"),
        ("${Y}", "y"),
        ("${X:-${Y:-1}}/z", "y/z"),
        ("${X:-http://h:${X:-42}}/z", "http://h:42/z"),
        ("a${Y:+,${Y}}", "a,y"),
        ("a${X:+,${X}}", "a"),
    ],
)
def test_the_reading_of_variables_is_that_of_compose(text: str, expected: str) -> None:
    assert interpolate(text, {"Y": "y", "X": ""}) == expected


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("value", ["", None])
def test_nothing_starts_without_every_secret(secret: str, value: str | None) -> None:
    with pytest.raises(Refused, match=secret):
        compose(**{secret: value or ""})


def test_no_secret_is_in_a_command() -> None:
    for service in services().values():
        words = json.dumps([service.get("command"), service.get("healthcheck")])
        assert "planted" not in words


def test_each_service_knows_its_own_secrets_only() -> None:
    known = {
        name: {secret for secret in SECRETS if GIVEN[secret] in json.dumps(service.get("environment"))}
        for name, service in services().items()
    }
    assert known == {
        "postgres": {"COALA_POSTGRES_PASSWORD", "COALA_PREFECT_DB_PASSWORD", "COALA_MLFLOW_DB_PASSWORD"},
        "prefect": {"COALA_PREFECT_PASSWORD", "COALA_PREFECT_DB_PASSWORD"},
        "mlflow": {"COALA_MLFLOW_PASSWORD", "COALA_MLFLOW_DB_PASSWORD", "COALA_MLFLOW_SECRET_KEY"},
        "deploy": {"COALA_PREFECT_PASSWORD"},
        "worker": {"COALA_PREFECT_PASSWORD", "COALA_MLFLOW_PASSWORD"},
    }


@pytest.mark.parametrize("name", ["postgres", *OURS])
def test_every_service_is_confined_and_looks_after_itself(name: str) -> None:
    here = services()[name]
    assert here["read_only"] is True
    assert here["cap_drop"] == ["ALL"]
    assert here["security_opt"] == ["no-new-privileges:true"]
    assert here["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert here["pids_limit"] > 0 and here["mem_limit"]
    assert here["restart"] == ("on-failure:5" if name == "deploy" else "unless-stopped")
    assert ("healthcheck" in here) == (name != "deploy")
    assert "privileged" not in here and "network_mode" not in here


@pytest.mark.parametrize("name", OURS)
def test_ours_share_one_image_built_from_the_dockerfile(name: str) -> None:
    here = services()[name]
    assert here["image"] == "coala:local"
    assert (DOCKER / here["build"]["context"]).resolve() == ROOT
    assert (ROOT / here["build"]["dockerfile"]).is_file()
    assert "user" not in here  # the image's own, which is not root


def test_postgres_is_pinned_and_not_root() -> None:
    here = services()["postgres"]
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", here["image"])
    assert here["user"] == "999:999"


def test_servers_are_published_on_the_loopback_unless_told_otherwise() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {"prefect": ["127.0.0.1:4200:4200"], "mlflow": ["127.0.0.1:5000:5000"]}
    told = compose(COALA_BIND="10.1.2.3", COALA_PREFECT_PORT="80")["services"]["prefect"]
    assert told["ports"] == ["10.1.2.3:80:4200"]
    assert told["environment"]["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:80/api"


def test_postgres_is_reached_by_the_servers_only() -> None:
    assert compose()["networks"] == {"database": {"internal": True}}
    networks = {name: service.get("networks", ["default"]) for name, service in services().items()}
    assert {name for name, joined in networks.items() if "database" in joined} == set(SERVERS)
    assert networks["postgres"] == ["database"]


def test_services_start_in_order() -> None:
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}
    assert {name: service.get("depends_on") for name, service in services().items()} == {
        "postgres": None,
        "prefect": {"postgres": healthy},
        "mlflow": {"postgres": healthy},
        "deploy": {"prefect": healthy},
        "worker": {"prefect": healthy, "mlflow": healthy, "deploy": done},
    }


def options(command: list[str]) -> dict[str, str]:
    """Options and their values, whether joined by = or by a space."""
    words = " ".join(command).replace("=", " ").split(" --")[1:]
    return {option: value for option, _, value in (word.partition(" ") for word in words)}


def test_mlflow_takes_its_own_names_only() -> None:
    hosts = options(services()["mlflow"]["command"])["allowed-hosts"].split(",")
    assert {"mlflow", "mlflow:5000"} <= set(hosts)
    assert any(fnmatch("127.0.0.1:5000", host) for host in hosts)
    assert not any(fnmatch("evil.example:5000", host) for host in hosts)
    more = compose(COALA_HOSTS="m.example,n.example")["services"]["mlflow"]["command"]
    assert options(more)["allowed-hosts"].split(",") == [*hosts, "m.example", "n.example"]


@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker"])
def test_processes_and_containers_take_the_same_options(name: str) -> None:
    container, process = options(services()[name]["command"]), options(list(process_form()[name].command))
    only_here = {"with-healthcheck"} if name == "worker" else set()
    assert set(container) - only_here == set(process)
    differ = {option for option in process if container[option] != process[option]}
    assert differ <= {"host", "artifacts-destination", "allowed-hosts"}


@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker"])
def test_processes_and_containers_get_the_same_variables(name: str) -> None:
    image = {"DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "PYTHONUNBUFFERED"}
    image |= {"PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_HOME"}
    container_only = {"TMPDIR", "OPENAI_API_KEY"} if name == "worker" else set()
    container, process = services()[name]["environment"], process_form()[name].environment
    assert set(container) - container_only == set(process) - image
    differ = {name for name in set(container) & set(process) if container[name] != process[name]}
    places = "STATIC_DIRECTORY|DATABASE_HOST|DATABASE_PORT|PGHOST|PGPORT|CONFIG_PATH|_API_URL|TRACKING_URI"
    assert [name for name in differ if not re.search(places, name)] == []


def test_volumes_are_declared_used_and_owned_by_the_user() -> None:
    mounts = [mount.split(":") for service in services().values() for mount in service.get("volumes", [])]
    named = {(source, target) for source, target, *_ in mounts if not source.startswith(".")}
    assert {source for source, _ in named} == set(compose()["volumes"])
    text = (DOCKER / "Dockerfile").read_text()
    made = shlex.split(text.partition("mkdir -p")[2].partition("&&")[0].replace("\\\n", " "))
    assert {target for source, target in named if source != "postgres"} == {folder for folder in made}
    owned = shlex.split(text.partition("chown -R coala:coala")[2].partition("\n")[0])
    assert all(any(folder.startswith(top) for top in owned) for folder in made)
    files = {target: mode for source, target, *mode in mounts if source.startswith(".")}
    assert files == {"/input": ["ro"], "/docker-entrypoint-initdb.d/databases.sh": ["ro"]}


def example() -> dict[str, str]:
    lines = [line for line in (DOCKER / "env.example").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_every_variable_is_in_the_example_and_none_besides() -> None:
    text = "".join(path.read_text() for path in DOCKER.glob("compose*.yaml"))
    used = {name for name, _ in OPENING.findall(text)}
    assert set(example()) == used | set(DEFAULTS) | set(SECRETS)


def test_the_example_holds_no_secret_and_the_defaults_of_both_forms() -> None:
    assert {name for name in SECRETS if example()[name]} == set()
    assert DEFAULTS.items() <= example().items()
    text = (DOCKER / "compose.yaml").read_text()
    for name, default in re.findall(r"\$\{(\w+):-([^${}]+)\}", text):
        assert example()[name] == default


def test_make_env_gives_every_secret_a_value_of_its_own_to_one_reader(tmp_path: Path) -> None:
    for name in ("env.example", "make-env"):
        shutil.copy(DOCKER / name, tmp_path / name)
    subprocess.run([tmp_path / "make-env"], check=True)
    made = tmp_path / ".env"
    lines = dict(line.split("=", 1) for line in made.read_text().splitlines() if line and line[0] != "#")
    assert {name: value for name, value in lines.items() if name not in SECRETS} == {
        name: value for name, value in example().items() if name not in SECRETS
    }
    assert len({lines[name] for name in SECRETS}) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{64}", lines[name]) for name in SECRETS)
    assert made.stat().st_mode & 0o777 == 0o600
    again = subprocess.run([tmp_path / "make-env"], capture_output=True, text=True)
    assert again.returncode == 1 and "got one that exists" in again.stderr


def tool(name: str) -> str:
    """Path of a tool of the `dev` extra."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_the_compose_files_fit_the_official_schema() -> None:
    files = sorted(map(str, DOCKER.glob("compose*.yaml")))
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_schema_finds_faults(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DOCKER / "compose.yaml").read_text().replace("read_only: true", "readonly: true"))
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(wrong)]
    assert subprocess.run(command, capture_output=True, text=True).returncode == 1


def test_the_dockerfile_and_the_scripts_pass_their_linters() -> None:
    for command in (
        [tool("hadolint"), "--failure-threshold", "info", "Dockerfile"],
        [tool("shellcheck"), "make-env", "postgres-init.sh"],
    ):
        result = subprocess.run(command, cwd=DOCKER, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


def test_compose_itself_reads_the_file() -> None:
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker's plugin compose is not installed")
    command = [docker, "compose", "--file", str(DOCKER / "compose.yaml"), "config", "--format", "json"]
    good = subprocess.run(command, env=os.environ | GIVEN, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert set(json.loads(good.stdout)["services"]) == set(services())
    bad = subprocess.run(command, env=os.environ | GIVEN | {SECRETS[0]: ""}, capture_output=True, text=True)
    assert bad.returncode != 0 and SECRETS[0] in bad.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker"])
def test_the_installed_programs_know_every_option(name: str) -> None:
    (program,), command = services()[name]["entrypoint"], services()[name]["command"]
    words = [word for word in command if re.fullmatch("[a-z]+", word)][: 2 if name != "mlflow" else 1]
    text = subprocess.run(
        [sys.executable, "-m", program, *words, "--help"], capture_output=True, text=True, check=True
    ).stdout
    asked = {word.partition("=")[0] for word in command if word.startswith("--")}
    assert asked
    assert asked <= set(re.findall(r"--[\w-]+", text))
