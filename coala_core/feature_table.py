"""Features on disk: Parquet shards with a column for each stored layer and pooling, and where each pair's row lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coala_core.config import Pooling
from coala_core.scratch import Scratch

ROWS = "rows.parquet"
SIDES = ("chosen", "rejected")
_ROWS_SCHEMA = pa.schema([("pair_id", pa.string()), ("shard", pa.string()), ("row", pa.int32())])


def column_name(layer: int, pooling: str) -> str:
    """Name of a stored feature, without the side that it belongs to.

    >>> column_name(20, "mean")
    'layer20_mean'
    """
    return f"layer{layer}_{pooling}"


def feature_table(keys: Sequence[str], features: Mapping[str, NDArray[np.float32]]) -> pa.Table:
    """Make the Arrow table of one shard.

    Parameters
    ----------
    keys : sequence of str, n
        Content key of each pair.
    features : mapping of str to (n, d) float32
        By column, such as ``chosen_layer20_mean``; the mapping's order is the columns' order.

    Returns
    -------
    pyarrow.Table
        Column ``key``, then the features as fixed-size lists of non-null float32.

    Raises
    ------
    ValueError
        If a matrix does not hold one row a key.
    """
    for name, values in features.items():
        if values.ndim != 2 or len(values) != len(keys):
            raise ValueError(
                f"`feature_table(features=...)` must hold one row for each of the {len(keys)} keys, "
                f"got shape {values.shape} in {name!r}; pool every response into one row"
            )
    columns = {name: _column(values) for name, values in features.items()}
    return pa.table({"key": pa.array(keys, type=pa.string()), **columns})


def write_feature_table(table: pa.Table, path: Path) -> None:
    """Write one shard; dictionaries would make reading float lists ten times slower."""
    pq.write_table(table, path, use_dictionary=False, compression="none", row_group_size=8192)


def rows_table(pair_ids: Sequence[str], shards: Sequence[str], rows: Sequence[int]) -> pa.Table:
    """Make the Arrow table that says where each pair's features lie.

    Parameters
    ----------
    pair_ids : sequence of str, n
        In the order in which `read_features` gives them.
    shards : sequence of str, n
        File that holds the pair, its name without ``.parquet``.
    rows : sequence of int, n
        Row in that file, from 0; pairs of equal texts may share one.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    if not len(pair_ids) == len(shards) == len(rows):
        raise ValueError(
            f"`rows_table` must take one shard and one row a pair, got {len(pair_ids)} pairs, {len(shards)} shards "
            f"and {len(rows)} rows; look every pair up"
        )
    return pa.table({"pair_id": list(pair_ids), "shard": list(shards), "row": list(rows)}, schema=_ROWS_SCHEMA)


def write_rows_table(table: pa.Table, path: Path) -> None:
    """Write ``rows.parquet``."""
    pq.write_table(table, path, compression="zstd")


