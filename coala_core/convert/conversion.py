"""From any source that can be read to a file in one layout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from coala_core.config import TripletsConfig
from coala_core.convert.items import Item, ItemReader
from coala_core.convert.layouts import COLUMNS, PAIR_TARGETS, TARGETS, TargetLayout
from coala_core.convert.refusals import Refusal, TargetFault
from coala_core.convert.rows import WHY_NO_CONVERSATION, RowWriter, Written
from coala_core.convert.target import PendingFile, TargetFile, write_rows
from coala_core.progress import Progress, silent
from coala_core.sources import Preference, Reject

REJECTS_SUFFIX = ".rejects.jsonl"
"""What the name of the file of rejects adds to that of the output."""

FLAT_TARGETS: tuple[TargetLayout, ...] = ("preference-standard", "preference-standard-implicit", "unpaired-standard")
"""Layouts whose every field is one text, or true or false, as CSV needs."""

_PROGRESS_ROWS = 1000


@dataclass(frozen=True)
class ConvertReport:
    """What became of the rows.

    Attributes
    ----------
    target : Path
        The file that was written.
    rejects : Path or None
        The file of rejects beside it, if there are any.
    rows_in : int
        Rows read: ``rows_used`` (of which something was written) + ``rows_rejected``.
    rows_used, rows_rejected : int
        See ``rows_in``.
    rows_written : int
        Rows of the target.
    rejected : int
        Lines of the file of rejects: rows, and single pairs of used rows.
    rejected_by_reason : mapping of str to int
        These by fault, the most frequent first.
    layouts : mapping of str to int
        Used conversations, pairs and responses by the layout that they were read in.
    packed : tuple of str
        Fields that columns cannot hold exactly, hence also or only in the column `coala_core.convert.PACKED`.
    """

    target: Path
    rejects: Path | None
    rows_in: int
    rows_used: int
    rows_rejected: int
    rows_written: int
    rejected: int
    rejected_by_reason: Mapping[str, int]
    layouts: Mapping[str, int]
    packed: tuple[str, ...]


def convert(
    source_config: TripletsConfig,
    target: Path | str,
    layout: TargetLayout,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> ConvertReport:
    """Read conversations, pairs or labelled responses, and write them in another layout.

    Memory holds one row at a time; for Parquet and CSV, whose columns must be known first, a row group, and rows wait
    in a nameless file beside the target. Of responses that make pairs of several rows, those that wait are held.

    What survives, in any layout that can hold it and back again: ids, every other field of a row with its type,
    whatever it holds, system turns, white space and Unicode of texts, and what messages hold beside speaker and text
    (layouts of bare texts carry that in the field ``turn_fields``). Every row is read back before it is written; one
    that would then say something else is a reject. What is written in a uniform way: the speakers' names (``teacher``
    becomes the target's word for the tutor), and null fields, which go where the layout needs their name. Parquet
    and CSV keep what a column cannot hold exactly as JSON in the column `PACKED`, which reading undoes. JSON has no
    form for dates, bytes and numbers that are not finite, so that a row with one is a reject.

    Conversations become pairs by alternating population, which cannot be undone: each pair carries the fields of its
    conversation, ``conversation_id``, ``pair_id``, ``group`` and ``turn``; a field of the conversation's own under a
    name that its pairs need gets the prefix ``row_``. Rows that are pairs together keep the fields in which they agree
    and the others in ``chosen_fields`` and ``rejected_fields``. As in the stage ``triplets``, a conversation from
    which no pair could be made is a reject.

    Parameters
    ----------
    source_config : TripletsConfig
        What to read and how; which replies make pairs, and which pairs to leave out.
    target : Path or str
        File to write, ending in one of `TARGET_SUFFIXES`; CSV for one of `FLAT_TARGETS`. It appears whole or not at
        all; a link of that name is replaced, not followed.
    layout : str
        One of `TARGETS`.
    force : bool, default=False
        Whether an existing target, and the file of its rejects, may be replaced.
    progress : Progress
        Called every 1,000 rows; how many will come is not known ahead, so both counts are the rows so far.

    Returns
    -------
    ConvertReport
        Counts. Rejects lie beside the target under its name and `REJECTS_SUFFIX`, one a line as JSON.

    Raises
    ------
    FileNotFoundError
        If there is no such source, or no folder for the target.
    FileExistsError
        If the target or the file of its rejects exists and `force` is not set.
    ValueError
        If the layout or the kind of the target is unknown, or the target cannot hold the layout; if a source is
        damaged or of an unknown kind; if its first usable row is a pair and the layout is a dialogue's; or if no row
        can be written.
    """
    file = TargetFile.named(Path(target).expanduser())
    rejects = file.path.with_name(file.path.name + REJECTS_SUFFIX)
    _check_target(file, rejects, layout, force)
    with PendingFile(file.path) as output, PendingFile(rejects) as refused:
        work = _Conversion(
            source_config, layout, finite=file.kind == "json" or file.kind == "jsonl", refused=refused.file
        )
        packed = write_rows(work.lines(progress), file, output.file, COLUMNS[layout])
        if not work.rows_written:
            raise ValueError(work.nothing_written())
        if work.rejected:
            refused.publish()
        else:
            rejects.unlink(missing_ok=True)  # of the target that is replaced
        output.publish()
    return work.report(file.path, rejects if work.rejected else None, packed)


def _check_target(file: TargetFile, rejects: Path, layout: TargetLayout, force: bool) -> None:
    """Refuse what cannot be written before anything is read."""
    if layout not in TARGETS:
        raise ValueError(
            f"`convert(layout=...)` must be one of {', '.join(TARGETS)}, got {layout!r}; choose one of them."
        )
    if file.kind == "csv" and layout not in FLAT_TARGETS:
        raise ValueError(
            f"`convert(target=...)` must hold lists for the layout `{layout}`, got the CSV file {file.path.name!r}; "
            f"write .jsonl or .parquet, or choose {', '.join(FLAT_TARGETS)}."
        )
    if not file.path.parent.is_dir():
        raise FileNotFoundError(
            f"`convert(target=...)` must lie in an existing folder, got {str(file.path.parent)!r}; make it first."
        )
    for path in (file.path, rejects):
        if path.is_dir():
            raise ValueError(
                f"`convert(target=...)` must name a file, got the folder {str(path)!r}; name a file in it."
            )
        if not force and (path.exists() or path.is_symlink()):
            raise FileExistsError(
                f"`convert(target=...)` must be a new file, got {str(path)!r}, which exists; "
                "choose another name, or replace it by --force (force=True)."
            )


@dataclass
class _Conversion:
    """Items in, lines out, and what became of them."""

    config: TripletsConfig
    layout: TargetLayout
    finite: bool
    refused: BinaryIO
    rows_used: int = 0
    rows_written: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    first: Reject | Refusal | None = None

    def __post_init__(self) -> None:
        paired = self.layout in PAIR_TARGETS and not self.layout.startswith("unpaired")
        self.reader = ItemReader(self.config, paired)
        self.writer = RowWriter(self.config, self.layout, self.finite)

    @property
    def rejected(self) -> int:
        """Lines of the file of rejects."""
        return self.faults.total()

    def lines(self, progress: Progress) -> Iterator[tuple[Mapping[str, object], bytes]]:
        """Yield everything to write, and say how many rows have passed."""
        told = 0
        for item in self.reader.items():
            if isinstance(item, Item):
                for written in self._write(item):
                    yield written.row, written.line
            else:
                self._refuse(item)
            if self.reader.rows - told >= _PROGRESS_ROWS:
                told = self.reader.rows
                progress(told, told, "rows")
        progress(self.reader.rows, self.reader.rows, "rows")

    def _write(self, item: Item) -> Iterator[Written]:
        """Yield the rows of an item."""
        before = self.rows_written
        for written in self.writer.write(item):
            if isinstance(written, Refusal):
                self._refuse(written)
            else:
                self.rows_written += 1
                yield written
        if self.rows_written > before:
            self.rows_used += item.record.rows if isinstance(item.record, Preference) else 1
            self.layouts[item.record.layout] += 1

    def _refuse(self, reject: Reject | Refusal) -> None:
        """Keep a reject; a pair where the first conversation should be ends the conversion."""
        if reject.fault == TargetFault.NO_CONVERSATION and not self.rows_written:
            raise ValueError(
                f"`convert(layout={self.layout!r})` needs conversations, got a pair in row {reject.row} of "
                f"{reject.source}, and {WHY_NO_CONVERSATION}; choose one of {', '.join(PAIR_TARGETS)}."
            )
        self.first = self.first or reject
        self.faults[str(reject.fault)] += 1
        self.refused.write(json.dumps(asdict(reject), sort_keys=True, ensure_ascii=False).encode("utf-8") + b"\n")

    def nothing_written(self) -> str:
        """Say in one sentence why there is nothing to write."""
        opening = (
            f"`convert(conversations={self.config.conversations!r})` needs at least one row that it can write, got"
        )
        if self.first is None:
            return f"{opening} a file without rows; name a file with conversations or pairs."
        counts = ", ".join(f"{count} {fault}" for fault, count in self.faults.most_common())
        return (
            f"{opening} none of {self.reader.rows} ({counts}; first, row {self.first.row} of {self.first.source}: "
            f"{self.first.reason}); correct the rows or choose another layout."
        )

    def report(self, target: Path, rejects: Path | None, packed: tuple[str, ...]) -> ConvertReport:
        """Return the counts."""
        return ConvertReport(
            target=target,
            rejects=rejects,
            rows_in=self.reader.rows,
            rows_used=self.rows_used,
            rows_rejected=self.reader.rows - self.rows_used,
            rows_written=self.rows_written,
            rejected=self.rejected,
            rejected_by_reason=dict(self.faults.most_common()),
            layouts=dict(sorted(self.layouts.items())),
            packed=packed,
        )
