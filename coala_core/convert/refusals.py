"""Why a record that could be read cannot be written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coala_core.sources import Fault, Row
from coala_core.sources.records import excerpt_of


class TargetFault(StrEnum):
    """Faults of writing, beside the `Fault`s of reading."""

    NOT_EXPRESSIBLE = "not expressible in the target layout"
    NO_CONVERSATION = "a pair is no conversation"


class Inexpressible(ValueError):
    """A record that a target cannot hold; the message says why and what to do.

    Parameters
    ----------
    reason : str
        The reason, in words.
    fault : Fault or TargetFault
        The kind of fault, which the report counts.
    """

    def __init__(self, reason: str, fault: Fault | TargetFault = TargetFault.NOT_EXPRESSIBLE) -> None:
        super().__init__(reason)
        self.fault = fault


@dataclass(frozen=True)
class Refusal:
    """A row, or one pair of a row, that was not written; the fields are those of `Reject`.

    Attributes
    ----------
    source : str
        Name of the file.
    row : int
        1-based row number.
    fault : Fault or TargetFault
        The kind of fault.
    reason : str
        The fault in this row, in words.
    excerpt : str
        The start of the row or of the chosen response, at most 200 characters.
    pair_only : bool
        Whether one pair was refused and the row was otherwise used.
    """

    source: str
    row: int
    fault: Fault | TargetFault
    reason: str
    excerpt: str
    pair_only: bool = False


def refuse_row(row: Row, error: Inexpressible) -> Refusal:
    """Refuse a whole row."""
    return Refusal(row.source, row.number, error.fault, str(error), excerpt_of(row.content))


def refuse_pair(row: Row, error: Inexpressible, chosen: str) -> Refusal:
    """Refuse one pair of a row."""
    return Refusal(row.source, row.number, error.fault, str(error), excerpt_of(chosen.encode("utf-8")), pair_only=True)
