"""Files below one folder, each there whole or not at all; the folder may lie on this machine or elsewhere.

`coala_core.feature_cache.remote_files` holds the folders that lie elsewhere.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from coala_core.storage import file_digest


@dataclass(frozen=True)
class Written:
    """What a file held when it was published."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Listing:
    """What lies directly in a folder; both are empty where there is no folder."""

    files: dict[str, int]
    """Bytes of each file, by name."""
    folders: tuple[str, ...] = ()


class Folder(Protocol):
    """A tree of files below one address; names are relative to it, with "/" between folder and file."""

    url: str
    """Address that opens the same folder elsewhere; it may hold credentials."""
    label: str
    """The address for people, without credentials."""

    def list(self, folder: str = "") -> Listing:
        """List the folder as it is now, temporary files included."""

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read files; those that do not exist are left out."""

    def write(self, name: str, writer: Callable[[Path], None]) -> Written:
        """Let `writer` fill a temporary file and publish it as `name`, whole or not at all."""

    def size(self, name: str) -> int | None:
        """Give a file's bytes; None if it does not exist."""

    def age(self, name: str) -> float:
        """Give the seconds since a file was written; 0 where that is not known."""

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""

    def delete_folder(self, folder: str) -> None:
        """Delete a folder if it exists and is empty."""

    def fetch(self, name: str, target: Path) -> None:
        """Put a file at a path of this machine that does not exist yet, as a hard link where that works."""

    def at_hand(self, name: str) -> AbstractContextManager[Path]:
        """Give a context whose value is a path of this machine that holds the file."""


class LocalFolder:
    """A folder of this machine.

    Parameters
    ----------
    root : Path
        Absolute; made when the first file is written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.url = self.label = str(root)

    def list(self, folder: str = "") -> Listing:
        """List the folder as it is now; a file that vanishes meanwhile is left out."""
        files: dict[str, int] = {}
        folders = []
        with suppress(FileNotFoundError):
            for child in (self._root / folder).iterdir():
                if child.is_dir():
                    folders.append(child.name)
                elif (size := self.size(f"{folder}/{child.name}")) is not None:
                    files[child.name] = size
        return Listing(files, tuple(folders))

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read files; those that do not exist are left out."""
        contents = {}
        for name in names:
            with suppress(FileNotFoundError):
                contents[name] = self._path(name).read_bytes()
        return contents

    def write(self, name: str, writer: Callable[[Path], None]) -> Written:
        """Fill a temporary file beside the target, then replace the target."""
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
        try:
            written = fill(temporary, writer)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return written

    def size(self, name: str) -> int | None:
        """Give a file's bytes; None if it does not exist."""
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return None

    def age(self, name: str) -> float:
        """Give the seconds since a file was last written."""
        try:
            return max(0.0, time.time() - self._path(name).stat().st_mtime)
        except FileNotFoundError:
            return 0.0

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        self._path(name).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        """Delete a folder if it exists and is empty."""
        with suppress(OSError):
            (self._root / folder).rmdir()

    def fetch(self, name: str, target: Path) -> None:
        """Link a file to a path that does not exist yet; copy it where links are impossible."""
        try:
            target.hardlink_to(self._path(name))
        except OSError:  # another disk, a filesystem without links, or a file of another user
            shutil.copyfile(self._path(name), target)

    @contextmanager
    def at_hand(self, name: str) -> Iterator[Path]:
        """Give the file itself, without a copy."""
        yield self._path(name)

    def _path(self, name: str) -> Path:
        return self._root / name.lstrip("/")


def fill(path: Path, writer: Callable[[Path], None]) -> Written:
    """Let `writer` fill a file, see that it is on the disk, and describe it."""
    writer(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return Written(file_digest(path), path.stat().st_size)
