import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.sources import Fault, Reject, Row, lines

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**17, 10**30) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def read(content):
    return list(lines.line_rows(io.BytesIO(content), "rows.jsonl"))


def alike(one, other):
    """Compare type by type, NaN equal to itself."""
    return repr(one) == repr(other)


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.booleans())
def test_a_row_is_what_pythons_parser_makes_of_it(content, escape):
    line = json.dumps(content, ensure_ascii=escape).encode("utf-8", errors="surrogatepass")
    (row,) = read(line)
    assert isinstance(row, Row)
    assert alike(row.content, json.loads(line))


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (b'{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        (b'{"n": [{"m": -99999999999999999999}]}', {"n": [{"m": -99999999999999999999}]}),
        (b'{"n": 18446744073709551615}', {"n": 2**64 - 1}),
        (b'{"n": NaN, "m": -Infinity}', {"n": float("nan"), "m": float("-inf")}),
        (b'{"n": 1e999}', {"n": float("inf")}),
        (b'{"text": "\\ud800"}', {"text": "\ud800"}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_what_a_fast_parser_would_round_or_refuse_is_read_exactly(line, content):
    (row,) = read(line + b"\n")
    assert alike(row.content, content)


def test_bad_lines_are_rejects_with_their_numbers_and_reading_goes_on():
    content = b'{"id": 1}\n{"id": "\xff"}\n\n{"id": \n[1, 2]\n"text"\n' + b"[" * 100_000 + b'\n{"id": 2}\n'
    found = read(content)
    assert [row for row in found if isinstance(row, Row)] == [
        Row(1, {"id": 1}, "rows.jsonl"),
        Row(8, {"id": 2}, "rows.jsonl"),
    ]
    assert [(r.row, r.fault) for r in found if isinstance(r, Reject)] == [
        (2, Fault.NOT_UTF8),  # line 3 is blank: no row, but it counts
        (4, Fault.NOT_JSON),
        (5, Fault.NOT_OBJECT),
        (6, Fault.NOT_OBJECT),
        (7, Fault.NOT_JSON),
    ]
    bad = [row for row in found if isinstance(row, Reject)]
    assert bad[0].source == "rows.jsonl"
    assert bad[0].reason == "byte 9 of the line is not UTF-8"  # {"id": " are eight bytes
    assert bad[0].excerpt == '{"id": "\ufffd"}\n'
    assert bad[1].reason.startswith("the line is not JSON: Expecting value")
    assert bad[2].reason == "the row is a list, not an object"
    assert bad[4].reason == "the row holds more than 128 objects and lists inside one another"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [lines.MAX_NEST - 1, lines.MAX_NEST, 500, 990, 1100, 20_000])
def test_a_nest_is_read_to_the_limit_and_refused_beyond_it(opening, depth):
    closing = "]" if opening == "[" else "}"
    line = '{"nest": ' + opening * depth + "1" + closing * depth + "}"
    (row,) = read(line.encode())
    if depth < lines.MAX_NEST:  # the row itself is one level
        assert isinstance(row, Row)
    else:
        assert (row.fault, row.reason) == (
            Fault.NOT_JSON,
            "the row holds more than 128 objects and lists inside one another",
        )


def test_many_brackets_side_by_side_are_no_nest():
    line = json.dumps({"text": "[" * 1000, "list": [[]] * 1000}).encode()
    assert isinstance(read(line)[0], Row)


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_an_overlong_line_is_rejected_in_pieces(monkeypatch, ending):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    long = b'{"text": "' + b"x" * (2**21 + 7) + b'"}'  # longer than the limit and than the pieces it is skipped in
    found = read(b'{"id": 1}\n{"id": 2}\n' + long + (b'\n{"id": 4}' if ending else b"") + ending)
    assert (found[2].row, found[2].fault, len(found[2].excerpt)) == (3, Fault.LONG_LINE, 101)
    assert found[2].reason == "the line is longer than 100 bytes"
    assert found[3:] == ([Row(4, {"id": 4}, "rows.jsonl")] if ending else [])


def test_a_line_at_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", len(b'{"id": 1}\n'))
    found = read(b'{"id": 1}\n{"id": 12}\n')
    assert found[0] == Row(1, {"id": 1}, "rows.jsonl")
    assert found[1].fault is Fault.LONG_LINE


def test_a_byte_order_mark_counts_only_at_the_beginning():
    mark = "\ufeff".encode()
    found = read(mark + b'{"id": 1}\n' + mark + b'{"id": 2}\n')
    assert found[0] == Row(1, {"id": 1}, "rows.jsonl")
    assert (found[1].row, found[1].fault) == (2, Fault.NOT_JSON)
    assert read(mark) == []
