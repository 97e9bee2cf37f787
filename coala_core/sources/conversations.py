"""Files in, a stream of checked conversations, ready pairs and rejects out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

from coala_core.config import TripletsConfig
from coala_core.sources.files import SourceFile, resolve_conversations
from coala_core.sources.layouts import Record, parse_row
from coala_core.sources.pairing import Key, LabelPairs, ScorePairs, key_of
from coala_core.sources.reader import read_rows
from coala_core.sources.records import Conversation, Fault, Preference, RatedResponse, Reject, Row, RowError, reject_row

_BITS_OF_ROW = 40


def read_conversations(config: TripletsConfig) -> Iterator[Conversation | Preference | Reject]:
    """Stream the files that a configuration names.

    Nothing is dropped. A row that is a conversation or a pair by itself gives exactly one item, in file order. Rows
    of IMDb, of unpaired preference and of HelpSteer give pairs of several rows, over all files, as
    `coala_core.sources.pairing` says: a `Preference` carries in `rows` how many it accounts for, and a row that is in
    no pair is one `Reject`, those without a partner at the end. Either way the rows of all items add up to the rows
    of the files. Such rows need a file to themselves.

    An id may occur once in all files; of several rows with one id the first that is usable wins. Ready pairs that
    carry a `pair_id` may share their conversation.

    Parameters
    ----------
    config : TripletsConfig
        Files, layout, names of columns, limits and the field to group by.

    Yields
    ------
    Conversation, Preference or Reject

    Raises
    ------
    FileNotFoundError, ValueError
        As `resolve_conversations` and `read_rows`: a file is missing, damaged or of an unknown kind.
    """
    files = resolve_conversations(config.conversations)
    desk = _Desk(config, files)
    for file in files:
        desk.open_file()
        for row in read_rows(file):
            if isinstance(row, Reject):
                yield row
            else:
                yield from desk.take(row)
    yield from desk.finish()


class _Desk:
    """Reads row after row, and remembers ids and rows that wait for others."""

    def __init__(self, config: TripletsConfig, files: Sequence[SourceFile]) -> None:
        self._config = config
        self._places = _Places()
        self._began: tuple[str | None, Record] | None = None
        self._by_label = LabelPairs(config, self._claim)
        self._by_score = ScorePairs(config, self._claim, lambda: _count_responses(config, files))

    def open_file(self) -> None:
        """Begin a file, which need not have the layout of the one before."""
        self._began = None

    def take(self, row: Row) -> Iterator[Conversation | Preference | Reject]:
        """Yield what a row gives or completes."""
        try:
            record = parse_row(row, self._config)
            self._refuse_mixture(record)
            self._claim(record)
        except RowError as error:
            yield reject_row(row, error)
            return
        if not isinstance(record, RatedResponse):
            yield record
        elif record.pairing == "label":
            yield from self._by_label.add(record)
        else:
            yield from self._by_score.add(record)

    def finish(self) -> Iterator[Preference | Reject]:
        """Yield what still waits."""
        yield from self._by_label.finish()
        yield from self._by_score.finish()

    def _refuse_mixture(self, record: Record) -> None:
        """Refuse a row that would put pairs of several rows beside others in one file."""
        paired = record.layout if isinstance(record, RatedResponse) else None
        if self._began is None:
            self._began = paired, record
        began, first = self._began
        if began != paired:
            rule = f"the rows of {began or paired} make pairs together and need a file to themselves"
            reason = f"the row is of the layout {record.layout}, but row {first.row} of {first.layout}; {rule}"
            raise RowError(Fault.MIXED_LAYOUTS, reason)

    def _claim(self, record: Record) -> None:
        """Take a record's id, if it is free."""
        if record.key is not None:
            self._places.claim(record.key, record.source, record.row)


class _Places:
    """Where each id came first: a number, since a million places as objects would take much room."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._names: list[str] = []

    def claim(self, key: str, source: str, row: int) -> None:
        """Keep an id's place, or refuse the id where another place has it."""
        if source not in self._sources:
            self._sources[source] = len(self._names)
            self._names.append(source)
        place = self._sources[source] << _BITS_OF_ROW | row
        first = self._first.setdefault(key, place)
        if first != place:
            where = f"row {first & (1 << _BITS_OF_ROW) - 1} of {self._names[first >> _BITS_OF_ROW]}"
            raise RowError(Fault.DUPLICATE_ID, f"{where} already has the id {key[:80]!r}")


def _count_responses(config: TripletsConfig, files: Sequence[SourceFile]) -> Counter[Key]:
    """Count the scored responses of each prompt in all files."""
    counts: Counter[Key] = Counter()
    for row in (row for file in files for row in read_rows(file)):
        if isinstance(row, Row):
            with suppress(RowError):
                record = parse_row(row, config)
                if isinstance(record, RatedResponse) and record.pairing == "score":
                    counts[key_of(record)] += 1
    return counts
