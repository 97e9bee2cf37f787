import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.sources import Fault, Reject, Row, lines
from coala_core.sources.separated import separated_rows

CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


def read(content, delimiter=","):
    return list(separated_rows(io.BytesIO(content), "rows.csv", delimiter))


@pytest.mark.parametrize("delimiter", [",", "\t"])
@settings(max_examples=50)
@given(st.lists(st.tuples(CELLS, CELLS), max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_what_pythons_writer_writes_is_read_back(delimiter, rows, ending):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    found = read(text.getvalue().encode(), delimiter)
    assert [row.content for row in found] == [{"a": one, "b": other} for one, other in rows]
    assert [row.number for row in found] == list(range(1, len(rows) + 1))


def test_a_bad_row_costs_only_itself_and_names_its_line():
    content = b'id,text\n1,"two\nlines"\n2\n\n3,a,b\n4,\xe9\n5,"a"b\n6,fine\n   \n7,"never closed\n8,swallowed\n'
    found = read(content)
    assert [row for row in found if isinstance(row, Row)] == [
        Row(1, {"id": "1", "text": "two\nlines"}, "rows.csv"),
        Row(6, {"id": "6", "text": "fine"}, "rows.csv"),
    ]
    assert [(row.row, row.fault, row.reason) for row in found if isinstance(row, Reject)] == [
        (2, Fault.NOT_OBJECT, "the row has 1 cells and the header 2 (from line 4)"),
        (3, Fault.NOT_OBJECT, "the row has 3 cells and the header 2 (from line 6)"),
        (4, Fault.NOT_UTF8, "the row holds bytes that are not UTF-8 (from line 7)"),
        (5, Fault.NOT_OBJECT, "the row is not CSV: ',' expected after '\"' (from line 8)"),
        (7, Fault.NOT_OBJECT, "the row is not CSV: unexpected end of data (from line 11)"),
    ]


def test_a_row_over_the_limit_costs_only_itself_whether_on_one_line_or_many(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 50)
    content = b"a,b\n1," + b"x" * 60 + b"\n2,fine\n3," + b'"' + b"some words\n" * 4 + b"12345678" + b'"' + b"\n4,fine\n"
    found = read(content)
    assert [row.content for row in found if isinstance(row, Row)] == [{"a": "2", "b": "fine"}, {"a": "4", "b": "fine"}]
    assert [(row.row, row.fault) for row in found if isinstance(row, Reject)] == [
        (1, Fault.LONG_LINE),
        (3, Fault.LONG_LINE),
    ]


def test_long_cells_are_read():
    text = b"x" * 300_000  # Python's own limit is 131,072
    assert read(b"text\n" + text + b"\n")[0].content == {"text": text.decode()}


def test_an_empty_cell_of_a_single_column_is_a_row_and_an_empty_line_is_not():
    assert [row.content for row in read(b'text\n""\n\nb\n')] == [{"text": ""}, {"text": "b"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,text,id\n1,2,3\n", "needs columns of different names, got 'id' more than once; rename one of them"),
        (b'"id\n', "needs a header of column names, got a first line that cannot be read: unexpected end of data"),
        (b"id\rtext\n", "needs a header of column names, got a first line that cannot be read: new-line character"),
        ("id,é\n1,2\n".encode("latin-1"), "needs a header in UTF-8, got other bytes; save the file as UTF-8"),
    ],
)
def test_a_header_that_cannot_be_read_is_one_sentence(content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)
