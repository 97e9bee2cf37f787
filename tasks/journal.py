"""The write-ahead journal of a tracked run; it knows no tracking server.

A run is a file ``<run>.jsonl`` of events, one JSON object a line, in the order in which they
happened and with the times at which they happened. Beside it, ``<run>.sent`` says how far each
destination has received them. An event is on disk before anyone tries to deliver it, and every
event may be delivered twice without harm, so a crash at any point loses and doubles nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

Event = dict[str, Any]
"""What happened; the keys "event" (its kind) and "run" (the local run) are always there."""


@dataclass
class Received:
    """What one destination has of a journal."""

    position: int = 0
    """Number of events received."""
    remotes: dict[str, str] = field(default_factory=dict)
    """The destination's run id of each local run."""
    refused: list[str] = field(default_factory=list)
    """Why events were refused, one sentence each."""


class Journal:
    """Events of one run and of its children, on disk and locked against other writers.

    Use `Journal.create` for a new run and `Journal.load` for one of an earlier process. The lock
    lives as long as the object, and the kernel drops it when the process dies. `last_write` is the
    time of the last event that an earlier process wrote, in milliseconds since 1970.
    """

    def __init__(self, path: Path, create: bool) -> None:
        self.path = path
        self._file = path.open("x+b" if create else "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.last_write = os.fstat(self._file.fileno()).st_mtime_ns // 1_000_000
            self._sent = path.with_suffix(".sent").open("a+b")
            self.events: list[Event] = _read_whole_lines(self._file, path)
            self._received = _received(_read_whole_lines(self._sent, path.with_suffix(".sent")))
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path, run: str) -> Self:
        """Start the journal of a new run in `folder`, which is made where absent."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder / f"{run}.jsonl", create=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open an existing journal; a last line that a crash cut short is dropped.

        Raises
        ------
        BlockingIOError
            If a living process writes this journal.
        ValueError
            If a line before the last is not JSON.
        """
        return cls(path, create=False)

    def append(self, events: Sequence[Event]) -> None:
        """Write events to disk, all in one flush, before anyone may deliver them."""
        lines = "".join(json.dumps(event, allow_nan=False) + "\n" for event in events)
        self._file.write(lines.encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.events.extend(events)

    def received(self, destination: str) -> Received:
        """Look up what `destination` has acknowledged so far."""
        return self._received.setdefault(destination, Received())

    def acknowledge(self, destination: str, position: int, **details: Any) -> None:
        """Note that `destination` has the first `position` events.

        Parameters
        ----------
        destination : str
        position : int
            Zero forgets all that the destination had.
        details
            ``run`` and ``remote`` when a run was opened there, ``refused`` when the event was.
        """
        line = {"destination": destination, "position": position, **details}
        # Not synced: a lost acknowledgement only repeats a delivery.
        self._sent.write((json.dumps(line) + "\n").encode())
        self._sent.flush()
        _apply(self._received, line)

    def open_runs(self) -> list[str]:
        """Local runs that were opened and not closed, children before their parent."""
        runs: list[str] = []
        for event in self.events:
            if event["event"] == "open":
                runs.insert(0, event["run"])
            elif event["event"] == "close":
                runs.remove(event["run"])
        return runs

    def is_complete(self) -> bool:
        """Whether every run is closed and some destination has all of it."""
        if not self.events or self.open_runs():
            return False
        return any(received.position == len(self.events) for received in self._received.values())

    def close(self) -> None:
        """Release the lock; the files stay."""
        self._file.close()
        if hasattr(self, "_sent"):
            self._sent.close()


def _read_whole_lines(file: Any, path: Path) -> list[Event]:
    """Parse a file of JSON lines, cutting off a torn last line so that appending is safe."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.truncate(len(whole))
    file.seek(0, os.SEEK_END)
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise ValueError(f"`{path}` must hold one JSON object a line, got {error}; move the file away") from error


def _received(lines: Iterable[Event]) -> dict[str, Received]:
    """Replay acknowledgements."""
    received: dict[str, Received] = {}
    for line in lines:
        _apply(received, line)
    return received


def _apply(received: dict[str, Received], line: Event) -> None:
    """Take one acknowledgement into account."""
    if line["position"] == 0:
        received[line["destination"]] = Received()
        return
    state = received.setdefault(line["destination"], Received())
    state.position = line["position"]
    if "remote" in line:
        state.remotes[line["run"]] = line["remote"]
    if "refused" in line:
        state.refused.append(line["refused"])
