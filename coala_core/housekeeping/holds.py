"""What runs are at work on: the store's locks, and beside each lock what its holder reads.

A note whose lock nobody holds was left by a process that died, and says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from coala_core.storage import Artifact, Store

_LOCKS = "locks"
_EMBED = "embed-"


@dataclass(frozen=True)
class Busy:
    """What runs are making and reading."""

    making: frozenset[str] = frozenset()
    """Locks that are held, as ``<stage>-<key>``."""
    reading: Mapping[str, str] = field(default_factory=dict)
    """For each artifact that is read, as ``<stage>/<key>``, the lock of what is made from it."""

    @property
    def embedding(self) -> bool:
        """Whether an ``embed`` stage is at work, which may be about to link any shard."""
        return any(name.startswith(_EMBED) for name in self.making)


@contextmanager
def holding(store: Store, stage: str, key: str, inputs: Iterable[Artifact]) -> Iterator[None]:
    """Say, while an artifact is made, what it is made from; to be called with the artifact's lock held."""
    note = _lock_file(store, stage, key).with_suffix(".json")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps([f"{artifact.stage}/{artifact.key}" for artifact in inputs]), encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


@contextmanager
def free_to_take(store: Store, stage: str, key: str) -> Iterator[bool]:
    """Take an artifact's lock if nobody holds it, and say whether that worked."""
    path = _lock_file(store, stage, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def busy(store: Store, stage: str = "*") -> Busy:
    """Look which locks of a stage, or of all, are held, by trying each."""
    making = frozenset(path.stem for path in (store.root / _LOCKS).glob(f"{stage}-*.lock") if _is_held(path))
    reading: dict[str, str] = {}
    for name in sorted(making):
        # A holder that writes its note just now has used its inputs just now, too.
        with suppress(OSError, ValueError):
            content = json.loads((store.root / _LOCKS / f"{name}.json").read_text(encoding="utf-8"))
            reading |= {str(artifact): name for artifact in content}
    return Busy(making, reading)


def _lock_file(store: Store, stage: str, key: str) -> Path:
    return store.root / _LOCKS / f"{stage}-{key}.lock"


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
