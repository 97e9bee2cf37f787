import gzip
import io
import stat
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.sources import Fault, Reject, Row, documents, read_rows, resolve_conversations


def parquet(rows):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


MEMBERS = {
    "d/a.jsonl": b'{"id": 1}\n{"id": 2}\n',
    "d/b.csv.gz": gzip.compress(b"id\n3\n"),
    "c.parquet": parquet([{"id": 4}]),
    "aclImdb/train/neg/7_2.txt": b"bad film",
    "README.md": b"read me",
    "d/.hidden.jsonl": b"x",
    "__MACOSX/d/a.jsonl": b"x",
    "manifest.json": b"x",
}
REVIEW = {"id": "train/neg/7_2", "label": 0, "rating": 2, "text": "bad film"}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("d")
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar(path, members):
    mode = "w:gz" if path.name.endswith("gz") else "w"
    target = io.BytesIO() if path.name.endswith(".zst") else None
    with tarfile.open(None if target else path, mode, fileobj=target) as archive:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    if target is not None:
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(target.getvalue())
    return path


def write(path, members):
    return (write_zip if path.suffix == ".zip" else write_tar)(path, members)


def read(path):
    (file,) = resolve_conversations(str(path))
    return list(read_rows(file))


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tar.gz", "m.TGZ", "m.tar.zst"])
def test_members_are_read_in_order_and_bear_their_paths(tmp_path, monkeypatch, name):
    path = write(tmp_path / name.lower(), MEMBERS).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read(path) == [
        Row(1, {"id": 1}, f"{name}/d/a.jsonl"),
        Row(2, {"id": 2}, f"{name}/d/a.jsonl"),
        Row(1, {"id": "3"}, f"{name}/d/b.csv.gz"),
        Row(1, {"id": 4}, f"{name}/c.parquet"),
        Row(1, REVIEW, f"{name}/aclImdb/train/neg/7_2.txt"),
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]  # nothing was unpacked


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
def test_members_cannot_escape(tmp_path, monkeypatch, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    outside = [f"../../{tmp_path.name}/x.jsonl", f"{tmp_path}/y.jsonl", "../z.jsonl", "C:\\w\n.jsonl"]
    path = write(inside / name, dict.fromkeys(outside, b'{"id": 1}\n'))
    found = read(path)
    assert [row.content for row in found] == [{"id": 1}] * 4
    assert [row.source for row in found] == [
        f"{name}/{tmp_path.name}/x.jsonl",
        f"{name}{tmp_path}/y.jsonl",
        f"{name}/z.jsonl",
        f"{name}/C:/w\\n.jsonl",
    ]
    assert [entry.name for entry in inside.iterdir()] == [name]
    assert [entry.name for entry in tmp_path.iterdir()] == ["inside"]


def test_links_devices_and_sparse_members_of_a_tar_are_rejects(tmp_path):
    (tmp_path / "secret.jsonl").write_bytes(b'{"id": "secret"}\n')
    kinds = {"l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "c": tarfile.CHRTYPE, "f": tarfile.FIFOTYPE}
    with tarfile.open(tmp_path / "m.tar", "w") as archive:
        for letter, kind in kinds.items():
            header = tarfile.TarInfo(f"{letter}.jsonl")
            header.type = kind
            header.linkname = str(tmp_path / "secret.jsonl")
            archive.addfile(header)
        sparse = tarfile.TarInfo("s.jsonl")
        sparse.pax_headers = {"GNU.sparse.map": "0,5", "GNU.sparse.size": str(2**40)}
        sparse.size = 5
        archive.addfile(sparse, io.BytesIO(b"12345"))
        fine = tarfile.TarInfo("fine.jsonl")
        fine.size = 2
        archive.addfile(fine, io.BytesIO(b"{}"))
    *rejects, last = read(tmp_path / "m.tar")
    assert last == Row(1, {}, "m.tar/fine.jsonl")
    assert [(r.source, r.row, r.fault) for r in rejects] == [
        (f"m.tar/{letter}.jsonl", 1, Fault.NOT_OBJECT) for letter in "lhcfs"
    ]
    assert {r.reason for r in rejects} == {"the member is a link, a device or sparse and is not read"}


def test_links_encrypted_and_oddly_packed_members_of_a_zip_are_rejects(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jsonl")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("odd.jsonl", b"{}", compress_type=zipfile.ZIP_LZMA)
        archive.writestr("inner.zip", b"PK")
        archive.writestr("locked.jsonl", b"{}")
    raw = (tmp_path / "m.zip").read_bytes()
    at = raw.rindex(b"PK\x01\x02")  # the last entry of the directory, whose flags are eight bytes further
    (tmp_path / "m.zip").write_bytes(raw[: at + 8] + b"\x01" + raw[at + 9 :])
    assert [(r.source, r.reason) for r in read(tmp_path / "m.zip") if isinstance(r, Reject)] == [
        ("m.zip/link.jsonl", "the member is a link or device and is not read"),
        ("m.zip/odd.jsonl", "the member is compressed in an uncommon way and is not read"),
        ("m.zip/inner.zip", "the member is an archive itself and is not read"),
        ("m.zip/locked.jsonl", "the member is encrypted and is not read"),
    ]


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
def test_a_second_member_of_one_name_is_a_reject(tmp_path, name):
    path = write(tmp_path / name, {"a.jsonl": b'{"id": 1}', "../a.jsonl": b'{"id": 2}', "b.jsonl": b'{"id": 3}'})
    first, repeated, last = read(path)
    assert [first.content, last.content] == [{"id": 1}, {"id": 3}]
    assert (repeated.source, repeated.reason) == (
        f"{name}/a.jsonl",
        "the member bears the name of an earlier one and is not read",
    )


def test_overlapping_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "m.zip", {f"{n}.jsonl": b'{"id": "%d"}' % n * 99 for n in range(20)})
    raw = path.read_bytes()
    start = raw.index(b"PK\x01\x02")
    entry = raw.index(b"PK\x01\x02", start + 4)
    size = int.from_bytes(raw[entry + 20 : entry + 24], "little")
    huge = (size + len(raw)).to_bytes(4, "little")  # one member claims more bytes than the archive has
    path.write_bytes(raw[: entry + 20] + huge + raw[entry + 24 :])
    with pytest.raises(ValueError, match=r"needs an intact zip file, got members overlap; fetch it again"):
        read(path)


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
def test_an_archive_without_a_readable_member_is_one_sentence(tmp_path, name):
    path = write(tmp_path / name, {"README.md": b"x", "notes.txt": b"x"})
    with pytest.raises(ValueError, match=r"needs a member that ends in one of \.jsonl, .*, got 2 of other kinds; put"):
        read(path)


def test_a_tar_cut_or_damaged_between_members_is_not_taken_for_a_finished_one(tmp_path):
    raw = write_tar(tmp_path / "m.tar", {"a.jsonl": b'{"id": 1}\n', "b.jsonl": b'{"id": 2}\n'}).read_bytes()
    second = raw.index(b"b.jsonl")
    for damaged in (
        raw[:second],
        raw[:second] + b"?" * 512 + raw[second + 512 :],
        raw[: second + 100],
        raw[: second + 515],
    ):
        (tmp_path / "m.tar").write_bytes(damaged)
        with pytest.raises(ValueError, match="needs an intact tar file, got "):
            read(tmp_path / "m.tar")


def test_a_tar_with_an_endless_header_is_refused_without_holding_it(tmp_path):
    with tarfile.open(tmp_path / "m.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x" * (2**20 + 1) + ".jsonl"))
    with pytest.raises(ValueError, match="got a header longer than 1 MiB"):
        read(tmp_path / "m.tar")


def test_a_zip_with_a_wrong_checksum_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("a.jsonl", b'{"id": 1}\n')
    raw = (tmp_path / "m.zip").read_bytes()
    (tmp_path / "m.zip").write_bytes(raw.replace(b'{"id": 1}', b'{"id": 2}'))
    with pytest.raises(ValueError, match="needs an intact zip file, got Bad CRC-32"):
        read(tmp_path / "m.zip")


def test_a_parquet_member_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 10)
    with pytest.raises(ValueError, match="holds a Parquet file in an archive whole and takes 10 bytes.*unpack"):
        read(write_zip(tmp_path / "m.zip", {"a.parquet": parquet([{"id": 1}])}))
