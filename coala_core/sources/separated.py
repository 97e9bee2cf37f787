"""CSV and TSV with a header: one object of strings a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

from coala_core.sources import lines
from coala_core.sources.lines import BYTE_ORDER_MARK, first_line, skip_rest_of_line
from coala_core.sources.records import Fault, Reject, Row, excerpt_of
from coala_core.sources.tables import refuse_repeated


def separated_rows(stream: BinaryIO, source: str, delimiter: str) -> Iterator[Row | Reject]:
    r"""Stream the rows of a CSV or TSV file, quoted as spreadsheets quote.

    Parameters
    ----------
    stream : binary file
        UTF-8, with a header of different names; lines end in ``\n`` or ``\r\n``.
    source : str
        Name of the file, for rows and rejects.
    delimiter : str
        What stands between cells.

    Yields
    ------
    Row or Reject
        With the number of the row below the header, from 1, which is no line number where a cell holds line breaks;
        empty lines are no rows. A row that is not CSV, not UTF-8, longer than a line may be, or that has more or
        fewer cells than the header is a reject that names its line.

    Raises
    ------
    ValueError
        If the header cannot be read or repeats a name.
    """
    csv.field_size_limit(max(csv.field_size_limit(), lines.MAX_LINE_BYTES))
    text = _Lines(stream)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    names = _header(reader, text, source)
    number = 0
    while names:
        text.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            number += 1
            yield _fault(error, text, source, number)
            continue
        if cells and (len(cells) == len(names) or cells[0].strip() or len(cells) > 1):
            number += 1
            yield _row(names, cells, text, source, number)


class _TooLong(Exception):
    """A row is longer than a line may be."""


class _Lines:
    """Lines of a stream as text, with a limit on what one row may take."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._line = 0
        self._size = 0
        self.first = 1
        """Line on which the row begins."""
        self.damaged = False
        """Whether the row holds bytes that are not UTF-8."""

    def begin(self) -> None:
        """Expect another row."""
        self._size, self.first, self.damaged = 0, self._line + 1, False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        limit = lines.MAX_LINE_BYTES
        line = self._stream.readline(limit + 1)
        if not line:
            raise StopIteration
        self._line += 1
        self._size += len(line)
        if self._size > limit:
            skip_rest_of_line(self._stream, line)
            raise _TooLong(f"the row is longer than {limit} bytes")
        line = line.removeprefix(BYTE_ORDER_MARK) if self._line == 1 else line
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            self.damaged = True
            return line.decode("utf-8", errors="surrogateescape")


def _header(reader: Iterator[list[str]], text: _Lines, source: str) -> list[str]:
    """Read the names of the columns; none where the file is empty."""
    try:
        names = next((cells for cells in reader if any(cell.strip() for cell in cells)), [])
    except (csv.Error, _TooLong) as error:
        raise ValueError(
            f"`read_rows({source!r})` needs a header of column names, got a first line that cannot be read: "
            f"{first_line(error)}; write the file again."
        ) from None
    if text.damaged:
        raise ValueError(
            f"`read_rows({source!r})` needs a header in UTF-8, got other bytes; save the file as UTF-8 and try again."
        )
    refuse_repeated(names, source)
    return names


def _fault(error: Exception, text: _Lines, source: str, number: int) -> Reject:
    """Report a row that could not be divided into cells."""
    fault = Fault.LONG_LINE if isinstance(error, _TooLong) else Fault.NOT_OBJECT
    what = "" if isinstance(error, _TooLong) else "the row is not CSV: "
    return Reject(source, number, fault, f"{what}{first_line(error)} (from line {text.first})", "")


def _row(names: list[str], cells: list[str], text: _Lines, source: str, number: int) -> Row | Reject:
    """Give each cell the name of its column."""
    excerpt = [cell[:200] for cell in cells[:20]]
    if text.damaged:
        reason = f"the row holds bytes that are not UTF-8 (from line {text.first})"
        return Reject(source, number, Fault.NOT_UTF8, reason, excerpt_of(excerpt))
    if len(cells) != len(names):
        reason = f"the row has {len(cells)} cells and the header {len(names)} (from line {text.first})"
        return Reject(source, number, Fault.NOT_OBJECT, reason, excerpt_of(excerpt))
    return Row(number, dict(zip(names, cells, strict=True)), source)
