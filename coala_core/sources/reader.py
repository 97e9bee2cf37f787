"""Stream numbered rows out of files of every readable kind.

``files``      names to files        ``lines``, ``documents``   JSON
``remote``     files behind a URL    ``tables``, ``separated``  Parquet, CSV and TSV
``hub``        data sets of the hub  ``archives``, ``reviews``  zip and tar, IMDb's texts
"""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, cast

import pyarrow as pa

from coala_core.sources.archives import archive_rows
from coala_core.sources.documents import document_rows, read_whole
from coala_core.sources.files import ARCHIVES, COMPRESSIONS, PARQUET, REVIEW, SourceFile, suffix_of
from coala_core.sources.lines import first_line, line_rows
from coala_core.sources.records import Reject, Row
from coala_core.sources.reviews import review_rows
from coala_core.sources.separated import separated_rows
from coala_core.sources.tables import parquet_rows

_READERS: dict[str, Callable[[BinaryIO, str], Iterator[Row | Reject]]] = {
    ".jsonl": line_rows,
    ".ndjson": line_rows,
    ".json": document_rows,
    ".csv": partial(separated_rows, delimiter=","),
    ".tsv": partial(separated_rows, delimiter="\t"),
    PARQUET: parquet_rows,
}
_KINDS = {PARQUET: "Parquet", ".gz": "gzip", ".zst": "Zstandard", ".zip": "zip", ".tar": "tar", ".tgz": "gzip"}
_DAMAGE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    pa.ArrowException,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
_BUFFER = 1 << 20


def read_rows(file: SourceFile) -> Iterator[Row | Reject]:
    """Stream the rows of one file.

    ==============================  =============================================================================
    .jsonl, .ndjson                 one object a line, `lines.line_rows`
    .json                           a list, an object around a single list, one object, or lines after all,
                                    `documents.document_rows`
    .csv, .tsv                      a header and rows of strings, `separated.separated_rows`
    all of these + .gz, .zst        the same, packed in one or several gzip members or Zstandard frames
    .parquet                        `tables.parquet_rows`
    .txt below ``pos`` or ``neg``   one review of IMDb, `reviews.review_rows`
    .zip, .tar, .tar.gz, .tgz,      members of all kinds above, `archives.archive_rows`
    .tar.zst
    ==============================  =============================================================================

    Everything but JSON documents, and Parquet in archives, is streamed; those are held whole, up to 512 MiB.

    Parameters
    ----------
    file : SourceFile
        As `resolve_conversations` gives it.

    Yields
    ------
    Row or Reject
        In file order, with 1-based numbers and the name of the file; of an archive, with the name and numbers of its
        members. What cannot be read of a row (more than 64 MiB, not UTF-8, not JSON, more than 128 levels deep, not
        an object) is a reject.

    Raises
    ------
    FileNotFoundError
        If the file is gone.
    ValueError
        If it cannot be opened, is damaged, or a document is too large to hold.
    """
    try:
        with file.open() as stream:
            yield from _rows(stream, file.suffix, file.address, file.name)
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        kind = _KINDS.get(file.suffix[file.suffix.rindex(".") :], "readable")
        raise ValueError(
            f"`read_rows({file.name!r})` needs an intact {kind} file, got {first_line(error)}; "
            f"{'write' if file.suffix == PARQUET else 'fetch'} it again."
        ) from error


def _rows(stream: BinaryIO, suffix: str, path: str, source: str) -> Iterator[Row | Reject]:
    """Read a stream of stored bytes as its suffix says."""
    packed = ".gz" if suffix.endswith((".gz", ".tgz")) else next((p for p in COMPRESSIONS if suffix.endswith(p)), "")
    stream = _unpacked(stream, packed)
    if suffix == REVIEW:
        yield from review_rows(stream, source, path)
    elif suffix in ARCHIVES:
        yield from archive_rows(_seekable(stream) if suffix == ".zip" else stream, suffix, source, _member_rows)
    else:
        stream = _seekable(stream) if suffix == PARQUET else stream
        yield from _READERS[suffix.removesuffix(packed)](stream, source)


def _member_rows(stream: BinaryIO, path: str, source: str) -> Iterator[Row | Reject]:
    """Read a member of an archive; Parquet is held, since it is not read from its beginning to its end."""
    suffix = suffix_of(path) or ""
    if suffix == PARQUET:
        stream = io.BytesIO(read_whole(stream, source, "a Parquet file in an archive", "unpack the archive first"))
    yield from _rows(stream, suffix, path, source)


def _unpacked(stream: BinaryIO, packed: str) -> BinaryIO:
    """Put the decompressor on a stream that its suffix asks for."""
    if packed == ".gz":
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=stream), _BUFFER))
    if packed == ".zst":
        frames = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
        return cast(BinaryIO, io.BufferedReader(frames, _BUFFER))
    return stream


def _seekable(stream: BinaryIO) -> BinaryIO:
    """Return a stream that can seek: itself, or a copy of a remote one in a temporary file without a name."""
    if stream.seekable():
        return stream
    copy = tempfile.TemporaryFile()
    shutil.copyfileobj(stream, copy, _BUFFER)
    copy.seek(0)
    return cast(BinaryIO, copy)
