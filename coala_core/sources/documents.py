"""JSON documents: a list of objects, an object around a single list, one object, or lines after all."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from coala_core.sources.layouts import LAYOUT_FIELDS
from coala_core.sources.lines import BYTE_ORDER_MARK, MAX_NEST, first_line, is_exact, line_rows, nests_deeper, row_of
from coala_core.sources.records import Fault, Reject, Row, excerpt_of

MAX_DOCUMENT_BYTES = 512 * 2**20
_BLOCK = 1 << 20


def document_rows(stream: BinaryIO, source: str) -> Iterator[Row | Reject]:
    """Read one JSON document, or JSON lines where it is none and does not start a list.

    Parameters
    ----------
    stream : binary file
        The document, which is held whole.
    source : str
        Name of the file, for rows and rejects.

    Yields
    ------
    Row or Reject
        With the number of its item, or of its line.

    Raises
    ------
    ValueError
        If a list is not complete, or the document is longer than 512 MiB.
    """
    raw = read_whole(stream, source, "a JSON document", "write one object per line as .jsonl, which is streamed")
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    try:
        document, damaged = _parse(raw)
    except (ValueError, RecursionError) as error:
        if raw.lstrip().startswith(b"["):
            words = "lists and objects nested too deep" if isinstance(error, RecursionError) else first_line(error)
            raise ValueError(
                f"`read_rows({source!r})` needs a complete JSON list, got {words}; "
                "write it again, or one object per line as .jsonl."
            ) from error
        yield from line_rows(io.BytesIO(raw), source)
        return
    del raw
    for number, item in enumerate(_items(document), start=1):
        if nests_deeper(item, MAX_NEST):
            reason = f"the row holds more than {MAX_NEST} objects and lists inside one another"
            yield Reject(source, number, Fault.NOT_JSON, reason, "")
        elif damaged and not _is_unicode(json.dumps(item, ensure_ascii=False)):
            yield Reject(source, number, Fault.NOT_UTF8, "the item holds bytes that are not UTF-8", excerpt_of(item))
        else:
            yield row_of(item, source, number)


def read_whole(stream: BinaryIO, source: str, kind: str, remedy: str) -> bytes:
    """Read a whole stream, refusing one that is too large to hold.

    Parameters
    ----------
    stream : binary file
    source, kind, remedy : str
        Name of the file, what it is and what to do instead, for the message.

    Raises
    ------
    ValueError
        If there are more than 512 MiB.
    """
    blocks, size = [], 0
    while block := stream.read(_BLOCK):
        blocks.append(block)
        size += len(block)
        if size > MAX_DOCUMENT_BYTES:
            raise ValueError(
                f"`read_rows({source!r})` holds {kind} whole and takes {MAX_DOCUMENT_BYTES} bytes at most, "
                f"got more; {remedy}."
            )
    return b"".join(blocks)


def _parse(raw: bytes) -> tuple[object, bool]:
    """Parse a document, and tell whether it holds bytes that are not UTF-8."""
    if all(is_exact(raw[at : at + _BLOCK + 20]) for at in range(0, len(raw), _BLOCK)):
        try:
            return orjson.loads(raw), False
        except orjson.JSONDecodeError:
            pass  # Python's parser takes more, and gives the better reason
    text = raw.decode("utf-8", errors="surrogateescape")
    return json.loads(text), not _is_unicode(text)


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
