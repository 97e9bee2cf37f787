"""What runs leave beside their artifacts, journals of tracking and logs, and what of it may go."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coala_core.storage import dump_json
from tasks.journal import Event, Journal

TRACKING, LOGS = "tracking", "logs"
_DESTINATIONS = "destinations.json"


@dataclass(frozen=True)
class RunFiles:
    """A journal of tracking, with what it says about the store."""

    path: Path
    began: float
    """In seconds since 1970."""
    written: float
    """When its last record was written or delivered."""
    living: bool
    """Whether the process that writes it is still running."""
    delivered: bool
    """Whether some MLflow has all of it."""
    uri: str | None
    """Where its records go; None for the store's own database."""
    awaited: frozenset[str]
    """Keys of artifacts with files that MLflow has not got yet."""
    fault: str | None = None
    """Why it cannot be read."""

    @property
    def files(self) -> list[Path]:
        """The journal first: without it the others mean nothing."""
        others = (self.path.with_suffix(".sent"), self.path.with_suffix(""))
        return [self.path, *(path for path in others if path.exists())]

    @property
    def bytes(self) -> int:
        """What all its files take."""
        found = [inner for path in self.files for inner in ([path] if path.is_file() else path.rglob("*"))]
        return sum(path.stat().st_size for path in found if path.is_file())

    def delete(self) -> None:
        """Remove it, and keep in mind which MLflow it went to."""
        _remember(self.path.parent, self.uri)
        for path in self.files:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def journals(store: Path) -> list[RunFiles]:
    """Read all journals of a store, the oldest first."""
    return [_read(path) for path in sorted((store / TRACKING).glob("*.jsonl"))]


def old_logs(store: Path, before: float) -> list[Path]:
    """Log files that were last written before a time, in seconds since 1970."""
    return [path for path in sorted((store / LOGS).glob("*.jsonl*")) if path.stat().st_mtime < before]


def destinations(store: Path, found: Iterable[RunFiles]) -> set[str | None]:
    """Every MLflow that runs of this store were recorded in; None is the store's own database."""
    return _remembered(store / TRACKING) | {run.uri for run in found if run.fault is None}


def _read(path: Path) -> RunFiles:
    sent, status = path.with_suffix(".sent"), path.stat()
    written = max(status.st_mtime, sent.stat().st_mtime if sent.exists() else 0.0)
    try:
        journal = Journal.load(path)
    except BlockingIOError:
        return _described(path, _first(path), written, living=True, delivered=False)
    except ValueError as error:
        return RunFiles(path, written, written, False, False, None, frozenset(), str(error))
    with contextlib.closing(journal):
        done = journal.is_complete()
        awaited = frozenset() if done else frozenset(_awaited(journal.events))
        return _described(path, journal.events[:1], written, living=False, delivered=done, awaited=awaited)


def _described(
    path: Path,
    first: list[Event],
    written: float,
    *,
    living: bool,
    delivered: bool,
    awaited: frozenset[str] = frozenset(),
) -> RunFiles:
    began = first[0]["time"] / 1000 if first else written
    uri = first[0].get("uri") if first else None
    return RunFiles(path, began, written, living, delivered, uri, awaited)


def _first(path: Path) -> list[Event]:
    """Read the first event of a journal that another process writes."""
    with path.open("rb") as file:
        line = file.readline()
    return [json.loads(line)] if line.endswith(b"\n") else []


def _awaited(events: Iterable[Event]) -> Iterator[str]:
    """Keys in the paths of files and models, which are relative to the store."""
    for event in events:
        path = event.get("path") or event.get("folder")
        parts = PurePosixPath(path).parts if path else ()
        if len(parts) > 1:
            yield parts[1]


def _remembered(folder: Path) -> set[str | None]:
    try:
        content: list[str | None] = json.loads((folder / _DESTINATIONS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return set()
    return set(content)


def _remember(folder: Path, uri: str | None) -> None:
    known = _remembered(folder)
    if uri not in known:
        temporary = folder / f".{_DESTINATIONS}.tmp"
        temporary.write_text(dump_json(sorted(known | {uri}, key=str)), encoding="utf-8")
        temporary.replace(folder / _DESTINATIONS)
