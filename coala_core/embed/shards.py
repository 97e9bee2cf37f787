"""Which pairs are embedded together: shards that keep conversations whole and do not move when work is interrupted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.embed.rendering import Message
from coala_core.feature_cache.notes import pair_key, shard_name
from coala_core.storage import digest

_SCAN_ROWS = 1024
_TEXTS = ["prompt", "chosen", "rejected"]


@dataclass(frozen=True)
class Texts:
    """The pairs of a triplets file, by content."""

    pair_ids: list[str]
    keys: list[str]
    """Content key of each pair; pairs of equal texts have equal keys."""
    openings: list[int]
    """Number of each pair's opening: pairs that begin with the same turns have the same one."""


@dataclass(frozen=True)
class PlannedShard:
    """Pairs that one job embeds."""

    name: str
    keys: tuple[str, ...]
    rows: tuple[int, ...]
    """Their rows in the triplets file."""


def scan_texts(path: Path) -> Texts:
    """Read a triplets file piece by piece, keeping ids and digests only."""
    texts = Texts([], [], [])
    numbers: dict[str, int] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_SCAN_ROWS, columns=["pair_id", *_TEXTS]):
            for row in batch.to_pylist():
                texts.pair_ids.append(row["pair_id"])
                texts.keys.append(pair_key(row["prompt"], row["chosen"][-1]["content"], row["rejected"][-1]["content"]))
                texts.openings.append(numbers.setdefault(_opening(row["prompt"]), len(numbers)))
    return texts


def _opening(prompt: Sequence[Message]) -> str:
    """Digest of the turns up to the student's first, which all pairs of a conversation share."""
    first = next((i for i, message in enumerate(prompt) if message["role"] == "user"), len(prompt))
    return digest([[message["role"], message["content"]] for message in prompt[: first + 1]])


def plan_shards(
    texts: Texts, missing: Collection[str], space: str, columns: Sequence[str], shard_rows: int
) -> list[PlannedShard]:
    """Divide the missing pairs into shards of at most `shard_rows`, pairs of one opening together where they fit.

    All pairs are divided first, present or not. A shard of which everything is missing is kept as it is, so an
    interrupted run continues with the shards that it would have made; the missing pairs of the others are divided anew.

    Parameters
    ----------
    texts : Texts
        All pairs.
    missing : collection of str
        Keys that have to be embedded.
    space : str
        Key of the feature cache's space; part of the shards' names.
    columns : sequence of str
        What is stored; part of the shards' names.
    shard_rows : int
        Largest number of pairs in a shard.
    """
    first_rows = {key: row for row, key in reversed(list(enumerate(texts.keys)))}
    rows = sorted(first_rows.values(), key=lambda row: (texts.openings[row], row))
    whole: list[list[int]] = []
    rest: list[int] = []
    for shard in _divide(rows, texts.openings, shard_rows):
        absent = [row for row in shard if texts.keys[row] in missing]
        if len(absent) == len(shard):
            whole.append(shard)
        else:
            rest.extend(absent)
    return [
        PlannedShard(shard_name(space, columns, keys), keys, tuple(shard))
        for shard in [*whole, *_divide(rest, texts.openings, shard_rows)]
        for keys in [tuple(texts.keys[row] for row in shard)]
    ]


def _divide(rows: Iterable[int], openings: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Fill shards in order; one opening is divided only if it is larger than a shard."""
    shard: list[int] = []
    for _, group in groupby(rows, key=lambda row: openings[row]):
        members = list(group)
        if shard and len(shard) + len(members) > limit:
            yield shard
            shard = []
        shard.extend(members)
        while len(shard) > limit:
            yield shard[:limit]
            shard = shard[limit:]
    if shard:
        yield shard


class TextReader:
    """Reads single rows of a triplets file, holding one row group in memory.

    Parameters
    ----------
    path : Path
        The triplets file.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._ends = np.cumsum(sizes)
        self._held = -1
        self._group: pa.Table | None = None

    def take(self, rows: Sequence[int]) -> pa.Table:
        """Read these rows, in this order: pair_id, prompt, chosen, rejected."""
        wanted = np.asarray(rows, dtype=np.int64)
        groups = np.searchsorted(self._ends, wanted, side="right")
        # Group by group, each read once, though the rows may go to and fro between them.
        members = {int(index): np.flatnonzero(groups == index) for index in np.unique(groups)}
        pieces = [self._read(index).take(wanted[places] - self._start(index)) for index, places in members.items()]
        return pa.concat_tables(pieces).take(np.argsort(np.concatenate(list(members.values()))))

    def _start(self, index: int) -> int:
        return int(self._ends[index - 1]) if index else 0

    def _read(self, index: int) -> pa.Table:
        if self._group is None or index != self._held:
            self._group = self._file.read_row_group(index, columns=["pair_id", *_TEXTS])
            self._held = index
        return self._group

    def close(self) -> None:
        """Close the file."""
        self._file.close()
