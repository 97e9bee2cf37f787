"""Features come back from the shards bit by bit, each pair its own, and only what is asked for is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coala_core.feature_table import (
    column_name,
    feature_table,
    read_features,
    rows_table,
    stored_columns,
    write_feature_table,
    write_rows_table,
)

Features = dict[str, NDArray[np.float32]]


def features(
    rows: int, width: int = 3, layers: tuple[int, ...] = (2,), poolings: tuple[str, ...] = ("mean",)
) -> Features:
    """Distinct numbers in every column: thousands tell the column, the rest row and place."""
    names = [f"{side}_layer{layer}_{p}" for layer in layers for p in poolings for side in ("chosen", "rejected")]
    base = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    return {name: base + 100_000 * (number + 1) for number, name in enumerate(names)}


def write_whole(folder: Path, columns: Features) -> list[str]:
    """One shard that holds every pair in order; the pairs' ids."""
    ids = [f"p{row}" for row in range(len(next(iter(columns.values()))))]
    write_feature_table(feature_table(ids, columns), folder / "all.parquet")
    write_rows_table(rows_table(ids, ["all"] * len(ids), range(len(ids))), folder / "rows.parquet")
    return ids


def test_a_column_is_named_by_layer_and_pooling() -> None:
    assert [column_name(20, "mean"), column_name(3, "last")] == ["layer20_mean", "layer3_last"]


def test_the_schema_has_fixed_size_lists_of_floats_that_are_never_null(tmp_path: Path) -> None:
    columns = features(2, layers=(4, 2), poolings=("last", "mean"))
    write_whole(tmp_path, columns)
    schema = pq.read_schema(tmp_path / "all.parquet")
    kind = pa.list_(pa.field("item", pa.float32(), nullable=False), 3)
    assert schema.names == [
        "key",
        *("chosen_layer4_last", "rejected_layer4_last", "chosen_layer4_mean", "rejected_layer4_mean"),
        *("chosen_layer2_last", "rejected_layer2_last", "chosen_layer2_mean", "rejected_layer2_mean"),
    ]
    assert schema.field("key").type == pa.string()
    assert [schema.field(name).type == kind for name in columns] == [True] * 8
    in_memory = feature_table(["a", "b"], columns).schema
    assert str(in_memory.field("chosen_layer2_mean").type) == "fixed_size_list<item: float not null>[3]"
    assert not schema.field("chosen_layer4_last").type.value_field.nullable
    column = pq.ParquetFile(tmp_path / "all.parquet").metadata.row_group(0).column(1)
    assert (column.compression, "RLE_DICTIONARY" in column.encodings) == ("UNCOMPRESSED", False)
    assert stored_columns(tmp_path) == ["layer4_last", "layer4_mean", "layer2_last", "layer2_mean"]


def test_a_table_without_pairs_has_the_same_schema() -> None:
    assert feature_table([], features(0)).schema == feature_table(["a"], features(1)).schema


