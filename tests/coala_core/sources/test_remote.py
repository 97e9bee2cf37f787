import functools
import http.server
import io
import json
import threading
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.sources import Row, SourceFile, read_rows, resolve_conversations

ROWS = [{"id": "a"}, {"id": "b"}]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


@pytest.fixture
def bucket():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/bucket/d/b/2.jsonl": LINES, "/bucket/d/1.jsonl": LINES, "/bucket/d/notes.md": b"x"})
    filesystem.pipe("/bucket/d/.hidden.jsonl", LINES)
    yield filesystem
    filesystem.rm("/bucket", recursive=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def website(tmp_path):
    """Serve a folder by a server that knows no ranges."""
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def numbered(files):
    return [(row.source, row.number, row.content) for file in files for row in read_rows(file)]


def test_a_url_names_a_file_a_pattern_or_a_folder(bucket):
    assert resolve_conversations("memory://bucket/d/1.jsonl") == (
        SourceFile("1.jsonl", "memory://bucket/d/1.jsonl", ".jsonl"),
    )
    everything = resolve_conversations("memory://bucket/d")
    assert [file.name for file in everything] == ["1.jsonl", "b/2.jsonl"]
    assert resolve_conversations("memory://bucket/d/**/*.jsonl") == everything
    expected = [(name, number, ROWS[number - 1]) for name in ("1.jsonl", "b/2.jsonl") for number in (1, 2)]
    assert numbered(everything) == expected


def test_a_remote_file_has_the_digest_of_its_bytes(bucket, tmp_path):
    (tmp_path / "1.jsonl").write_bytes(LINES)
    (remote,), (local,) = resolve_conversations("memory://bucket/d/1.jsonl"), resolve_conversations(str(tmp_path))
    assert remote.digest() == local.digest()


def test_every_kind_is_read_from_a_server_without_ranges(tmp_path, website):
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", LINES)
    for name, source in [
        ("rows.jsonl", "rows.jsonl"),
        ("rows.parquet", "rows.parquet"),
        ("rows.zip", "rows.zip/rows.jsonl"),
    ]:
        found = numbered(resolve_conversations(f"{website}/{name}?download=true"))
        assert found == [(source, 1, ROWS[0]), (source, 2, ROWS[1])]


def test_a_connection_that_breaks_is_one_sentence(tmp_path):
    class Broken(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(LINES)

        do_HEAD = http.server.SimpleHTTPRequestHandler.do_HEAD

    (tmp_path / "rows.jsonl").write_bytes(LINES)
    handler = functools.partial(Broken, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            file = SourceFile("rows.jsonl", f"http://127.0.0.1:{server.server_port}/rows.jsonl", ".jsonl")
            with pytest.raises(ValueError, match=r"must be within reach, got \w+: .*; check the address") as caught:
                list(read_rows(file))
        finally:
            server.shutdown()
            thread.join()
    assert "\n" not in str(caught.value)


def test_what_is_not_there_or_not_reached_is_one_sentence(bucket, website):
    for url in ("memory://bucket/d/9.jsonl", "memory://bucket/none", f"{website}/none.jsonl?x=1"):
        with pytest.raises(FileNotFoundError, match="must name a file or folder that exists, got nothing there"):
            resolve_conversations(url)
    with pytest.raises(FileNotFoundError, match="got none; correct the path or pattern"):
        resolve_conversations("memory://bucket/*.nothing")
    with pytest.raises(ValueError, match="got protocol 'nothing'; use s3://"):
        resolve_conversations("nothing://bucket/rows.jsonl")
    with pytest.raises(ValueError, match="must be one plain URL, got '::' in it"):
        resolve_conversations("simplecache::memory://bucket/d/1.jsonl")
    (file,) = resolve_conversations("memory://bucket/d/1.jsonl")
    bucket.rm("/bucket/d/1.jsonl")
    with pytest.raises(FileNotFoundError, match="got nothing there"):
        list(read_rows(file))


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:hunter2@127.0.0.1:9/rows.jsonl",
        "https://hunter2@127.0.0.1:9/rows.jsonl",
        "https://127.0.0.1:9/rows.jsonl?X-Amz-Signature=hunter2",
        "https://127.0.0.1:9/rows.jsonl?a=1&access_token=hunter2",
        "https://127.0.0.1:9/rows.jsonl?page=hunter2",
    ],
)
def test_no_secret_of_a_url_is_shown(url):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        resolve_conversations(url)
    assert "hunter2" not in str(caught.value)
    assert ("must not hold credentials" in str(caught.value)) == ("page=" not in url)


def test_the_name_of_a_remote_file_shows_no_query(tmp_path, website):
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    (file,) = resolve_conversations(f"{website}/rows.jsonl?version=hunter2#part")
    assert (file.name, file.suffix) == ("rows.jsonl", ".jsonl")


def test_a_remote_stream_is_read_in_blocks(bucket):
    big = b"".join(b'{"id": %d, "text": "%s"}\n' % (number, b"x" * 1000) for number in range(5000))  # over 4 MiB
    bucket.pipe("/bucket/d/big.jsonl", big)
    (file,) = resolve_conversations("memory://bucket/d/big.jsonl")
    with file.open() as stream:
        assert isinstance(stream, io.BufferedReader)
        assert len(stream.read(10)) == 10
    assert list(read_rows(file))[-1] == Row(5000, {"id": 4999, "text": "x" * 1000}, "big.jsonl")
