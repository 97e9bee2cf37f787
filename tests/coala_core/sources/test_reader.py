import gzip
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.sources import Fault, Reject, Row, read_rows, reader, resolve_conversations

ROWS = [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "é", "n": 3}]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def numbered(path):
    return [(row.number, dict(row.content)) for row in read_rows(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", lines(ROWS)),
        ("rows.jsonl.gz", lines(ROWS)),
        ("ROWS.JSONL", lines(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=2).encode()),
        ("rows.json.gz", json.dumps(ROWS).encode()),
        ("wrapped.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("lines.json", lines(ROWS)),
        ("lines.json.gz", lines(ROWS)),
        ("marked.jsonl", b"\xef\xbb\xbf" + lines(ROWS)),
        ("marked.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("dos.jsonl", lines(ROWS).replace(b"\n", b"\r\n")),
        ("unfinished.jsonl", lines(ROWS).rstrip(b"\n")),
    ],
)
def test_every_container_gives_the_same_numbered_rows(tmp_path, name, content):
    assert numbered(write(tmp_path / name, content)) == [(1, ROWS[0]), (2, ROWS[1]), (3, ROWS[2])]


def test_parquet_gives_the_same_rows_over_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_PARQUET_ROWS", 2)  # three rows: batches of two and one
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet", row_group_size=2)
    assert numbered(tmp_path / "rows.parquet") == [(1, ROWS[0]), (2, ROWS[1]), (3, ROWS[2])]


def test_a_single_object_is_one_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "hi"}], "notes": []}
    assert numbered(write(tmp_path / "one.json", json.dumps(row, indent=1).encode())) == [(1, row)]


def test_bad_lines_are_rejects_with_their_numbers_and_reading_goes_on(tmp_path):
    content = b'{"id": 1}\n{"id": "\xff"}\n\n{"id": \n[1, 2]\n"text"\n' + b"[" * 100_000 + b'\n{"id": 2}\n'
    found = list(read_rows(write(tmp_path / "bad.jsonl", content)))
    assert [row for row in found if isinstance(row, Row)] == [Row(1, {"id": 1}), Row(8, {"id": 2})]
    assert [(r.row, r.fault) for r in found if isinstance(r, Reject)] == [
        (2, Fault.NOT_UTF8),  # line 3 is blank: no row, but it counts
        (4, Fault.NOT_JSON),
        (5, Fault.NOT_OBJECT),
        (6, Fault.NOT_OBJECT),
        (7, Fault.NOT_JSON),
    ]
    first = next(row for row in found if isinstance(row, Reject))
    assert first.source == "bad.jsonl"
    assert first.reason == "byte 9 of the line is not UTF-8"  # {"id": " are eight bytes
    assert first.excerpt == '{"id": "\ufffd"}\n'


def test_bad_bytes_in_a_json_list_cost_only_their_item(tmp_path):
    path = write(tmp_path / "bad.json", b'[{"id": 1}, {"id": "\xff\xfe"}, {"id": 3}]')
    good, bad, last = read_rows(path)
    assert (good, last) == (Row(1, {"id": 1}), Row(3, {"id": 3}))
    assert (bad.row, bad.fault, bad.excerpt) == (2, Fault.NOT_UTF8, '{"id": "??"}')


def test_bad_bytes_in_parquet_cost_only_their_row(tmp_path):
    raw = pa.array([b"good", b"\xff\xfe", b"fine"], type=pa.binary())
    text = pa.StringArray.from_buffers(3, *raw.buffers()[1:])  # claims to be UTF-8 and is not
    pq.write_table(pa.table({"text": text}), tmp_path / "bad.parquet")
    found = list(read_rows(tmp_path / "bad.parquet"))
    assert [(type(row), getattr(row, "number", None) or row.row) for row in found] == [(Row, 1), (Reject, 2), (Row, 3)]
    assert found[1].fault is Fault.NOT_UTF8


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_an_overlong_line_is_rejected_in_pieces(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 100)
    long = b'{"text": "' + b"x" * (2**21 + 7) + b'"}'  # longer than the limit and than the pieces it is skipped in
    path = write(
        tmp_path / "long.jsonl", b'{"id": 1}\n{"id": 2}\n' + long + (b'\n{"id": 4}' if ending else b"") + ending
    )
    found = list(read_rows(path))
    assert (found[2].row, found[2].fault, len(found[2].excerpt)) == (3, Fault.LONG_LINE, 101)
    assert found[3:] == ([Row(4, {"id": 4})] if ending else [])


def test_a_line_at_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", len(b'{"id": 1}\n'))
    assert list(read_rows(write(tmp_path / "edge.jsonl", b'{"id": 1}\n{"id": 12}\n')))[0] == Row(1, {"id": 1})


def test_lines_are_streamed(tmp_path):
    rows = read_rows(write(tmp_path / "damaged_later.jsonl.gz", b"".join(b'{"id": %d}\n' % i for i in range(50_000))))
    whole = (tmp_path / "damaged_later.jsonl.gz").read_bytes()
    (tmp_path / "damaged_later.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert next(rows) == Row(1, {"id": 0})  # given out before the missing half is noticed
    with pytest.raises(
        ValueError, match=r"damaged_later.jsonl.gz'\)` needs an intact gzip file, got .*; fetch it again"
    ):
        list(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plain.jsonl.gz", None, "needs an intact gzip file, got Not a gzipped file"),
        ("text.parquet", b"not parquet", "needs an intact Parquet file, got .*; write it again"),
        ("cut.json", b'[{"id": 1}, {"id"', "needs a complete JSON list, got .*; write it again"),
    ],
)
def test_a_damaged_file_is_one_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content or b'{"id": 1}\n')
    with pytest.raises(ValueError, match=message):
        list(read_rows(tmp_path / name))


def test_a_document_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(ValueError, match=r"takes 10 bytes at most, got more; write one object per line as \.jsonl"):
        list(read_rows(write(tmp_path / "large.json", json.dumps(ROWS).encode())))


def test_names_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must name an existing file, got '.*absent\.jsonl'; correct the path"):
        resolve_conversations(str(tmp_path / "absent.jsonl"))
    with pytest.raises(
        ValueError, match="must name one file, got the directory .*; files there: none that can be read"
    ):
        resolve_conversations(str(tmp_path))
    write(tmp_path / "rows.csv", b"a,b\n")
    with pytest.raises(ValueError, match=r"must end in one of \.jsonl, .*\.parquet, got 'rows\.csv'; convert the file"):
        resolve_conversations(str(tmp_path / "rows.csv"))
    write(tmp_path / "rows.jsonl", b"{}\n")
    with pytest.raises(ValueError, match=r"files there: rows\.jsonl\."):
        resolve_conversations(str(tmp_path))


def test_builtin_is_the_packaged_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coala_data", None)  # so that what the test imports is undone after it
    del sys.modules["coala_data"]
    package = tmp_path / "coala_data"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got '.*coala_data.conversations\.jsonl'"):
        resolve_conversations("builtin")
    (package / "conversations.jsonl").write_bytes(lines(ROWS))
    assert resolve_conversations("builtin") == package / "conversations.jsonl"


def test_builtin_without_its_package_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "coala_data", None)  # the import system's mark for "not to be found"
    with pytest.raises(FileNotFoundError, match="needs the package `coala_data`, got an installation without it"):
        resolve_conversations("builtin")
