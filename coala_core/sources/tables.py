"""Parquet files, in batches that stay small whatever the row groups are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.sources.lines import MAX_NEST, first_line
from coala_core.sources.records import Fault, Reject, Row

BATCH_ROWS = 256


def parquet_rows(stream: BinaryIO, source: str) -> Iterator[Row | Reject]:
    """Stream the rows of a Parquet file.

    Parameters
    ----------
    stream : binary file
        It must be able to seek.
    source : str
        Name of the file, for rows and rejects.

    Yields
    ------
    Row or Reject
        With the 1-based number of the row.

    Raises
    ------
    ValueError
        If two columns have one name, or a column is nested too deep.
    pyarrow.ArrowException, OSError
        If the file is damaged.
    """
    number = 0
    with pq.ParquetFile(stream) as file:
        refuse_repeated(file.schema_arrow.names, source)
        _refuse_deep(file.schema_arrow, source)
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from _batch_rows(batch, source, number)
            number += batch.num_rows


def refuse_repeated(names: list[str], source: str) -> None:
    """Refuse a header in which a column occurs twice.

    Raises
    ------
    ValueError
        If a name is repeated.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(
            f"`read_rows({source!r})` needs columns of different names, got {repeated[0][:80]!r} more than once; "
            "rename one of them."
        )


def _batch_rows(batch: pa.RecordBatch, source: str, before: int) -> Iterator[Row | Reject]:
    """Convert a batch at once, or row by row where one of its rows cannot be converted."""
    try:
        contents = batch.to_pylist()
    except (ValueError, OverflowError, KeyError, pa.ArrowException):
        for index in range(batch.num_rows):
            yield _single_row(batch.slice(index, 1), source, before + index + 1)
        return
    for number, content in enumerate(contents, start=before + 1):
        yield Row(number, content, source)


def _single_row(batch: pa.RecordBatch, source: str, number: int) -> Row | Reject:
    """Convert one row, whose strings Parquet does not promise to be UTF-8."""
    try:
        return Row(number, batch.to_pylist()[0], source)
    except UnicodeDecodeError:
        return Reject(source, number, Fault.NOT_UTF8, "a string of the row is not UTF-8", "")
    except (ValueError, OverflowError, KeyError, pa.ArrowException) as error:
        return Reject(source, number, Fault.NOT_OBJECT, f"a value of the row cannot be read: {first_line(error)}", "")


def _refuse_deep(schema: pa.Schema, source: str) -> None:
    """Refuse columns in which more lists and structures lie inside one another than a row may hold."""
    level = list(schema.types)
    for _ in range(MAX_NEST):
        level = [kind.field(at).type for kind in level for at in range(kind.num_fields)]
    if level:
        raise ValueError(
            f"`read_rows({source!r})` needs columns of at most {MAX_NEST} lists and structures inside one another, "
            "got a deeper one; leave that column out."
        )
