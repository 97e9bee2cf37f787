"""Files that a conversion writes: by format, streamed, and whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Literal, Self, cast

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.convert.columns import Columns

Kind = Literal["jsonl", "json", "csv", "parquet"]

_TEXTS = (".jsonl", ".json", ".csv")
TARGET_SUFFIXES = (*_TEXTS, ".parquet", *(text + packed for text in _TEXTS for packed in (".gz", ".zst")))
"""Ends of the names of files that a conversion can write."""

_COMPRESSIONS = {"gz": "gzip", "zst": "zstd"}
_GROUP_ROWS = 4096
_GROUP_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TargetFile:
    """A file to write.

    Attributes
    ----------
    path : Path
        Where it will be.
    kind : {"jsonl", "json", "csv", "parquet"}
        Its format.
    compression : {"gzip", "zstd"} or None
        How its text is compressed.
    """

    path: Path
    kind: Kind
    compression: str | None

    @classmethod
    def named(cls, path: Path) -> Self:
        """Read format and compression from a name.

        Raises
        ------
        ValueError
            If the name ends in none of `TARGET_SUFFIXES`.
        """
        suffix = next((end for end in TARGET_SUFFIXES if path.name.lower().endswith(end)), None)
        if suffix is None or path.name.lower() == suffix:
            raise ValueError(
                f"`convert(target=...)` must end in one of {', '.join(TARGET_SUFFIXES)}, got {path.name!r}; "
                "choose one of them."
            )
        kind, _, packed = suffix[1:].partition(".")
        return cls(path, cast(Kind, kind), _COMPRESSIONS.get(packed))

    @property
    def is_table(self) -> bool:
        """Whether the file has columns, which must be known before its first row is written."""
        return self.kind in ("csv", "parquet")


@dataclass
class PendingFile:
    """A file that appears under its name whole, when it is published, or not at all.

    A link of that name is replaced, not followed. What a killed process left of an earlier attempt is removed.

    Parameters
    ----------
    path : Path
        The file's name.
    """

    path: Path
    file: BinaryIO = field(init=False)
    """Where the content goes."""

    def __enter__(self) -> Self:
        for leftover in self.path.parent.iterdir():
            if leftover.name.startswith(f".{self.path.name}.") and _is_leftover(leftover.name):
                leftover.unlink(missing_ok=True)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._temporary.unlink(missing_ok=True)
        self.file = self._temporary.open("xb")
        return self

    def publish(self) -> None:
        """Give the file its name, replacing what has it."""
        self.file.close()  # compression has closed it already
        with self._temporary.open("rb") as written:
            os.fsync(written.fileno())
        self._temporary.replace(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        self._temporary.unlink(missing_ok=True)


def write_rows(
    lines: Iterable[tuple[Mapping[str, object], bytes]],
    target: TargetFile,
    file: BinaryIO,
    fixed: Mapping[str, pa.DataType],
) -> tuple[str, ...]:
    """Write rows in the format of the target.

    JSON is written as it comes. Columns are written from a nameless spool beside the target, when all of them are
    known; memory holds one row group of at most 4,096 rows or about 64 MiB.

    Parameters
    ----------
    lines : iterable of (mapping, bytes)
        Rows, and the same as JSON in UTF-8.
    target : TargetFile
        The format.
    file : binary file
        Where to write.
    fixed : mapping of str to pyarrow.DataType
        Types of the layout's own columns.

    Returns
    -------
    tuple of str
        Fields that columns could not hold exactly and the column `columns.PACKED` holds, sorted.
    """
    if not target.is_table:
        _write_json(lines, target, file)
        return ()
    columns = Columns(cast(Literal["parquet", "csv"], target.kind), fixed)
    with tempfile.TemporaryFile(dir=target.path.parent, prefix=".coala-") as spool:
        for row, line in lines:
            columns.learn(row)
            spool.write(line + b"\n")
        spool.seek(0)
        if target.kind == "parquet":
            _write_parquet(spool, columns, file)
        else:
            _write_csv(spool, columns, target.compression, file)
    return tuple(sorted(columns.packed))


def _write_json(lines: Iterable[tuple[Mapping[str, object], bytes]], target: TargetFile, file: BinaryIO) -> None:
    """Write JSON lines, or the same as one list."""
    opening, between, closing = (b"[\n", b",\n", b"\n]\n") if target.kind == "json" else (b"", b"\n", b"\n")
    with _compressed(file, target.compression) as sink:
        sink.write(opening)
        for number, (_, line) in enumerate(lines):
            sink.write(between + line if number else line)
        sink.write(closing)


def _write_parquet(spool: IO[bytes], columns: Columns, file: BinaryIO) -> None:
    """Write row groups that a reader can hold one at a time."""
    schema = columns.schema
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(spool, columns):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _write_csv(spool: IO[bytes], columns: Columns, compression: str | None, file: BinaryIO) -> None:
    """Write every cell in quotes, so that no reader takes one for a number or a line break for a row."""
    with _compressed(file, compression) as sink:
        text = io.TextIOWrapper(sink, encoding="utf-8", newline="")
        writer = csv.DictWriter(text, columns.schema.names, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        for group in _groups(spool, columns):
            writer.writerows(group)
        text.flush()
        text.detach()


def _groups(spool: IO[bytes], columns: Columns) -> Iterator[list[dict[str, object]]]:
    """Yield packed rows in groups of bounded size."""
    group: list[dict[str, object]] = []
    size = 0
    for line in spool:
        group.append(columns.pack(json.loads(line)))
        size += len(line)
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _compressed(file: BinaryIO, compression: str | None) -> Iterator[BinaryIO]:
    """Compress what is written, if the target says so."""
    if compression is None:
        yield file
        return
    with pa.CompressedOutputStream(file, compression) as sink:
        yield cast(BinaryIO, sink)


def _is_leftover(name: str) -> bool:
    """Tell whether a temporary file is of a process that is gone."""
    *_, process, suffix = name.split(".")
    return suffix == "tmp" and process.isdecimal() and not psutil.pid_exists(int(process))
