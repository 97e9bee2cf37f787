"""Triplets in batches of bounded size, each distinct text of a batch once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

Ints = NDArray[np.signedinteger[Any]]

BATCH_ROWS = 2048


@dataclass(frozen=True)
class PairBatch:
    """Some consecutive rows of the triplets.

    The prompts of one conversation repeat each other's turns, so whatever is asked of a text is asked of `texts`,
    the distinct ones of the batch, and looked up.
    """

    start: int
    """Row number of the first pair, from 0."""
    conversation_id: pa.Array
    pair_id: pa.Array
    group: pa.Array
    turn: Ints
    """(n,) number of the reply."""
    texts: pa.Array
    """Distinct texts."""
    prompt: Ints
    """(m,) all messages of all prompts, as indices of `texts`."""
    prompt_pair: Ints
    """(m,) pair of each of these messages, from 0."""
    chosen: Ints
    """(n,) indices of `texts`."""
    rejected: Ints
    """(n,) indices of `texts`."""

    def __len__(self) -> int:
        return len(self.turn)

    @property
    def last_message(self) -> Ints:
        """(n,) last message of each prompt, as indices of `texts`."""
        ends = np.cumsum(np.bincount(self.prompt_pair, minlength=len(self)))
        return self.prompt[ends - 1]

    def messages(self) -> Ints:
        """(n,) messages of each prompt."""
        return np.bincount(self.prompt_pair, minlength=len(self))

    def over_prompt(self, values: Ints | NDArray[np.bool_]) -> Ints:
        """(n,) sums, over the messages of each prompt, of a value of each text."""
        weights = values[self.prompt].astype(np.float64)
        return np.bincount(self.prompt_pair, weights=weights, minlength=len(self)).astype(np.int64)


def count_pairs(path: Path) -> int:
    """Rows of a triplets file, read from its footer."""
    return int(pq.read_metadata(path).num_rows)


def read_batches(path: Path, rows: int = BATCH_ROWS) -> Iterator[PairBatch]:
    """Stream a file of `coala_core.triplets.TRIPLET_SCHEMA`.

    Parameters
    ----------
    path : Path
        ``triplets.parquet``.
    rows : int
        Pairs in one batch at most.

    Yields
    ------
    PairBatch
    """
    start = 0
    with pq.ParquetFile(path) as file:
        # `iter_batches` would keep what it has read of the file in memory.
        for number in range(file.num_row_groups):
            for batch in file.read_row_group(number).to_batches(max_chunksize=rows):
                yield _batch(batch, start)
                start += batch.num_rows


def _batch(batch: pa.RecordBatch, start: int) -> PairBatch:
    """Find the distinct texts of a batch."""
    columns = [batch.column(name).flatten().field("content") for name in ("prompt", "chosen", "rejected")]
    encoded = pa.concat_arrays([column.cast(pa.large_string()) for column in columns]).dictionary_encode()
    indices = encoded.indices.to_numpy().astype(np.int64)
    prompt, chosen, rejected = np.split(indices, np.cumsum([len(column) for column in columns])[:-1])
    return PairBatch(
        start=start,
        conversation_id=batch.column("conversation_id"),
        pair_id=batch.column("pair_id"),
        group=batch.column("group"),
        turn=batch.column("turn").to_numpy().astype(np.int64),
        texts=encoded.dictionary,
        prompt=prompt,
        prompt_pair=pc.list_parent_indices(batch.column("prompt")).to_numpy().astype(np.int64),
        chosen=chosen,
        rejected=rejected,
    )
