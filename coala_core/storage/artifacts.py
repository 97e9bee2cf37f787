"""A finished artifact: its manifest, and whether its files are what the manifest says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from coala_core.storage.digests import file_digest

MANIFEST = "manifest.json"
TIMING = "timing.json"


class Damaged(Exception):
    """An artifact's file is missing or differs from its manifest; the message names the file and the remedy."""


class Artifact(BaseModel):
    """A stored stage output; stages exchange these, never arrays and never bare paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    """Stage that wrote it."""
    key: str
    """Digest of everything that determines the content."""
    path: Path
    """Folder that holds it."""
    sha256: str
    """Digest of the manifest, hence of every file that it lists."""

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest: stage, key, config, inputs, files and report."""
        content: dict[str, Any] = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        return content

    @property
    def report(self) -> dict[str, Any]:
        """What the stage says about its own output."""
        report: dict[str, Any] = self.manifest["report"]
        return report

    @property
    def timing(self) -> dict[str, Any]:
        """Seconds, and other facts of the machine that computed it last; no digest covers them."""
        path = self.path / TIMING
        timing: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return timing

    @property
    def seconds(self) -> float:
        """Wall-clock seconds that computing it took, the last time it was computed."""
        return float(self.timing.get("seconds", "nan"))


def reference(artifact: Artifact) -> dict[str, str]:
    """Return what a manifest keeps of an input: enough to find it again in the same store."""
    return {"stage": artifact.stage, "key": artifact.key, "sha256": artifact.sha256}


def open_artifact(path: Path | str, stage: str | None = None) -> Artifact:
    """Open and verify the artifact in a folder.

    Parameters
    ----------
    path : Path or str
        Folder with a ``manifest.json``.
    stage : str, optional
        Stage that must have written it.

    Raises
    ------
    FileNotFoundError
        If the folder holds no manifest.
    ValueError
        If another stage wrote it.
    Damaged
        If the manifest cannot be read, or a listed file is missing or differs from its digest.
    """
    folder = Path(path).expanduser().resolve()
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(
            f"`{folder}` must be the folder of a finished {stage or 'stage'} artifact, got no {MANIFEST} in it; "
            "give the path that the stage printed"
        )
    text = (folder / MANIFEST).read_bytes()
    manifest = parse_manifest(folder / MANIFEST)
    if stage is not None and manifest["stage"] != stage:
        raise ValueError(f"`{folder}` must be a {stage} artifact, got {manifest['stage']}; give the {stage} folder")
    for name, expected in manifest["files"].items():
        _verify(folder / name, expected["sha256"])
    return Artifact(stage=manifest["stage"], key=manifest["key"], path=folder, sha256=hashlib.sha256(text).hexdigest())


def parse_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest that has what the others rely on; `Damaged` says what is wrong with it."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        content["stage"], content["key"], {name: file["sha256"] for name, file in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"`{path}` must be a manifest, got {error!r}; run the stage again to rebuild it") from error
    return content


def _verify(path: Path, expected: str) -> None:
    if not path.exists():
        raise Damaged(f"`{path}` is listed in its manifest but missing; run the stage again to rebuild it")
    found = file_digest(path)
    if found != expected:
        raise Damaged(
            f"`{path}` must have SHA-256 {expected[:12]}, got {found[:12]}; run the stage again to rebuild it"
        )