def test_the_table_of_rows_has_three_columns_of_fixed_types(tmp_path: Path) -> None:
    write_rows_table(rows_table(["b", "a"], ["x", "x"], [7, 0]), tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema == pa.schema([("pair_id", pa.string()), ("shard", pa.string()), ("row", pa.int32())])
    assert table.to_pylist() == [{"pair_id": "b", "shard": "x", "row": 7}, {"pair_id": "a", "shard": "x", "row": 0}]


@pytest.mark.parametrize("rows", [1, 7, 20_000])
def test_features_survive_row_groups(tmp_path: Path, rows: int) -> None:
    columns = features(rows)
    names = write_whole(tmp_path, columns)
    # Row groups of 8192: 20,000 rows take three.
    assert pq.ParquetFile(tmp_path / "all.parquet").num_row_groups == -(-rows // 8192)
    ids, chosen, rejected = read_features(tmp_path, 2, "mean")
    assert ids == names
    assert chosen.dtype == rejected.dtype == np.float32
    np.testing.assert_array_equal(chosen, columns["chosen_layer2_mean"])
    np.testing.assert_array_equal(rejected, columns["rejected_layer2_mean"])


def test_odd_numbers_survive_to_the_bit(tmp_path: Path) -> None:
    odd = np.array([[-0.0, 1e-45, np.inf], [np.nan, 3.4e38, -1e-38]], dtype=np.float32)
    write_whole(tmp_path, {"chosen_layer1_last": odd, "rejected_layer1_last": odd[::-1]})
    _, chosen, rejected = read_features(tmp_path, 1, "last")
    assert (chosen.tobytes(), rejected.tobytes()) == (odd.tobytes(), odd[::-1].tobytes())


def test_features_survive_slicing(tmp_path: Path) -> None:
    columns = features(10)
    whole = feature_table([f"p{row}" for row in range(10)], columns)
    pieces = pa.concat_tables([whole.slice(3, 2), whole.slice(8, 2), whole.slice(0, 0), whole.slice(5, 1)])
    pq.write_table(pieces, tmp_path / "some.parquet", row_group_size=2)
    order = [3, 4, 8, 9, 5]
    write_rows_table(rows_table([f"p{row}" for row in order], ["some"] * 5, range(5)), tmp_path / "rows.parquet")
    ids, chosen, rejected = read_features(tmp_path, 2, "mean")
    assert ids == [f"p{row}" for row in order]
    np.testing.assert_array_equal(chosen, columns["chosen_layer2_mean"][order])
    np.testing.assert_array_equal(rejected, columns["rejected_layer2_mean"][order])


def test_features_survive_a_reader_that_hands_out_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = features(10)
    whole = feature_table([f"p{row}" for row in range(10)], columns)
    write_feature_table(whole.slice(3, 4), tmp_path / "some.parquet")
    write_rows_table(rows_table(list("abcd"), ["some"] * 4, range(4)), tmp_path / "rows.parquet")
    monkeypatch.setattr(pq.ParquetFile, "read", lambda self, columns: whole.select(columns).slice(3, 4))
    _, chosen, rejected = read_features(tmp_path, 2, "mean")
    np.testing.assert_array_equal(chosen, columns["chosen_layer2_mean"][3:7])
    np.testing.assert_array_equal(rejected, columns["rejected_layer2_mean"][3:7])


def test_a_table_of_strided_features_holds_their_values() -> None:
    both = np.arange(24, dtype=np.float32).reshape(4, 6)
    table = feature_table(["a", "b"], {"chosen_layer1_mean": both[0::2], "rejected_layer1_mean": both[1::2, ::2]})
    assert table.column("chosen_layer1_mean").to_pylist() == [[0, 1, 2, 3, 4, 5], [12, 13, 14, 15, 16, 17]]
    assert table.column("rejected_layer1_mean").to_pylist() == [[6, 8, 10], [18, 20, 22]]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_pair_gets_its_own_row_wherever_it_lies(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Shards of any sizes, some rows named by no pair and some by several, pairs in any order."""
    folder = tmp_path_factory.mktemp("scattered")
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    spots = [(f"s{shard}", row) for shard, size in enumerate(sizes) for row in range(size)]
    homes = data.draw(st.lists(st.sampled_from(spots), min_size=1, max_size=12))
    written = features(len(spots))
    for shard in range(len(sizes)):
        start = sum(sizes[:shard])
        part = {name: values[start : start + sizes[shard]] for name, values in written.items()}
        write_feature_table(feature_table([str(i) for i in range(sizes[shard])], part), folder / f"s{shard}.parquet")
    names = [f"pair {number}" for number in range(len(homes))]
    table = rows_table(names, [shard for shard, _ in homes], [row for _, row in homes])
    write_rows_table(table, folder / "rows.parquet")
    ids, chosen, rejected = read_features(folder, 2, "mean")
    assert ids == names
    for place, home in enumerate(homes):
        np.testing.assert_array_equal(chosen[place], written["chosen_layer2_mean"][spots.index(home)])
        np.testing.assert_array_equal(rejected[place], written["rejected_layer2_mean"][spots.index(home)])


@pytest.mark.parametrize("layer", [2, 5])
def test_mean_and_last_lie_side_by_side_the_mean_first(tmp_path: Path, layer: int) -> None:
    columns = features(4, layers=(5, 2), poolings=("last", "mean"))
    write_whole(tmp_path, columns)
    _, *both = read_features(tmp_path, layer, "mean+last")
    for side, values in zip(("chosen", "rejected"), both, strict=True):
        assert values.shape == (4, 6)
        np.testing.assert_array_equal(values[:, :3], columns[f"{side}_layer{layer}_mean"])
        np.testing.assert_array_equal(values[:, 3:], columns[f"{side}_layer{layer}_last"])


def two_shards(folder: Path, rows: int = 3) -> None:
    """A shard that stores layers 1 and 2, and one that stores layer 2 alone."""
    write_feature_table(feature_table(["k"] * rows, features(rows, layers=(1, 2))), folder / "more.parquet")
    write_feature_table(feature_table(["k"] * rows, features(rows, layers=(2,))), folder / "less.parquet")
    write_rows_table(rows_table(["a", "b"], ["more", "less"], [0, rows - 1]), folder / "rows.parquet")


def test_only_what_every_shard_holds_is_stored(tmp_path: Path) -> None:
    two_shards(tmp_path)
    assert stored_columns(tmp_path) == ["layer2_mean"]
    _, chosen, _ = read_features(tmp_path, 2, "mean")
    # In the first shard layer 2 comes third, so its numbers begin at 300,000.
    np.testing.assert_array_equal(chosen, [[300_000, 300_001, 300_002], [100_006, 100_007, 100_008]])


@pytest.mark.parametrize(
    ("layer", "pooling", "message"),
    [
        (1, "mean", r"got layer2_mean in less\.parquet; embed again with 1 in `embed\.layers` and mean in"),
        (2, "last", r"pooling='last'\)` must ask for what is stored, got layer1_mean, layer2_mean in more\.parquet"),
        (2, "mean+last", r"with 2 in `embed\.layers` and mean and last in `embed\.poolings`"),
    ],
)
def test_what_is_not_stored_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: int, pooling: Any, message: str
) -> None:
    two_shards(tmp_path)
    monkeypatch.delattr(pq.ParquetFile, "read")
    with pytest.raises(ValueError, match=message):
        read_features(tmp_path, layer, pooling)


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_its_shard_is_refused(tmp_path: Path, row: int) -> None:
    two_shards(tmp_path)
    write_rows_table(rows_table(["a", "b"], ["less", "less"], [1, row]), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"must name rows 0 to 2 of less\.parquet, got .*; run the embed stage again"):
        read_features(tmp_path, 2, "mean")


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold rows\.parquet, got none; give the folder of an embed"):
        read_features(tmp_path, 2, "mean")
    write_rows_table(rows_table([], [], []), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="must name at least one pair, got none"):
        stored_columns(tmp_path)


def test_tables_of_unequal_columns_are_refused() -> None:
    columns = features(2) | {"chosen_layer9_mean": np.zeros((3, 3), dtype=np.float32)}
    with pytest.raises(ValueError, match=r"one row for each of the 2 keys, got shape \(3, 3\) in 'chosen_layer9_mean'"):
        feature_table(["a", "b"], columns)
    with pytest.raises(ValueError, match=r"got shape \(2,\) in 'chosen_layer9_mean'; pool every response"):
        feature_table(["a", "b"], {"chosen_layer9_mean": np.zeros(2, dtype=np.float32)})
    with pytest.raises(ValueError, match="got 2 pairs, 1 shards and 3 rows; look every pair up"):
        rows_table(["a", "b"], ["s"], [0, 1, 2])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], int]]:
    """Every read of a shard: file, columns, and the bytes that Arrow held just before."""
    seen: list[tuple[str, list[str], int]] = []

    class Spy(pq.ParquetFile):  # type: ignore[misc]  # pyarrow is untyped
        def __init__(self, source: Path) -> None:
            self.name = source.name
            super().__init__(source)

        def read(self, columns: list[str]) -> pa.Table:
            seen.append((self.name, columns, pa.total_allocated_bytes()))
            return super().read(columns=columns)

    monkeypatch.setattr(pq, "ParquetFile", Spy)
    return seen


def test_only_the_columns_asked_for_are_read_and_never_two_shards_at_once(
    tmp_path: Path, reads: list[tuple[str, list[str], int]]
) -> None:
    rows, width, shards = 200, 64, 12
    for shard in range(shards):
        columns = features(rows, width, layers=(1, 2, 3), poolings=("mean", "last"))
        write_feature_table(feature_table(["k"] * rows, columns), tmp_path / f"s{shard}.parquet")
    names = [f"s{number % shards}" for number in range(shards * rows)]
    table = rows_table([str(i) for i in range(shards * rows)], names, [i // shards for i in range(shards * rows)])
    write_rows_table(table, tmp_path / "rows.parquet")
    del columns, table
    before = pa.total_allocated_bytes()
    read_features(tmp_path, 2, "last")
    asked = ["chosen_layer2_last", "rejected_layer2_last"]
    expected = [(f"s{shard}.parquet", [name]) for shard in range(shards) for name in asked]
    assert [(file, columns) for file, columns, _ in reads] == expected
    # A shard has twelve columns; two columns kept of each of the twelve shards would be twice as much.
    assert max(held for _, _, held in reads) - before <= 12 * rows * width * 4
