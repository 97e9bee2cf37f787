"""JSON lines: one object a line, read fast, with an exact fault for a line that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from coala_core.sources.records import Fault, Reject, Row, excerpt_of

MAX_LINE_BYTES = 64 * 2**20
MAX_NEST = 128
"""Objects and lists inside one another that a row may hold."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE = 1 << 20
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 20


def line_rows(stream: BinaryIO, source: str) -> Iterator[Row | Reject]:
    r"""Stream JSON lines; an overlong line is passed over in pieces, never held.

    Numbers, escapes and repeated keys are read as by Python's `json`: integers exactly whatever their length, ``NaN``
    as a float, half a surrogate pair as it is, of a repeated key the last value.

    Parameters
    ----------
    stream : binary file
        The lines, ended by ``\n`` or ``\r\n``; the last one may be open. A byte order mark may come first.
    source : str
        Name of the file, for rows and rejects.

    Yields
    ------
    Row or Reject
        With the number of its line. Lines of nothing but whitespace hold no row, though they count.
    """
    readline, loads, number = stream.readline, orjson.loads, 0
    while line := readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            skip_rest_of_line(stream, line)
            yield long_line(source, number, line)
            continue
        try:
            content = loads(line)
        except orjson.JSONDecodeError:
            content = None
        if type(content) is dict and is_exact(line) and not is_deep(line, content):
            yield Row(number, content, source)
        else:
            line = line if number > 1 else line.removeprefix(BYTE_ORDER_MARK)
            if line and not line.isspace():
                yield parse_line(line, source, number)


def skip_rest_of_line(stream: BinaryIO, piece: bytes) -> None:
    """Advance to the next line without keeping what is read.

    Parameters
    ----------
    stream : binary file
    piece : bytes
        What was read of the line last.
    """
    while piece and not piece.endswith(b"\n"):
        piece = stream.readline(_PIECE)


def long_line(source: str, number: int, line: bytes) -> Reject:
    """Report a line that is too long, of which `line` is the start."""
    return Reject(
        source, number, Fault.LONG_LINE, f"the line is longer than {MAX_LINE_BYTES} bytes", excerpt_of(line[:1024])
    )


def parse_line(line: bytes, source: str, number: int) -> Row | Reject:
    """Decode and parse one line with care, and say what is wrong with it."""
    try:
        content = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return not_utf8(line, error, source, number)
    except RecursionError:
        return _too_deep(source, number, line)
    except ValueError as error:
        reason = f"the line is not JSON: {first_line(error)}"
        return Reject(source, number, Fault.NOT_JSON, reason, excerpt_of(line))
    return _too_deep(source, number, line) if is_deep(line, content) else row_of(content, source, number, line)


def row_of(content: object, source: str, number: int, raw: bytes | None = None) -> Row | Reject:
    """Wrap a parsed value, which must be an object that is not too deep; `raw` are the bytes it was parsed from."""
    if isinstance(content, dict):
        return Row(number, content, source)
    reason = f"the row is a {type(content).__name__}, not an object"
    return Reject(source, number, Fault.NOT_OBJECT, reason, excerpt_of(content if raw is None else raw))


def not_utf8(raw: bytes, error: UnicodeDecodeError, source: str, number: int) -> Reject:
    """Report bytes that are not UTF-8."""
    return Reject(
        source, number, Fault.NOT_UTF8, f"byte {error.start + 1} of the line is not UTF-8", excerpt_of(raw[:1024])
    )


def is_exact(raw: bytes) -> bool:
    """Tell that no number of a JSON text has so many digits that orjson would round it."""
    return _LONG_NUMBER not in raw.translate(_DIGITS)


def is_deep(raw: bytes, content: object) -> bool:
    """Tell whether a parsed JSON text holds more than `MAX_NEST` objects and lists inside one another."""
    return raw.count(b"{") + raw.count(b"[") > MAX_NEST and nests_deeper(content, MAX_NEST)


def nests_deeper(content: object, limit: int) -> bool:
    """Tell whether a value holds more than `limit` objects and lists inside one another, itself included."""
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        inner = (item for value in level for item in (value.values() if isinstance(value, dict) else value))
        level = [item for item in inner if isinstance(item, dict | list)]
    return bool(level)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def _too_deep(source: str, number: int, line: bytes) -> Reject:
    reason = f"the row holds more than {MAX_NEST} objects and lists inside one another"
    return Reject(source, number, Fault.NOT_JSON, reason, excerpt_of(line))
