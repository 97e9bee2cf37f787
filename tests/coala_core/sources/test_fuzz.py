"""Whatever is in a file, reading it gives rows, rejects or one sentence, in bounded time and memory."""

import gzip
import io
import json
import tarfile
import tracemalloc
import zipfile
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coala_core.sources import Fault, Reject, Row, SourceFile, documents, lines, read_rows, resolve_conversations
from coala_core.sources.files import REVIEW, SUFFIXES

pytestmark = pytest.mark.slow

LONGEST = 50_000
fuzz = settings(
    max_examples=120,
    deadline=timedelta(seconds=20),  # nothing may hang
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def low_limits(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", LONGEST)
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 20 * LONGEST)


def check(path, suffix):
    """Read a file, and hold every row, reject and error to what is promised of them; return the rows."""
    file = SourceFile(path.name, str(path), suffix)
    found = []
    try:
        for row in read_rows(file):
            assert isinstance(row, Row | Reject)
            assert row.source == file.name or row.source.startswith(f"{file.name}/")
            if isinstance(row, Reject):
                assert row.reason and len(row.reason.splitlines()) == 1
                assert len(row.excerpt) <= 200
                row.excerpt.encode()
            else:
                json.dumps(row.content, default=str)  # no nest that Python could not walk
            found.append(row)
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError)
        assert len(str(error).splitlines()) == 1
        assert str(error).startswith("`read_rows(")
    return found


