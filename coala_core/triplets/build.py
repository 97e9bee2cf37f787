"""Rows in, blocks of triplets out: to memory, or to files without holding them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.config import TripletsConfig
from coala_core.progress import Progress, silent
from coala_core.sources import Reject
from coala_core.triplets.columns import TRIPLET_SCHEMA
from coala_core.triplets.measures import Measures, TextsDigest
from coala_core.triplets.stream import TripletStream
from coala_core.triplets.tally import Tally

_WAITING_BLOCKS = 2
_LINES = json.JSONEncoder(sort_keys=True, ensure_ascii=False)
_REPEATED = ("conversation_id", "group", *(f"{name}.list.element.role" for name in ("prompt", "chosen", "rejected")))


@dataclass(frozen=True)
class TripletTable:
    """Triplets in memory.

    Attributes
    ----------
    table : pyarrow.Table
        One row per triplet, of `TRIPLET_SCHEMA`, in file order.
    rejects : tuple of Reject
        Every row and every pair that was not used, in file order.
    report : dict
        ``rows_in`` = ``rows_used`` (gave a triplet) + ``rows_rejected`` (gave none); ``identical_pairs``, pairs of
        identical replies; ``near_duplicate_pairs``, pairs left out for the similarity of their replies;
        ``pairs_rejected``, all pairs left out; ``rejected_by_reason``, all `rejects` by fault, of rows and of pairs;
        ``layouts``, used rows by layout; ``conversations``, distinct ids in the table; ``triplets``;
        ``replies_mean``, replies to student turns per used dialogue (None without dialogues);
        ``chosen_longer_share``, share of pairs whose chosen reply has more characters; means of characters
        ``prompt_characters_mean``, ``chosen_characters_mean``, ``rejected_characters_mean``.
    """

    table: pa.Table
    rejects: tuple[Reject, ...]
    report: dict[str, object]


def build_triplets(config: TripletsConfig, progress: Progress = silent) -> TripletTable:
    """Read conversations or ready pairs and build their triplets in memory; `write_triplets` is for large files.

    Parameters
    ----------
    config : TripletsConfig
        What to read, which replies to pair, how much history a prompt holds, the group field and the limits.
    progress : Progress
        Called every 1,000 rows; how many will come is not known ahead, so both counts are the rows so far.

    Returns
    -------
    TripletTable
        Triplets in file order, rejects and report; the same files and configuration give the same table.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a file is damaged or of an unknown kind, no row gives a triplet, or two triplets share a `pair_id`.
    """
    rejects: list[Reject] = []
    measures, batches = Measures(), []
    stream = TripletStream(config, rejects.append, progress)
    for batch in stream.batches():
        measures.add(batch)
        batches.append(batch)
    _check(stream, measures, lambda: batches)
    return TripletTable(
        pa.Table.from_batches(batches, schema=TRIPLET_SCHEMA), tuple(rejects), stream.tally.report() | measures.report()
    )


def write_triplets(
    config: TripletsConfig, triplets: Path, rejects: Path, progress: Progress = silent
) -> dict[str, object]:
    """Read conversations or ready pairs and write their triplets as they come, block by block.

    A second thread measures, digests, compresses and writes one block while this one reads the next; blocks are
    written in their order, so the bytes do not depend on timing.

    Parameters
    ----------
    config : TripletsConfig
        As for `build_triplets`.
    triplets : Path
        Parquet file to write, of `TRIPLET_SCHEMA`, in row groups of at most 4,096 rows and 32 MiB of text.
    rejects : Path
        File to write, one `Reject` a line as JSON.
    progress : Progress
        As for `build_triplets`.

    Returns
    -------
    dict
        The report of `TripletTable`, and ``texts_sha256``, the digest of `TextsDigest`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `build_triplets`; the files are incomplete then.
    """
    measures, texts = Measures(), TextsDigest()
    with (
        rejects.open("w", encoding="utf-8") as lines,
        pq.ParquetWriter(triplets, TRIPLET_SCHEMA, compression="zstd", use_dictionary=list(_REPEATED)) as file,
        _Background() as background,
    ):

        def take(batch: pa.RecordBatch) -> None:
            measures.add(batch)
            texts.update(batch)
            file.write_batch(batch, row_group_size=batch.num_rows)

        stream = TripletStream(config, lambda reject: _write_line(lines.write, reject), progress)
        for batch in stream.batches():
            background.call(take, batch)
    _check(stream, measures, lambda: _pair_ids(triplets))
    return stream.tally.report() | measures.report() | {"texts_sha256": texts.hexdigest()}


class _Background:
    """One thread that makes calls in order; few wait at a time, so that memory stays bounded."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coala-triplets")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> _Background:
        return self

    def call(self, function: Callable[[pa.RecordBatch], None], batch: pa.RecordBatch) -> None:
        """Leave a call to the thread; raises what an earlier one raised."""
        if len(self._waiting) >= _WAITING_BLOCKS:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, batch))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            while self._waiting and kind is None:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


def _write_line(write: Callable[[str], object], reject: Reject) -> None:
    """Write a reject as one line of JSON."""
    write(_LINES.encode(vars(reject)) + "\n")


def _pair_ids(path: Path) -> Iterator[pa.RecordBatch]:
    """Read the pair_id of a file of triplets."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(columns=["pair_id"])


def _check(stream: TripletStream, measures: Measures, batches: Callable[[], Iterable[pa.RecordBatch]]) -> None:
    """Refuse files without a pair, and two triplets of one id, which ready pairs with ids of their own could bring."""
    if not measures.triplets:
        raise ValueError(_nothing_usable(stream.config.conversations, stream.tally))
    repeated = measures.repeated_pair_ids(batches())
    if repeated:
        listed = ", ".join(repr(pair_id) for pair_id in list(repeated)[:3])
        raise ValueError(
            f"`build_triplets` needs a pair_id to name one triplet, got several for {listed}; "
            "rename the conversations or pairs of the input."
        )


def _nothing_usable(name: str, tally: Tally) -> str:
    """Say in one sentence why the input gave nothing."""
    opening = f"`build_triplets(conversations={name!r})` needs at least one row that gives a pair, got"
    first = tally.first_reject
    if first is None:
        return f"{opening} a file without rows; name a file with conversations."
    counts = ", ".join(f"{count} {fault}" for fault, count in tally.faults.most_common())
    return (
        f"{opening} none of {tally.rows} ({counts}; first, row {first.row} of {first.source}: {first.reason}); "
        "bring the rows into one of the layouts that `coala_core.sources.layouts` lists."
    )
