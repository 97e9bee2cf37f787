"""Files appear whole or not at all, and tables are written in groups."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psutil
import pyarrow.parquet as pq
import pytest

from coala_core.convert import target as module
from coala_core.convert.target import PendingFile, TargetFile, write_rows


def test_an_unpublished_file_never_was(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(RuntimeError), PendingFile(path) as pending:
        pending.file.write(b"new")
        raise RuntimeError
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_a_published_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with PendingFile(path) as pending:
        pending.file.write(b"new")
        assert path.read_text() == "old"
        pending.publish()
    assert path.read_text() == "new" and [*tmp_path.iterdir()] == [path]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = int(dead.stdout)
    assert not psutil.pid_exists(gone)
    names = [f".out.jsonl.{gone}.tmp", f".out.jsonl.{os.getppid()}.tmp", f".other.jsonl.{gone}.tmp", ".out.jsonl.x.tmp"]
    for name in names:
        (tmp_path / name).touch()
    with PendingFile(tmp_path / "out.jsonl") as pending:
        pending.publish()
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", *names[1:]}


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        ("a.JSONL", "jsonl", None),
        ("a.json.gz", "json", "gzip"),
        ("a.csv.zst", "csv", "zstd"),
        ("a.b.parquet", "parquet", None),
    ],
)
def test_names_tell_formats(tmp_path, name, kind, compression):
    found = TargetFile.named(tmp_path / name)
    assert (found.kind, found.compression) == (kind, compression)


def test_parquet_is_written_in_row_groups_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_GROUP_BYTES", 100)
    monkeypatch.setattr(module, "_GROUP_ROWS", 4)
    rows = [{"a": "x" * size} for size in (80, 80, 1, 1, 1, 1, 1)]
    file = TargetFile.named(tmp_path / "out.parquet")
    with file.path.open("wb") as out:
        write_rows(((row, json.dumps(row).encode()) for row in rows), file, out, {})
    groups = pq.ParquetFile(file.path)
    assert [groups.metadata.row_group(at).num_rows for at in range(groups.num_row_groups)] == [2, 4, 1]
    assert pq.read_table(file.path).to_pylist() == rows
