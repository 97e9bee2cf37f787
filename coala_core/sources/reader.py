"""Stream numbered rows out of JSON lines, JSON and Parquet files, gzipped or not.

A line or item that cannot be read becomes a `Reject`; a file that cannot be read is one error.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.config import BUILTIN_CONVERSATIONS
from coala_core.sources.layouts import LAYOUT_FIELDS
from coala_core.sources.records import Fault, Reject, Row, excerpt_of

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
MAX_LINE_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 512 * 2**20
_PARQUET_ROWS = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def resolve_conversations(name: str) -> Path:
    """Turn the setting `triplets.conversations` into the path of a readable file.

    Parameters
    ----------
    name : str
        A path, or "builtin" for the conversations shipped with the package.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a directory, or its suffix is none of `SUFFIXES`.
    """
    path = _builtin_path() if name == BUILTIN_CONVERSATIONS else Path(name).expanduser()
    if path.is_dir():
        found = sorted(entry.name for entry in path.iterdir() if _suffix(entry) is not None)
        listed = ", ".join(found[:5]) or "none that can be read"
        raise ValueError(
            f"`triplets.conversations` must name one file, got the directory {path}; files there: {listed}."
        )
    if not path.exists():
        raise FileNotFoundError(
            f"`triplets.conversations` must name an existing file, got {str(path)!r}; "
            f'correct the path, or write "{BUILTIN_CONVERSATIONS}" for the shipped conversations.'
        )
    if _suffix(path) is None:
        raise ValueError(
            f"`triplets.conversations` must end in one of {', '.join(SUFFIXES)}, got {path.name!r}; "
            "convert the file or correct its name."
        )
    return path


def read_rows(path: Path | str) -> Iterator[Row | Reject]:
    """Stream the rows of one file, each with its 1-based number.

    JSON lines and Parquet are streamed; a JSON document (a list, or an object around a single list) is held
    whole, up to 512 MiB. A .json file that holds an object per line is read as JSON lines. Lines of
    nothing but whitespace hold no row and are passed over, though they count as lines.

    Parameters
    ----------
    path : Path or str
        A file with one of `SUFFIXES`.

    Yields
    ------
    Row or Reject
        In file order. Lines above 64 MiB, not in UTF-8, not JSON or not an object are rejects.

    Raises
    ------
    FileNotFoundError, ValueError
        As `resolve_conversations`; ValueError also if the gzip stream, the JSON document or the Parquet
        file is damaged, or a JSON document is too large to hold.
    """
    path = resolve_conversations(str(path))
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(path)
        elif suffix in (".jsonl", ".jsonl.gz"):
            yield from _line_rows(path)
        else:
            yield from _document_rows(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"`read_rows({str(path)!r})` needs an intact gzip file, got {_first_line(error)}; fetch it again."
        ) from error
    except (pa.ArrowException, OSError) as error:
        if suffix != ".parquet":
            raise
        raise ValueError(
            f"`read_rows({str(path)!r})` needs an intact Parquet file, got {_first_line(error)}; write it again."
        ) from error


def _builtin_path() -> Path:
    """Locate the shipped conversations."""
    try:
        return Path(str(resources.files("coala_data").joinpath("conversations.jsonl")))
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f'`triplets.conversations="{BUILTIN_CONVERSATIONS}"` needs the package `coala_data`, '
            "got an installation without it; install the project again or name a file."
        ) from error


def _suffix(path: Path) -> str | None:
    """Return the known suffix of a file name, or None."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def _open(path: Path) -> BinaryIO:
    """Open a file for reading bytes, through gzip where its name says so."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _line_rows(path: Path) -> Iterator[Row | Reject]:
    """Stream JSON lines; an overlong line is passed over in pieces, never held."""
    with _open(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                _skip_rest_of_line(stream, line)
                reason = f"the line is longer than {MAX_LINE_BYTES} bytes"
                yield Reject(path.name, number, Fault.LONG_LINE, reason, excerpt_of(line))
                continue
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if not line.isspace() and line:
                yield _parse_line(line, path.name, number)


def _skip_rest_of_line(stream: BinaryIO, piece: bytes) -> None:
    """Advance to the next line without keeping what is read."""
    while piece and not piece.endswith(b"\n"):
        piece = stream.readline(2**20)


def _parse_line(line: bytes, source: str, number: int) -> Row | Reject:
    """Decode and parse one line."""
    try:
        content = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line is not UTF-8"
        return Reject(source, number, Fault.NOT_UTF8, reason, excerpt_of(line))
    except (ValueError, RecursionError) as error:
        reason = f"the line is not JSON: {_first_line(error)}"
        return Reject(source, number, Fault.NOT_JSON, reason, excerpt_of(line))
    return _row(content, source, number)


def _row(content: object, source: str, number: int) -> Row | Reject:
    """Wrap a parsed value, which must be an object."""
    if isinstance(content, dict):
        return Row(number, content)
    reason = f"the row is a {type(content).__name__}, not an object"
    return Reject(source, number, Fault.NOT_OBJECT, reason, excerpt_of(content))


def _document_rows(path: Path) -> Iterator[Row | Reject]:
    """Read one JSON document, or fall back to JSON lines where it is not one and does not start a list."""
    raw = _read_document(path)
    text = raw.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", errors="surrogateescape")
    del raw
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise ValueError(
                f"`read_rows({str(path)!r})` needs a complete JSON list, got {_first_line(error)}; "
                "write it again, or one object per line as .jsonl."
            ) from error
        del text
        yield from _line_rows(path)
        return
    damaged = not _is_unicode(text)
    for number, item in enumerate(_items(document), start=1):
        if damaged and not _is_unicode(json.dumps(item, ensure_ascii=False)):
            yield Reject(path.name, number, Fault.NOT_UTF8, "the item holds bytes that are not UTF-8", excerpt_of(item))
        else:
            yield _row(item, path.name, number)


def _read_document(path: Path) -> bytes:
    """Read a whole file, refusing one that is too large to hold."""
    with _open(path) as stream:
        raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ValueError(
            f"`read_rows({str(path)!r})` holds a JSON document whole and takes {MAX_DOCUMENT_BYTES} bytes at most, "
            "got more; write one object per line as .jsonl, which is streamed."
        )
    return raw


def _items(document: object) -> list[object]:
    """Return the rows of a document: a list, an object around a single list, or the document itself."""
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and not LAYOUT_FIELDS & document.keys():
        lists = [value for value in document.values() if isinstance(value, list)]
        if len(lists) == 1:
            return lists[0]
    return [document]


def _is_unicode(text: str) -> bool:
    """Tell whether a string has no lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parquet_rows(path: Path) -> Iterator[Row | Reject]:
    """Stream a Parquet file in small batches."""
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            for index in range(batch.num_rows):
                number += 1
                yield _parquet_row(batch.slice(index, 1), path.name, number)


def _parquet_row(batch: pa.RecordBatch, source: str, number: int) -> Row | Reject:
    """Convert one row, whose strings Parquet does not promise to be UTF-8."""
    try:
        return Row(number, batch.to_pylist()[0])
    except UnicodeDecodeError:
        return Reject(source, number, Fault.NOT_UTF8, "a string of the row is not UTF-8", "")


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
