"""Features that were computed once, kept for every later run: Parquet shards that any store may draw from.

A shard is never changed in place, so a hard link to it stays as it is when the shard is written anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.feature_cache.local_files import Folder
from coala_core.feature_cache.notes import (
    PAIRS,
    SPACE,
    BrokenShard,
    ShardNote,
    Space,
    dump_note,
    is_sidecar,
    require_name,
    require_space_key,
    table_fault,
)
from coala_core.feature_cache.reader import CacheReader, StoredSpace, mismatch
from coala_core.feature_cache.remote_files import hide_credentials, open_folder
from coala_core.feature_table import write_feature_table
from coala_core.progress import Progress, silent
from coala_core.storage import Damaged, dump_json

_LEFT_OVER = 24 * 3600
"""Seconds after which a job's input or a temporary file is taken for a leftover."""


@dataclass(frozen=True)
class SpaceUsage:
    """What a space of the cache holds."""

    key: str
    identity: Mapping[str, str | int]
    shards: int
    rows: int
    """Pairs in all usable shards; a pair that two of them hold counts twice."""
    bytes: int
    """Of all files, leftovers included."""
    columns: tuple[str, ...]
    """Features that at least one shard holds, sorted."""
    broken: int


@dataclass(frozen=True)
class Problem:
    """Something in the cache that is not as it should be."""

    space: str
    name: str
    """Shard, or file where no shard is meant."""
    reason: str


@dataclass(frozen=True)
class Removed:
    """What was removed from the cache; files that artifacts link to keep their place on the disk."""

    spaces: int
    shards: int
    bytes: int


