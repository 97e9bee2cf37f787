"""The folder of an artifact that is being made: files appear in it whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coala_core.storage.artifacts import MANIFEST, Damaged, parse_manifest
from coala_core.storage.digests import dump_json, file_digest


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


def keep_intact(folder: Path) -> None:
    """Remove the manifest of a damaged artifact, and with it every file that does not match."""
    try:
        files = parse_manifest(folder / MANIFEST)["files"]
    except (Damaged, FileNotFoundError):
        files = {}
    (folder / MANIFEST).unlink(missing_ok=True)
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        elif child.name not in files or file_digest(child) != files[child.name]["sha256"]:
            child.unlink()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
