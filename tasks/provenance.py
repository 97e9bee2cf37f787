"""What produced a run: versions and the commit, as MLflow tags."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from coala_core import __version__

VERSIONED = (
    "numpy scipy pyarrow safetensors pydantic torch transformers tokenizers cupy-cuda13x cupy-cuda12x "
    "matplotlib prefect mlflow"
).split()


def environment_tags() -> dict[str, str]:
    """Versions of Python, of the packages that shape results, and of this code; no environment variables."""
    tags = {"version.coala": __version__, "version.python": platform.python_version(), "platform": platform.platform()}
    for package in VERSIONED:
        try:
            tags[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    revision = _git_revision(Path(__file__))
    return tags | ({"git.revision": revision} if revision else {})


def _git_revision(file: Path) -> str | None:
    """Commit of the checkout that tracks `file`, "-dirty" when files differ from it; None outside one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # A virtual environment can lie inside a checkout of something else.
        git("ls-files", "--error-unmatch", file.name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
