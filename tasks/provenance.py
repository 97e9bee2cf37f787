"""What produced a run: versions, commit and machine, as MLflow tags."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from coala_core import __version__
from coala_core.backend import resolve_backend

VERSIONED = (
    "numpy scipy pyarrow safetensors pydantic torch transformers tokenizers cupy-cuda13x cupy-cuda12x "
    "matplotlib prefect mlflow"
).split()


def environment_tags() -> dict[str, str]:
    """Versions of Python, of the packages that shape results, and of this code; the machine; no environment variables.

    Returns
    -------
    dict
        ``version.<package>``, ``platform``, ``backend`` ("numpy" or "cupy"), ``device``, and in a checkout
        ``git.revision`` and ``git.dirty``, which MLflow also shows as the run's source.
    """
    tags = {
        "version.coala": __version__,
        "version.python": platform.python_version(),
        "platform": platform.platform(),
        "mlflow.source.name": "coala",
        "mlflow.source.type": "LOCAL",
    }
    for package in VERSIONED:
        try:
            tags[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return tags | _machine() | _git_tags(Path(__file__))


def _machine() -> dict[str, str]:
    """Array library that "auto" takes here, and what it runs on."""
    xp = resolve_backend("auto")
    if xp.__name__ != "cupy":
        return {"backend": "numpy", "device": f"cpu, {os.cpu_count()} cores"}
    return {"backend": "cupy", "device": xp.cuda.runtime.getDeviceProperties(0)["name"].decode()}


def _git_tags(file: Path) -> dict[str, str]:
    """Commit of the checkout that tracks `file`, and whether files differ from it; nothing outside one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # A virtual environment can lie inside a checkout of something else.
        git("ls-files", "--error-unmatch", file.name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        commit = git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git.revision": commit, "git.dirty": str(bool(changed)).lower(), "mlflow.source.git.commit": commit}