class FeatureCache(CacheReader):
    """All shards below one folder or URL, safe to use from many processes at once.

    Parameters
    ----------
    url : str or Path
        Folder of this machine, or any fsspec URL such as ``s3://bucket/features``. It need not exist yet.

    Raises
    ------
    ValueError
        If the address is a file, of an unknown protocol, or cannot be reached.
    ModuleNotFoundError
        If the package for the URL's protocol is not installed.
    """

    def open_space(self, space: Space) -> None:
        """Note a space's identity in its folder, unless it is there and can be read."""
        if not self._identity(space.key):
            text = dump_json({"identity": dict(space.identity)})
            self._folder.write(f"{space.key}/{SPACE}", lambda path: _write_text(path, text))

    def write_shard(
        self,
        space_key: str,
        name: str,
        table: pa.Table,
        columns: Sequence[str],
        keys: Sequence[str],
        counts: Mapping[str, int | float],
    ) -> ShardNote:
        """Write a shard, its Parquet file first and then its sidecar, each whole or not at all.

        Parameters
        ----------
        space_key, name : str
            From `Space.key` and `shard_notes.shard_name`.
        table : pyarrow.Table
            Column ``key``, ``chosen_`` and ``rejected_`` of each of `columns`, and others that are kept as they are.
            Equal tables give equal bytes.
        columns, keys : sequence of str
            What the table holds, for the sidecar.
        counts : mapping of str to number
            What computing it took.

        Raises
        ------
        ValueError
            If the table does not hold `columns` and `keys`, or a key comes twice.
        """
        found = table["key"].to_pylist() if "key" in table.column_names else []
        fault = table_fault(table.column_names, found, columns, keys)
        if fault:
            raise ValueError(
                f"`write_shard(table=...)` must hold its columns and keys, got {fault}; describe it as it is"
            )
        path = f"{require_space_key(space_key)}/{require_name(name)}"
        written = self._folder.write(f"{path}.parquet", lambda target: write_feature_table(table, target))
        note = ShardNote(name, written.sha256, written.bytes, len(keys), tuple(columns), tuple(keys), dict(counts))
        self._folder.write(f"{path}.json", lambda target: _write_text(target, dump_note(note)))
        return note

    def verify(self, space_key: str | None = None, progress: Progress = silent) -> list[Problem]:
        """Read every shard of a space, or of all, and list what is wrong.

        Checked are size, SHA-256, and that Parquet file and sidecar name the same columns, rows and keys.
        Interrupted writes are listed, and inputs of jobs and temporary files that are older than a day.

        Raises
        ------
        ValueError
            If there is no such space.
        """
        problems = []
        shards = [(space.key, shard) for space in self._chosen(space_key) for shard in self.notes(space.key)]
        for done, (key, shard) in enumerate(shards, 1):
            reason = shard.reason if isinstance(shard, BrokenShard) else self._ailment(key, shard)
            if reason:
                problems.append(Problem(key, shard.name, reason))
            progress(done, len(shards), "shards")
        for space in self._chosen(space_key):
            problems += self._leftovers(space)
        return sorted(problems, key=lambda problem: (problem.space, problem.name))

    def discard(self, space_key: str, name: str) -> None:
        """Remove a shard if it is there, the sidecar first, so that no reader is sent to a file that is gone."""
        path = f"{require_space_key(space_key)}/{require_name(name)}"
        self._folder.delete(f"{path}.json")
        self._folder.delete(f"{path}.parquet")

    def remove(self, space_key: str | None = None) -> Removed:
        """Remove a space with all its files, or all spaces.

        Raises
        ------
        ValueError
            If there is no such space.
        """
        spaces = self._chosen(space_key)
        shards = size = 0
        for space in spaces:
            files = self._folder.list(space.key).files
            # Sidecars first, and the identity last: what an interruption leaves is in order and has a name.
            for name in sorted(files, key=lambda name: (name == SPACE, not is_sidecar(name), name)):
                self._folder.delete(f"{space.key}/{name}")
            self._folder.delete_folder(space.key)
            shards += sum(map(is_sidecar, files))
            size += sum(files.values())
        return Removed(len(spaces), shards, size)

    def put_pairs(self, space_key: str, name: str, table: pa.Table) -> str:
        """Write the pairs that a job is to embed beside the shards; return the address for `take_pairs`."""
        path = f"{require_space_key(space_key)}/{require_name(name)}{PAIRS}"
        self._folder.write(path, lambda target: pq.write_table(table, target, compression="zstd"))
        return f"{self.url}/{path}"

    @staticmethod
    def take_pairs(url: str) -> pa.Table:
        """Read what `put_pairs` wrote.

        Raises
        ------
        Damaged
            If the file is gone or is no Parquet file.
        """
        folder, name = _pairs_file(url)
        content = folder.read([name]).get(name)
        try:
            return pq.read_table(pa.BufferReader(content or b""))
        except (pa.ArrowException, OSError):
            got = "no file" if content is None else "something else"
            raise Damaged(
                f"`{folder.label}/{name}` must be the Parquet file with a job's pairs, got {got}; "
                "run the embed stage again"
            ) from None

    @staticmethod
    def drop_pairs(url: str) -> None:
        """Remove what `put_pairs` wrote if it is there."""
        folder, name = _pairs_file(url)
        folder.delete(name)

    def usage(self) -> list[SpaceUsage]:
        """Sum up each space, by key."""
        return [self._usage(space) for space in self.spaces()]

    def _chosen(self, space_key: str | None) -> list[StoredSpace]:
        spaces = self.spaces()
        chosen = [space for space in spaces if space_key in (None, space.key)]
        if space_key is not None and not chosen:
            raise ValueError(
                f"`space_key` must name a space of {self.label}, got {space_key!r}; "
                f"choose from {', '.join(space.key for space in spaces) or 'none, the cache is empty'}"
            )
        return chosen

    def _ailment(self, space_key: str, note: ShardNote) -> str | None:
        try:
            with self._folder.at_hand(f"{space_key}/{note.name}.parquet") as path:
                difference = mismatch(path, note)
                if difference is not None:
                    return f"its Parquet file should match its sidecar and has {difference}"
                with pq.ParquetFile(path) as file:
                    names = file.schema_arrow.names
                    keys = file.read(columns=["key"]).to_pydict().get("key", [])
        except FileNotFoundError:
            return "its Parquet file is missing"
        except (pa.ArrowException, OSError) as error:
            return f"its Parquet file cannot be read: {error}"
        fault = table_fault(names, keys, note.columns, note.keys)
        return f"its Parquet file should hold what its sidecar says and has {fault}" if fault else None

    def _leftovers(self, space: StoredSpace) -> Iterator[Problem]:
        files = self._folder.list(space.key).files
        if not space.identity or Space(space.identity).key != space.key:
            yield Problem(space.key, SPACE, "it should say what the space's features depend on, and does not")
        for name in files:
            stem, _, ending = name.partition(".")
            if name.startswith(".") or name.endswith(PAIRS):
                if self._folder.age(f"{space.key}/{name}") > _LEFT_OVER:
                    yield Problem(space.key, name, "it was left over by a job more than a day ago")
            elif ending == "parquet" and f"{stem}.json" not in files:
                yield Problem(space.key, stem, "it has no sidecar: its write was interrupted, or is going on")

    def _usage(self, space: StoredSpace) -> SpaceUsage:
        files = self._folder.list(space.key).files
        shards = list(self._notes(space.key, files))
        notes = [shard for shard in shards if isinstance(shard, ShardNote)]
        columns = {column for note in notes for column in note.columns}
        return SpaceUsage(
            space.key, space.identity, len(notes), sum(note.rows for note in notes), sum(files.values()),
            tuple(sorted(columns)), len(shards) - len(notes),
        )  # fmt: skip


def _pairs_file(url: str) -> tuple[Folder, str]:
    address, _, name = url.rpartition("/")
    if not address or not name.endswith(PAIRS):
        raise ValueError(f"`pairs` must be an address that `put_pairs` gave, got {hide_credentials(url)!r}; pass it on")
    return open_folder(address, "pairs"), name


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
