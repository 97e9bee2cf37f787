"""Columns give back every row exactly, whatever its fields hold."""

from __future__ import annotations

import csv
import io
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.convert.columns import MOST_COLUMNS, PACKED, Columns, merge_types, type_of, unpack

TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
NAMES = st.sampled_from(["a", "b", "c d", "", " e", PACKED, "é\n", "x.y"]) | TEXTS
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=5)


def learnt(kind, rows, fixed=None):
    columns = Columns(kind, fixed or {})
    for row in rows:
        columns.learn(row)
    return columns


def through_parquet(rows, fixed=None):
    columns = learnt("parquet", rows, fixed)
    table = pa.Table.from_pylist([columns.pack(row) for row in rows], schema=columns.schema)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return [dict(unpack(row)) for row in pq.read_table(sink).to_pylist()]


def through_csv(rows):
    columns = learnt("csv", rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns.schema.names, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(columns.pack(row) for row in rows)
    text.seek(0)
    read = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(text)]
    return [dict(unpack(row)) for row in read]


def exactly(rows):
    """Rows as text, in which 1, 1.0 and true differ; the order of fields is no part of a row."""
    return [json.dumps(row, sort_keys=True) for row in rows]


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_parquet_gives_back_every_row_exactly(rows):
    assert exactly(through_parquet([{**row, "key": 1} for row in rows])) == exactly([{**row, "key": 1} for row in rows])


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_csv_gives_back_every_row_exactly(rows):
    assert exactly(through_csv([{**row, "key": "k"} for row in rows])) == exactly([{**row, "key": "k"} for row in rows])


def test_plain_fields_have_plain_columns():
    rows = [{"id": "a", "score": 0.5, "n": 1, "tags": ["x"], "meta": {"k": None}}, {"id": "b", "meta": {"k": 2}}]
    columns = learnt("parquet", rows)
    assert columns.schema.names == ["id", "score", "n", "tags", "meta"]
    assert columns.packed == set()
    assert columns.schema.field("meta").type == pa.struct([("k", pa.int64())])


def test_a_number_among_texts_is_shown_and_packed():
    columns = learnt("parquet", [{"id": "a"}, {"id": 7}])
    assert [columns.pack({"id": "a"}), columns.pack({"id": 7})] == [{"id": "a"}, {"id": "7", PACKED: '{"id": 7}'}]
    assert columns.packed == {"id"}


def test_csv_shows_numbers_as_text():
    columns = learnt("csv", [{"score": 0.5, "tags": [1]}])
    assert columns.pack({"score": 0.5, "tags": [1]}) == {"score": "0.5", PACKED: '{"score": 0.5, "tags": [1]}'}
    assert columns.schema.names == ["score", PACKED]


def test_null_is_told_from_absent():
    rows = [{"a": None, "b": 1}, {"b": 2}]
    assert through_parquet(rows) == rows


def test_messages_with_more_keys_keep_the_column_of_the_layout():
    fixed = {"messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))}
    message = {"role": "user", "content": "U"}
    rows = [{"messages": [message]}, {"messages": [message | {"time": 3}]}]
    columns = learnt("parquet", rows, fixed)
    assert columns.schema.field("messages").type == fixed["messages"]
    assert columns.pack(rows[1]) == {"messages": [message], PACKED: json.dumps({"messages": rows[1]["messages"]})}
    assert through_parquet(rows, fixed) == rows


def test_fields_above_the_limit_are_packed():
    row = {f"f{at}": at for at in range(MOST_COLUMNS + 1)}
    columns = learnt("parquet", [row])
    assert len(columns.schema.names) == MOST_COLUMNS + 1
    assert columns.packed == {f"f{MOST_COLUMNS}"}
    assert unpack(columns.pack(row)) == row


def test_not_a_number_stays_in_a_column_of_floats():
    (row,) = through_parquet([{"score": math.nan}])
    assert math.isnan(row["score"])


@pytest.mark.parametrize("foreign", ["no JSON", "[1]", 3])
def test_a_foreign_column_of_that_name_is_left_alone(foreign):
    assert unpack({PACKED: foreign, "a": None}) == {PACKED: foreign}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**63 - 1, pa.int64()),
        (2**63, None),
        (True, pa.bool_()),
        ([1, None], pa.list_(pa.int64())),
        ([1, 1.0], None),
        ([], pa.list_(pa.null())),
        ({}, None),
        ({"a": [{}]}, None),
        (object(), None),
    ],
)
def test_type_of(value, expected):
    assert type_of(value) == expected


def test_structs_of_other_keys_do_not_merge():
    one, other = pa.struct([("a", pa.int64())]), pa.struct([("a", pa.int64()), ("b", pa.int64())])
    assert merge_types(one, other) is None
    assert merge_types(pa.list_(pa.null()), pa.list_(one)) == pa.list_(one)
