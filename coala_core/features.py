"""Features, split and lengths joined by pair id, and the rows that Phase I fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coala_core.config import Pooling
from coala_core.feature_table import float_array, read_features
from coala_core.pairs import BLOCK_ROWS, PairFeatures
from coala_core.scratch import Scratch
from coala_core.splits import SPLITS, Split, check_leakage


def read_pairs(
    embed: Path, split: Path, triplets: Path, layer: int, pooling: Pooling, scratch: Scratch | None = None
) -> dict[Split, PairFeatures]:
    """Join the three artifacts by pair id, one `PairFeatures` a split.

    Parameters
    ----------
    embed, split, triplets : Path
        Folders of the artifacts; the split's own triplets are the ones to give.
    layer : int
        Stored hidden layer.
    pooling : "mean", "last" or "mean+last"
        Stored pooling, or both side by side.
    scratch : Scratch, optional
        Where to put the features instead of memory.

    Raises
    ------
    ValueError
        If the layer or the pooling is not stored, the embeddings and the split do not hold the same pairs, or the
        split leaks.
    """
    pair_ids, chosen, rejected = read_features(embed, layer, pooling, scratch)
    table = pq.read_table(split / "split.parquet")
    check_leakage(table)
    home = dict(zip(table["pair_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    group = dict(zip(table["pair_id"].to_pylist(), table["group"].to_pylist(), strict=True))
    _require_same_pairs(set(pair_ids), set(home))
    lengths = _response_lengths(triplets / "triplets.parquet")
    pairs = {}
    for name in SPLITS:
        rows = [row for row, pair in enumerate(pair_ids) if home[pair] == name]
        ids = [pair_ids[row] for row in rows]
        pairs[name] = PairFeatures(
            pair_ids=ids,
            groups=[group[pair] for pair in ids],
            chosen=_taken(chosen, rows, scratch),
            rejected=_taken(rejected, rows, scratch),
            chosen_length=np.array([lengths[pair][0] for pair in ids], dtype=np.int64),
            rejected_length=np.array([lengths[pair][1] for pair in ids], dtype=np.int64),
        )
    return pairs


def stack_rows(pairs: PairFeatures, scratch: Scratch | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rows and labels of Phase I: every chosen response with +1, every rejected one with -1.

    Parameters
    ----------
    pairs : PairFeatures
    scratch : Scratch, optional
        Where to put the features instead of memory.

    Returns
    -------
    features : (2 n, d) float32
    labels : (2 n,) float32
    """
    order, n = pairs.order_by_id(), len(pairs)
    features = float_array((2 * n, pairs.width), scratch)
    _take(pairs.chosen, order, features[:n])
    _take(pairs.rejected, order, features[n:])
    return features, np.repeat(np.array([1, -1], dtype=np.float32), n)


def _taken(source: NDArray[np.float32], rows: list[int], scratch: Scratch | None) -> NDArray[np.float32]:
    """Copy some rows of a matrix to memory or to a scratch file."""
    target = float_array((len(rows), source.shape[1]), scratch)
    _take(source, rows, target)
    return target


def _take(source: NDArray[np.float32], rows: list[int], target: NDArray[np.float32]) -> None:
    """Copy some rows of a matrix, block by block."""
    for start in range(0, len(rows), BLOCK_ROWS):
        target[start : start + BLOCK_ROWS] = source[rows[start : start + BLOCK_ROWS]]


def _require_same_pairs(embedded: set[str], split: set[str]) -> None:
    if embedded != split:
        example = sorted(embedded ^ split)[0]
        raise ValueError(
            f"`solve` needs embeddings and split of the same pairs, got {len(embedded)} and {len(split)} pairs that "
            f"differ in {len(embedded ^ split)}, such as {example!r}; run both stages on one triplets artifact"
        )


def _response_lengths(path: Path) -> dict[str, tuple[int, int]]:
    rows = pq.read_table(path, columns=["pair_id", "chosen", "rejected"]).to_pylist()
    return {row["pair_id"]: (len(row["chosen"][-1]["content"]), len(row["rejected"][-1]["content"])) for row in rows}
