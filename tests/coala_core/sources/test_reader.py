import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.sources import Fault, Reject, Row, documents, lines, read_rows, resolve_conversations

ROWS = [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "é", "n": 3}]


def as_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def zstandard(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def packed(content, name):
    pack = {".gz": gzip.compress, ".zst": zstandard}.get(Path(name).suffix, bytes)
    return pack(content)


def write(path, content):
    path.write_bytes(packed(content, path.name))
    return path


def read(path):
    (file,) = resolve_conversations(str(path))
    return list(read_rows(file))


def expected(source):
    return [Row(number, row, source) for number, row in enumerate(ROWS, start=1)]


AS_STRINGS = [Row(number, {"id": row["id"], "n": str(row["n"])}) for number, row in enumerate(ROWS, start=1)]
TABLE = "id,n\na,1\nb,2\né,3\n".encode()


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", as_lines(ROWS)),
        ("ROWS.NDJSON", as_lines(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=2).encode()),
        ("wrapped.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("lines.json", as_lines(ROWS)),
        ("marked.jsonl", b"\xef\xbb\xbf" + as_lines(ROWS)),
        ("marked.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("dos.jsonl", as_lines(ROWS).replace(b"\n", b"\r\n")),
        ("unfinished.jsonl", as_lines(ROWS).rstrip(b"\n")),
        ("rows.csv", TABLE),
        ("rows.tsv", TABLE.replace(b",", b"\t")),
        ("marked.csv", b"\xef\xbb\xbf" + TABLE),
        ("dos.csv", TABLE.replace(b"\n", b"\r\n")),
        ("unfinished.csv", TABLE.rstrip(b"\n")),
    ],
)
def test_every_container_gives_the_same_numbered_rows(tmp_path, name, content, packing):
    found = read(write(tmp_path / f"{name}{packing}", content))
    table = name.endswith(("csv", "tsv"))
    assert [(row.number, row.content) for row in found] == [
        (row.number, row.content) for row in (AS_STRINGS if table else expected(""))
    ]
    assert {row.source for row in found} == {f"{name}{packing}"}


def test_parquet_gives_the_same_rows(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == expected("rows.parquet")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard])
def test_packed_files_may_have_several_frames(tmp_path, pack):
    path = tmp_path / ("rows.jsonl.gz" if pack is gzip.compress else "rows.jsonl.zst")
    raw = as_lines(ROWS)
    path.write_bytes(pack(raw[:7]) + pack(b"") + pack(raw[7:]))  # a frame may end within a line
    assert read(path) == expected(path.name)


@pytest.mark.parametrize(("suffix", "kind"), [(".gz", "gzip"), (".zst", "Zstandard")])
def test_a_file_damaged_halfway_gives_the_rows_before_it(tmp_path, suffix, kind):
    content = b"".join(b'{"id": "%d", "text": "%s"}\n' % (i * i, b"x" * 1000) for i in range(4000))
    path = write(tmp_path / f"rows.jsonl{suffix}", content)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (file,) = resolve_conversations(str(path))
    rows = read_rows(file)
    assert next(rows) == Row(1, {"id": "0", "text": "x" * 1000}, path.name)
    with pytest.raises(
        ValueError, match=rf"rows.jsonl{suffix}'\)` needs an intact {kind} file, got .*; fetch it again"
    ):
        list(rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plain.jsonl.gz", b'{"id": 1}\n', "needs an intact gzip file, got Not a gzipped file"),
        ("plain.jsonl.zst", b'{"id": 1}\n', "needs an intact Zstandard file, got ZSTD decompress failed"),
        ("text.parquet", b"not parquet", "needs an intact Parquet file, got .*; write it again"),
        ("text.zip", b"not a zip", "needs an intact zip file, got File is not a zip file; fetch it again"),
        ("text.tar", b"not a tar", "needs an intact tar file, got .*; fetch it again"),
        ("text.tgz", b"not a tar", "needs an intact gzip file, got Not a gzipped file"),
        ("text.tar.zst", b"not a tar", "needs an intact Zstandard file, got ZSTD"),
        ("cut.json", b'[{"id": 1}, {"id"', "needs a complete JSON list, got .*; write it again"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_gone_is_missing(tmp_path):
    path = write(tmp_path / "rows.jsonl", as_lines(ROWS))
    (file,) = resolve_conversations(str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match="must name an existing file, got '.*rows.jsonl'"):
        list(read_rows(file))
    with pytest.raises(FileNotFoundError, match="must name an existing file"):
        file.digest()


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv", "blank.jsonl", "list.json"])
def test_files_without_rows_give_none(tmp_path, name):
    content = {"blank.jsonl": b"\n  \n\r\n", "list.json": b"[]"}.get(name, b"")
    assert read(write(tmp_path / name, content)) == []


def test_a_json_document_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(ValueError, match=r"takes 10 bytes at most, got more; write one object per line as \.jsonl"):
        read(write(tmp_path / "large.json", json.dumps(ROWS).encode()))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_of_a_gigabyte_is_one_reject_and_takes_no_gigabyte(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    good = b'{"id": 1}\n' if suffix == ".jsonl" else b"id\n1\n"
    with path.open("wb") as file:
        file.write(good)
        file.seek(2**30, 1)  # zeros that take no room on disk
        file.write(b"\n" + good[good.find(b"\n") + 1 :] + (b'{"id": 2}\n' if suffix == ".jsonl" else b"2\n"))
    tracemalloc.start()
    found = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.fault for row in found if isinstance(row, Reject)] == [Fault.LONG_LINE]
    assert isinstance(found[0], Row) and isinstance(found[-1], Row)
    assert peak < 4 * lines.MAX_LINE_BYTES
