"""One file in, a stream of checked conversations, ready pairs and rejects out."""

from __future__ import annotations

from collections.abc import Iterator

from coala_core.config import TripletsConfig
from coala_core.sources.layouts import parse_row
from coala_core.sources.reader import read_rows, resolve_conversations
from coala_core.sources.records import Conversation, Fault, Preference, Reject, RowError, excerpt_of


def read_conversations(config: TripletsConfig) -> Iterator[Conversation | Preference | Reject]:
    """Stream the file that a configuration names.

    Every row gives exactly one item, in file order: nothing is dropped. An id may occur once; of several
    rows with one id the first that is usable wins. Ready pairs that carry a `pair_id` may share their conversation.

    Parameters
    ----------
    config : TripletsConfig
        File, limits and the field to group by.

    Yields
    ------
    Conversation, Preference or Reject

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_rows`: the file is missing, damaged, a directory or of an unknown kind.
    """
    path = resolve_conversations(config.conversations)
    first_rows: dict[str, int] = {}
    for row in read_rows(path):
        if isinstance(row, Reject):
            yield row
            continue
        try:
            record = parse_row(row, config)
            if first_rows.setdefault(record.key, row.number) != row.number:
                detail = f"row {first_rows[record.key]} already has the id {record.key[:80]!r}"
                raise RowError(Fault.DUPLICATE_ID, detail)
        except RowError as error:
            yield Reject(path.name, row.number, error.fault, str(error), excerpt_of(row.content))
        else:
            yield record