def zstandard(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def tar(members):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            header.pax_headers = {"comment": "é" * 60}
            archive.addfile(header, io.BytesIO(content))
    return sink.getvalue()


def zipped(members):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def valid_files():
    """One small valid file of each kind."""
    rows = [{"id": f"c{n}", "n": n, "history": ["Why é?", "Because.", "And?", "x" * n]} for n in range(40)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=16)
    as_lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    cells = "".join(f'{n},"some ""quoted"", text\nin two lines"\n' for n in range(40))
    texts = {
        ".jsonl": as_lines,
        ".ndjson": as_lines,
        ".json": json.dumps(rows).encode(),
        ".csv": f"id,text\n{cells}".encode(),
        ".tsv": f"id,text\n{cells}".replace(",", "\t").encode(),
    }
    packed = {name + end: pack(text) for name, text in texts.items() for end, pack in PACK.items()}
    members = {"a.jsonl": as_lines, "b.parquet": sink.getvalue(), "c.csv.gz": packed[".csv.gz"], "pos/1_9.txt": b"fine"}
    archive = tar(members)
    archives = {".zip": zipped(members), ".tar": archive, ".tar.zst": zstandard(archive)}
    archives |= dict.fromkeys((".tgz", ".tar.gz"), gzip.compress(archive))
    return {**texts, **packed, ".parquet": sink.getvalue(), **archives, REVIEW: "A film, é.".encode()}


PACK = {".gz": gzip.compress, ".zst": zstandard}
VALID = valid_files()
KINDS = sorted(VALID)


def stored(folder, suffix, content):
    """Write a file where its kind has one: reviews in a folder of their label."""
    (folder / "pos").mkdir(exist_ok=True)
    path = folder / "pos" / f"0_9{suffix}"
    path.write_bytes(content)
    return path


@st.composite
def mutations(draw, content):
    """Cut, overwrite, repeat, take out and cut off parts of a valid file."""
    for _ in range(draw(st.integers(1, 4))):
        size = len(content)
        start = draw(st.integers(0, size))
        end = min(size, start + draw(st.integers(0, 64)))
        inserted = draw(st.binary(max_size=16) | st.sampled_from([b"\0" * 512, b"[" * 2000, b"\xff" * 8, content[:64]]))
        kind = draw(st.sampled_from(["overwrite", "insert", "truncate", "repeat", "flip"]))
        if kind == "overwrite":
            content = content[:start] + inserted + content[end:]
        elif kind == "insert":
            content = content[:start] + inserted + content[start:]
        elif kind == "truncate":
            content = content[:start]
        elif kind == "repeat":
            content = content[:end] + content[start:]
        elif start < size:
            flipped = content[start] ^ (1 << draw(st.integers(0, 7)))
            content = content[:start] + bytes([flipped]) + content[start + 1 :]
    return content


def test_all_kinds_are_here_and_read_when_intact(tmp_path):
    assert set(KINDS) == {*SUFFIXES, REVIEW}
    for suffix, content in VALID.items():
        path = stored(tmp_path, suffix, content)
        (file,) = resolve_conversations(str(path))
        assert file.suffix == suffix
        rows = check(path, suffix)
        assert rows and all(isinstance(row, Row) for row in rows), suffix


@pytest.mark.parametrize("suffix", KINDS)
@fuzz
@given(content=st.binary(max_size=2000))
def test_any_bytes(tmp_path, suffix, content):
    check(stored(tmp_path, suffix, content), suffix)


@pytest.mark.parametrize("suffix", KINDS)
@fuzz
@given(data=st.data())
def test_damaged_files(tmp_path, suffix, data):
    check(stored(tmp_path, suffix, data.draw(mutations(VALID[suffix]))), suffix)


@pytest.mark.parametrize("suffix", [kind for kind in KINDS if kind.endswith((".gz", ".zst", ".tgz"))])
@fuzz
@given(data=st.data())
def test_damaged_contents_in_intact_packing(tmp_path, suffix, data):
    inner = suffix.removesuffix(".gz").removesuffix(".zst").replace(".tgz", ".tar")
    pack = zstandard if suffix.endswith(".zst") else gzip.compress
    check(stored(tmp_path, suffix, pack(data.draw(mutations(VALID[inner])))), suffix)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@fuzz
@given(
    pieces=st.lists(
        st.sampled_from(['{"a":', "[", "]", "}", "{", '"', ",", "\n", "-", "1e999", "NaN", "\\ud800", "\\", "0", "\r"])
        | st.integers(1, 3000).map(lambda depth: '{"a":[' * depth)
        | st.integers(1, 6000).map(lambda length: "7" * length)
        | st.text(max_size=5),
        max_size=30,
    )
)
def test_nests_and_numbers(tmp_path, suffix, pieces):
    check(stored(tmp_path, suffix, "".join(pieces).encode("utf-8", errors="surrogatepass")), suffix)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", REVIEW])
@fuzz
@given(
    parts=st.lists(
        st.tuples(st.text(max_size=20), st.sampled_from(["utf-8", "utf-16", "utf-32-be", "latin-1", "shift-jis"])),
        max_size=6,
    )
)
def test_mixed_encodings(tmp_path, suffix, parts):
    rows = [json.dumps({"text": text}, ensure_ascii=False).encode(code, errors="ignore") for text, code in parts]
    check(stored(tmp_path, suffix, b"\n".join(rows)), suffix)


def bombs():
    """Pack 256 MiB of zeros, which are one line without end, in every way."""
    zeros = bytes(256 * 2**20)
    yield ".jsonl.gz", gzip.compress(zeros, 1)
    yield ".csv.zst", zstandard(b"a\n" + zeros)
    yield ".json.gz", gzip.compress(b"[" + zeros, 1)
    yield ".zip", zipped({"a.jsonl": zeros, "b.parquet": zeros})
    yield ".tar.zst", zstandard(tar({"a.jsonl": zeros, "pos/0_9.txt": zeros}))


def test_bombs_take_no_memory(tmp_path):
    faults = []
    for suffix, content in bombs():
        path = stored(tmp_path, suffix, content)
        del content
        tracemalloc.start()
        rows = check(path, suffix)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 * 2**20, suffix
        faults.append([row.fault for row in rows])
    long = Fault.LONG_LINE
    assert faults == [[long], [long], [], [long], [long, long]]
