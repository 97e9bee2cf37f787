"""What lies in a feature cache, for those that read it: spaces, shards, and the shards' files.

``<cache>/<space>/<shard>.parquet`` holds the features of some pairs, and ``<shard>.json`` beside it, written
last, says which and with what digest. A Parquet file without that sidecar is an interrupted write and counts
as nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from coala_core.feature_cache.notes import (
    SPACE,
    BrokenShard,
    Lookup,
    ShardNote,
    is_sidecar,
    is_space_key,
    look_up,
    parse_note,
    require_space_key,
)
from coala_core.feature_cache.remote_files import open_folder
from coala_core.storage import Damaged, file_digest

_BATCH = 64


@dataclass(frozen=True)
class StoredSpace:
    """A space of the cache."""

    key: str
    identity: Mapping[str, str | int]
    """Empty where ``space.json`` is missing or unreadable."""


class CacheReader:
    """The reading side of a feature cache; see `feature_cache.FeatureCache`."""

    def __init__(self, url: str | Path) -> None:
        self._folder = open_folder(url, "embed.cache")
        self.url = self._folder.url
        """Address that opens the same cache in another process; it may hold credentials."""
        self.label = self._folder.label
        """The address for people."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r})"

    def spaces(self) -> list[StoredSpace]:
        """List the spaces, by key; an unreadable identity is empty."""
        keys = sorted(name for name in self._folder.list().folders if is_space_key(name))
        return [StoredSpace(key, self._identity(key)) for key in keys]

    def notes(self, space_key: str) -> Iterator[ShardNote | BrokenShard]:
        """Give what the sidecars of a space say, by name, without opening the Parquet files.

        A shard is broken where its sidecar cannot be read, or its Parquet file is missing or of another size.
        """
        return self._notes(require_space_key(space_key), self._folder.list(space_key).files)

    def find(self, space_key: str, columns: Sequence[str], keys: Collection[str]) -> Lookup:
        """Look pairs up by content key, in shards that hold all of `columns`; see `shard_notes.look_up`."""
        return look_up(self.notes(space_key), columns, keys)

    def fetch(self, space_key: str, note: ShardNote, target: Path) -> None:
        """Bring a shard to a path of this machine and check it there.

        The file is a hard link where the cache lies on the same disk, and a copy elsewhere. It replaces
        what was at `target`.

        Raises
        ------
        Damaged
            If the shard is missing or differs from its note; then nothing is left at `target`.
        """
        path = f"{require_space_key(space_key)}/{note.name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
        try:
            try:
                self._folder.fetch(path, temporary)
                fault = mismatch(temporary, note)
            except FileNotFoundError:
                fault = "no file"
            if fault:
                target.unlink(missing_ok=True)
                raise Damaged(
                    f"`{self.label}/{path}` must hold the {note.bytes} bytes that its sidecar describes, got {fault}; "
                    "run the embed stage again to compute it anew"
                )
            temporary.replace(target)
        finally:
            # Renaming a link onto another link to the same file does nothing, and leaves it.
            temporary.unlink(missing_ok=True)

    def _identity(self, space_key: str) -> dict[str, str | int]:
        path = f"{space_key}/{SPACE}"
        try:
            identity = json.loads(self._folder.read([path])[path])["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return identity if isinstance(identity, dict) else {}

    def _notes(self, space_key: str, files: Mapping[str, int]) -> Iterator[ShardNote | BrokenShard]:
        names = sorted(name.removesuffix(".json") for name in files if is_sidecar(name))
        for start in range(0, len(names), _BATCH):
            paths = {name: f"{space_key}/{name}.json" for name in names[start : start + _BATCH]}
            contents = self._folder.read(list(paths.values()))
            for name, path in paths.items():
                if path in contents:  # else it was discarded meanwhile
                    yield self._note(space_key, name, contents[path], files.get(f"{name}.parquet"))

    def _note(self, space_key: str, name: str, content: bytes, size: int | None) -> ShardNote | BrokenShard:
        try:
            note = parse_note(name, content)
        except ValueError as error:
            return BrokenShard(name, str(error))
        if size != note.bytes:
            # The listing is older than the sidecar.
            size = self._folder.size(f"{space_key}/{name}.parquet")
        if size is None:
            return BrokenShard(name, "its Parquet file is missing")
        if size != note.bytes:
            return BrokenShard(name, f"its Parquet file should have {note.bytes} bytes and has {size}")
        return note


def mismatch(path: Path, note: ShardNote) -> str | None:
    """Say how a file differs from the one that the note describes, None if it does not."""
    size = path.stat().st_size
    if size != note.bytes:
        return f"{size} bytes"
    sha256 = file_digest(path)
    return None if sha256 == note.sha256 else f"SHA-256 {sha256[:12]} instead of {note.sha256[:12]}"
