"""Artifacts on disk: the only place that writes a stage's files.

An artifact is a folder ``<store>/<stage>/<key>/`` whose ``manifest.json`` lists every file with
its SHA-256. The key is a digest of everything that determines the content, so equal work has an
equal folder. A folder is built under ``<key>.partial`` and renamed when its manifest is written:
it is there whole, or it is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from coala_core.full_disk import full_disk_named

MANIFEST = "manifest.json"
TIMING = "timing.json"
PROCESS = uuid.uuid4().hex
"""Names this process, where its number would not: numbers come again, and clocks are set back."""
_FORMAT = 1
_BLOCK = 1 << 20


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


class Workspace:
    """The folder of an artifact that is being made.

    Parameters
    ----------
    path : Path
        Existing folder; files of an interrupted attempt may be in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report: dict[str, Any] = {}
        """What the stage says about its output; equal for equal work."""
        self.performance: dict[str, Any] = {}
        """What the stage says about this machine at work; kept beside the seconds, outside every digest."""

    def write(self, name: str, writer: Callable[[Path], None]) -> Path:
        """Let `writer` fill a temporary file, then rename it to `name`: the file appears whole or not at all."""
        target = self.path / name
        temporary = target.with_name(f".{name}.tmp")
        writer(temporary)
        _sync(temporary)
        os.replace(temporary, target)
        return target

    def write_json(self, name: str, content: Any) -> Path:
        """Write `content` as JSON with sorted keys, whole or not at all."""
        return self.write(name, lambda path: _write_text(path, dump_json(content)))

    def write_lines(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write one JSON object a line, whole or not at all."""
        lines = [json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows]
        return self.write(name, lambda path: _write_text(path, "".join(f"{line}\n" for line in lines)))

    def clear(self) -> None:
        """Remove every file of an interrupted attempt."""
        for child in self.path.iterdir():
            child.unlink()


class Store:
    """All artifacts below one folder.

    Parameters
    ----------
    root : Path or str
        Created when the first artifact is written.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()

    def directory(self, stage: str, key: str) -> Path:
        """Folder in which the artifact lies, or will lie."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Artifact | None:
        """Return the verified artifact, or None where there is none.

        Raises
        ------
        Damaged
            If a listed file is missing or differs from its digest.
        """
        path = self.directory(stage, key)
        return open_artifact(path) if (path / MANIFEST).exists() else None

    def is_intact(self, stage: str, key: str) -> bool:
        """Tell whether the artifact exists and all its files match."""
        try:
            return self.find(stage, key) is not None
        except Damaged:
            return False

    def resolve(self, reference: Mapping[str, str]) -> Artifact:
        """Open an artifact by the reference (stage, key, sha256) that a manifest keeps of its inputs.

        Raises
        ------
        ValueError
            If the artifact is gone or is not the one referred to any more.
        Damaged
            If one of its files is missing or differs from its digest.
        """
        artifact = self.find(reference["stage"], reference["key"])
        if artifact is None or artifact.sha256 != reference["sha256"]:
            raise ValueError(
                f"`{self.directory(reference['stage'], reference['key'])}` must hold the {reference['stage']} artifact "
                f"{reference['sha256'][:12]}, got {artifact.sha256[:12] if artifact else 'nothing'}; "
                f"run the {reference['stage']} stage again"
            )
        return artifact

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Hold the artifact's lock, so that of two equal runs one computes and the other reuses.

        Raises
        ------
        DiskFull
            If what is done meanwhile finds no room for a file.
        """
        folder = self.root / "locks"
        with full_disk_named(self.root):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{stage}-{key}.lock"):
                yield

    def workspace(self, stage: str, key: str) -> Workspace:
        """Open the folder in which the artifact is made.

        Files of an interrupted attempt stay, and of a damaged artifact those that match its manifest.
        """
        final = self.directory(stage, key)
        partial = final.with_name(f"{key}.partial")
        if final.exists():
            if partial.exists():
                shutil.rmtree(partial)
            _keep_intact(final)
            final.rename(partial)
        partial.mkdir(parents=True, exist_ok=True)
        for leftover in partial.glob(".*.tmp"):
            leftover.unlink()
        return Workspace(partial)

    def seal(
        self,
        workspace: Workspace,
        stage: str,
        key: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        seconds: float,
    ) -> Artifact:
        """Write timing and manifest, the manifest last, and give the folder its final name."""
        names = sorted(p.name for p in workspace.path.iterdir() if p.name not in (MANIFEST, TIMING))
        manifest = {
            "format": _FORMAT,
            "stage": stage,
            "key": key,
            "config": dict(config),
            "inputs": {name: reference(artifact) for name, artifact in inputs.items()},
            "files": {name: _describe(workspace.path / name) for name in names},
            "report": workspace.report,
        }
        now = {"finished_at": time.time(), "process": PROCESS, "monotonic": time.monotonic()}
        timing = {"seconds": seconds, **now, "performance": workspace.performance}
        workspace.write_json(TIMING, timing)
        workspace.write_json(MANIFEST, manifest)
        final = self.directory(stage, key)
        workspace.path.rename(final)
        return open_artifact(final)


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
    manifest = _parse_manifest(folder / MANIFEST)
    if stage is not None and manifest["stage"] != stage:
        raise ValueError(f"`{folder}` must be a {stage} artifact, got {manifest['stage']}; give the {stage} folder")
    for name, expected in manifest["files"].items():
        _verify(folder / name, expected["sha256"])
    return Artifact(stage=manifest["stage"], key=manifest["key"], path=folder, sha256=hashlib.sha256(text).hexdigest())


def digest(content: Any) -> str:
    """SHA-256, in hex, of a JSON value written with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def stage_key(stage: str, revision: int, content: Mapping[str, Any]) -> str:
    """Key of an artifact: stage, its revision, and everything else that determines the bytes."""
    return digest({"stage": stage, "revision": revision, **content})[:24]


def file_digest(path: Path) -> str:
    """SHA-256, in hex, of a file's bytes."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            result.update(block)
    return result.hexdigest()


def dump_json(content: Any) -> str:
    """JSON with sorted keys and a final newline: equal content, equal bytes."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        return time.perf_counter() - self._start


def _describe(path: Path) -> dict[str, Any]:
    return {"sha256": file_digest(path), "bytes": path.stat().st_size}


def _parse_manifest(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        content["stage"], content["key"], {name: file["sha256"] for name, file in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"`{path}` must be a manifest, got {error!r}; run the stage again to rebuild it") from error
    return content


def _keep_intact(folder: Path) -> None:
    """Remove the manifest of a damaged artifact, and with it every file that does not match."""
    try:
        files = _parse_manifest(folder / MANIFEST)["files"]
    except (Damaged, FileNotFoundError):
        files = {}
    (folder / MANIFEST).unlink(missing_ok=True)
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        elif child.name not in files or file_digest(child) != files[child.name]["sha256"]:
            child.unlink()


def _verify(path: Path, expected: str) -> None:
    if not path.exists():
        raise Damaged(f"`{path}` is listed in its manifest but missing; run the stage again to rebuild it")
    found = file_digest(path)
    if found != expected:
        raise Damaged(
            f"`{path}` must have SHA-256 {expected[:12]}, got {found[:12]}; run the stage again to rebuild it"
        )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
