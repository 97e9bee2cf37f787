"""All artifacts below one folder: found, locked, made and sealed."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from coala_core.full_disk import full_disk_named
from coala_core.storage.artifacts import MANIFEST, TIMING, Artifact, Damaged, open_artifact, reference
from coala_core.storage.digests import file_digest
from coala_core.storage.workspace import Workspace, keep_intact

PROCESS = uuid.uuid4().hex
"""Names this process, where its number would not: numbers come again, and clocks are set back."""
_FORMAT = 1


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
            keep_intact(final)
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
