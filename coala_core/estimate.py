"""How much a run writes to disk at most, known before it writes, and whether there is room for it."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

from coala_core.config import SolveConfig
from coala_core.cvxnn import needs_disk
from coala_core.cvxnn.memory import STATES
from coala_core.full_disk import DiskFull

logger = logging.getLogger("coala.store")

TIGHT = 0.05
"""Share of a file system that should stay free."""

_SIDES = 2
_FLOAT = 4
_ROW = 400
"""Bytes beside the features of a pair: keys in shard and sidecar, facts, its place in ``rows.parquet``."""
_SHARD, _COLUMN = 4096, 1024
"""Bytes beside the rows of a shard, and of a column in it: metadata of Parquet, sidecar."""
_TRIPLETS = 4
"""Bytes of ``triplets.parquet`` and rejects for one stored byte of input; 0.6 to 2.6 was measured on gzipped sets."""
_CONVERTED = 7
"""Bytes of float32 weights for one byte of a GGUF file of 4 to 5 bits a weight; 5.5 was measured."""
_STATE = _FLOAT + STATES * 2 * 8
"""Bytes that a solve on disk keeps per row and gate: a pattern, and copies of two numbers in float64."""


class NoRoom(DiskFull):
    """A file system cannot hold what is about to be written; no later attempt helps before there is room."""


def triplets_bytes(stored: int) -> int:
    """Bytes of the stage ``triplets`` for input files of `stored` bytes; prompts of long conversations repeat turns.

    This is an estimate and no bound, since how well texts compress is not known before.
    """
    return _TRIPLETS * stored


def converted_bytes(gguf: int) -> int:
    """Bytes at most of the built-in language model once it is converted from a GGUF file of `gguf` bytes."""
    return _CONVERTED * gguf


def features_bytes(pairs: int, columns: int, width: int, shard_rows: int, *, linked: bool = True) -> int:
    """Bytes at most that the stage ``embed`` writes for pairs that are not in the feature cache.

    Parameters
    ----------
    pairs : int
    columns : int
        Layers times poolings.
    width : int
        Hidden size of the language model.
    shard_rows : int
        Pairs in a shard at most.
    linked : bool
        Whether the artifact links the cache's shards; where it copies them, they are written twice.
    """
    # A conversation is never divided, so shards may be smaller than asked for; with twice as many it is still a bound
    # unless a conversation has more than half as many pairs as a shard.
    shards = 2 * -(-pairs // shard_rows)
    once = pairs * (_SIDES * columns * width * _FLOAT + _ROW) + shards * (_SHARD + columns * _COLUMN)
    return once if linked else 2 * once


def scratch_bytes(pairs: int, width: int, config: SolveConfig) -> int:
    """Bytes at most that the stage ``solve`` takes at a time in files without a name; 0 where memory holds everything.

    Features are read, divided among the splits and stacked, and the program of the training rows, at most all, holds
    their prepared copy, patterns and states.

    Parameters
    ----------
    pairs : int
    width : int
        Features of one layer and pooling, twice the hidden size for "mean+last".
    config : SolveConfig
    """
    rows = _SIDES * pairs
    if not needs_disk(rows, width, config):
        return 0
    return rows * (3 * _FLOAT * width + _FLOAT * (width + 1) + _STATE * config.gates)


def require_room(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin what cannot fit, and warn where little would stay free.

    Parameters
    ----------
    folder : Path
        On the file system that is written to; it need not exist yet.
    needed : int
        Bytes that will be written at most.
    what : str
        What writes them, such as "embed".

    Raises
    ------
    NoRoom
        If the file system has less free.
    """
    usage = shutil.disk_usage(_existing(folder))
    if needed > usage.free:
        raise NoRoom(
            errno.ENOSPC,
            f"`{what}` must find room for up to {shown(needed)} in {folder}, got {shown(usage.free)} free; make room "
            "with `coala gc`, store fewer `embed.layers` or `embed.poolings`, or give a larger disk with `--store`.",
        )
    left = usage.free - needed
    if left < TIGHT * usage.total:
        logger.warning(
            "%s may write up to %s in %s, which leaves %s, less than %.0f %% of the disk",
            what, shown(needed), folder, shown(left), 100 * TIGHT,
        )  # fmt: skip


def shown(size: int) -> str:
    """Write a number of bytes for people.

    >>> shown(1_500_000), shown(2_340_000_000)
    ('1.5 MB', '2.3 GB')
    """
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} B"


def _existing(folder: Path) -> Path:
    path = folder.expanduser().resolve()
    return next(place for place in (path, *path.parents) if place.exists())