def read_features(
    directory: Path, layer: int, pooling: Pooling, scratch: Scratch | None = None
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """Read one layer and pooling of an ``embed`` artifact, shard by shard.

    Memory holds the result, unless it goes to a scratch file, and at most one column of a shard.

    Parameters
    ----------
    directory : Path
        Folder with ``rows.parquet`` and the shards that it names.
    layer : int
        Hidden layer, from 1.
    pooling : "mean", "last" or "mean+last"
        Stored pooling, or both side by side, the mean first.
    scratch : Scratch, optional
        Where to put the features instead of memory.

    Returns
    -------
    pair_ids : list of str, length n
        In the order of ``rows.parquet``.
    chosen, rejected : (n, d) float32, or (n, 2 d) for "mean+last"

    Raises
    ------
    FileNotFoundError
        If there is no ``rows.parquet``.
    ValueError
        If there is no pair, a shard lacks the layer or the pooling, or a row lies outside its shard.
    """
    pair_ids, homes = _read_rows(directory)
    names = [column_name(layer, part) for part in pooling.split("+")]
    width = _width(directory, [shard for shard, _, _ in homes], layer, pooling)
    shape = (len(pair_ids), width * len(names))
    result = {side: float_array(shape, scratch) for side in SIDES}
    for shard, places, rows in homes:
        with pq.ParquetFile(directory / f"{shard}.parquet") as file:
            _require_inside(file, shard, rows)
            for side in SIDES:
                for part, name in enumerate(names):
                    # One column at a time: a shard of many layers need not fit into memory.
                    values = _matrix(file.read(columns=[f"{side}_{name}"]).column(0))
                    result[side][places, part * width : (part + 1) * width] = values[rows]
    return pair_ids, result["chosen"], result["rejected"]


def float_array(shape: tuple[int, int], scratch: Scratch | None) -> NDArray[np.float32]:
    """Make an array of float32 with arbitrary entries, in memory or in a scratch file."""
    return np.empty(shape, dtype=np.float32) if scratch is None else scratch.array(shape, np.float32)


def features_shape(directory: Path, layer: int, pooling: Pooling) -> tuple[int, int]:
    """Pairs of an ``embed`` artifact and the width of one layer and pooling, without reading any feature.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_features`.
    """
    pair_ids, homes = _read_rows(directory)
    width = _width(directory, [shard for shard, _, _ in homes], layer, pooling)
    return len(pair_ids), width * len(pooling.split("+"))


def stored_columns(directory: Path) -> list[str]:
    """List the features that every shard of an ``embed`` artifact holds, named as by `column_name`.

    Raises
    ------
    FileNotFoundError
        If there is no ``rows.parquet``.
    ValueError
        If there is no pair.
    """
    _, homes = _read_rows(directory)
    shards = [_stored(pq.read_schema(directory / f"{shard}.parquet")) for shard, _, _ in homes]
    return [name for name in shards[0] if all(name in shard for shard in shards)]


def _read_rows(directory: Path) -> tuple[list[str], list[tuple[str, NDArray[np.int64], NDArray[np.int32]]]]:
    """Read pair ids, and for each shard its name, its pairs' places in the result and its pairs' rows in the file."""
    path = directory / ROWS
    if not path.exists():
        raise FileNotFoundError(
            f"`{directory}` must hold {ROWS}, got none; give the folder of an embed artifact or run the stage again"
        )
    table = pq.read_table(path)
    if not table.num_rows:
        raise ValueError(f"`{path}` must name at least one pair, got none; run the embed stage on some triplets")
    shards = table["shard"].combine_chunks().dictionary_encode()
    return table["pair_id"].to_pylist(), list(
        _homes(shards.dictionary.to_pylist(), shards.indices.to_numpy(), table["row"].to_numpy())
    )


def _homes(
    names: list[str], indices: NDArray[np.int32], rows: NDArray[np.int32]
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int32]]]:
    order = np.argsort(indices, kind="stable")
    ends = np.cumsum(np.bincount(indices, minlength=len(names)))
    for name, places in zip(names, np.split(order, ends[:-1]), strict=True):
        yield name, places, rows[places]


def _stored(schema: pa.Schema) -> list[str]:
    prefix = f"{SIDES[0]}_"
    return [name.removeprefix(prefix) for name in schema.names if name.startswith(prefix)]


def _width(directory: Path, shards: list[str], layer: int, pooling: str) -> int:
    """Features of one pooling, once it is certain that every shard stores what is asked for."""
    names = [column_name(layer, part) for part in pooling.split("+")]
    for shard in shards:
        schema = pq.read_schema(directory / f"{shard}.parquet")
        stored = _stored(schema)
        if any(name not in stored for name in names):
            raise ValueError(
                f"`read_features(layer={layer}, pooling={pooling!r})` must ask for what is stored, got "
                f"{', '.join(stored) or 'nothing'} in {shard}.parquet; embed again with {layer} in `embed.layers` and "
                f"{' and '.join(pooling.split('+'))} in `embed.poolings`"
            )
    return int(schema.field(f"{SIDES[0]}_{names[0]}").type.list_size)


def _require_inside(file: pq.ParquetFile, shard: str, rows: NDArray[np.int32]) -> None:
    count = file.metadata.num_rows
    if rows.min() < 0 or rows.max() >= count:
        raise ValueError(
            f"`{ROWS}` must name rows 0 to {count - 1} of {shard}.parquet, got {rows.min()} to {rows.max()}; "
            "run the embed stage again"
        )


def _column(values: NDArray[np.float32]) -> pa.Array:
    kind = pa.list_(pa.field("item", pa.float32(), nullable=False), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), type=kind)


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    width = column.type.list_size
    # `flatten` respects the offset of a sliced chunk; `values` does not.
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
