import datetime
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.sources import Fault, Reject, Row, tables


def stored(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return io.BytesIO(sink.getvalue())


def read(stream):
    return list(tables.parquet_rows(stream, "rows.parquet"))


def test_rows_are_numbered_over_batches_and_row_groups(monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    contents = [{"id": f"é{n}", "messages": [{"role": "user", "content": "x" * n}] * n} for n in range(5)]
    found = read(stored(pa.Table.from_pylist(contents), row_group_size=3))
    assert found == [Row(number, content, "rows.parquet") for number, content in enumerate(contents, start=1)]


def test_bad_bytes_cost_only_their_row():
    raw = pa.array([b"good", b"\xff\xfe", b"fine"], type=pa.binary())
    text = pa.StringArray.from_buffers(3, *raw.buffers()[1:])  # claims to be UTF-8 and is not
    found = read(stored(pa.table({"text": text})))
    assert [type(row) for row in found] == [Row, Reject, Row]
    assert (found[1].row, found[1].fault, found[2].number) == (2, Fault.NOT_UTF8, 3)


def test_a_value_that_python_cannot_hold_costs_only_its_row():
    days = pa.array([0, 2**31 - 1, 1], type=pa.int32()).cast(pa.date32())  # the second is some year 5,881,580
    found = read(stored(pa.table({"day": days})))
    assert found[0].content == {"day": datetime.date(1970, 1, 1)}
    assert (found[1].row, found[1].fault) == (2, Fault.NOT_OBJECT)
    assert found[1].reason.startswith("a value of the row cannot be read: ")
    assert found[2].number == 3


@pytest.mark.parametrize("depth", [tables.MAX_NEST - 1, tables.MAX_NEST])
def test_a_column_nested_too_deep_is_one_sentence(depth):
    value, kind = 1, pa.int64()
    for _ in range(depth):
        value, kind = [value], pa.list_(kind)
    stream = stored(pa.table({"nest": pa.array([value], type=kind)}), store_schema=False)
    if depth < tables.MAX_NEST:  # the row itself is one level
        assert read(stream) == [Row(1, {"nest": value}, "rows.parquet")]
    else:
        with pytest.raises(ValueError, match="at most 128 lists and structures inside one another, got a deeper one"):
            read(stream)


def test_columns_of_one_name_are_refused():
    table = pa.table([[1], [2]], names=["text", "text"])
    with pytest.raises(ValueError, match="needs columns of different names, got 'text' more than once; rename one"):
        read(stored(table))
