"""What a source file turns into: rows, conversations, ready pairs, and rejects that say why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant"]

EXCERPT_CHARACTERS = 200
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


class Fault(StrEnum):
    """Why a row, or one pair of a row, is not used; the keys of ``rejected_by_reason``."""

    LONG_LINE = "line too long"
    NOT_UTF8 = "not UTF-8"
    NOT_JSON = "not JSON"
    NOT_OBJECT = "not an object"
    UNKNOWN_LAYOUT = "unknown layout"
    UNKNOWN_ROLE = "unknown role"
    NOT_TEXT = "text is not a string"
    EMPTY = "empty"
    LONE_SURROGATE = "lone surrogate"
    LONG_TURN = "turn too long"
    MANY_TURNS = "too many turns"
    SYSTEM_NOT_FIRST = "system turn not first"
    NOT_ALTERNATING = "not alternating"
    NO_STUDENT = "no student turn"
    FEW_REPLIES = "fewer than two replies"
    NO_SHARED_PROMPT = "no shared prompt"
    NOT_ONE_RESPONSE = "not one tutor response"
    EQUAL_RESPONSES = "chosen equals rejected"
    NO_GROUP = "group field missing"
    DUPLICATE_ID = "duplicate id"
    EQUAL_REPLIES = "identical replies"
    NEAR_DUPLICATE = "near-duplicate replies"
    MISSING_FIELD = "field missing"
    BAD_LABEL = "unusable label"
    BAD_SCORE = "unusable score"
    TIED_SCORES = "tied scores"
    NO_PARTNER = "no partner"
    MIXED_LAYOUTS = "mixed layouts"


class RowError(ValueError):
    """A row that cannot be used; becomes a `Reject`, never reaches the caller of a stage.

    Parameters
    ----------
    fault : Fault
        The kind of fault, which the report counts.
    detail : str
        The fault in this row, in words.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


class Turn(NamedTuple):
    """One turn: a role (``user`` is the student, ``assistant`` the tutor) and its text, verbatim."""

    role: Role
    text: str


@dataclass(frozen=True)
class Row:
    """One JSON object of a file, with its 1-based line (JSON lines) or item (JSON, Parquet) number."""

    number: int
    content: Mapping[str, object]
    source: str = ""


@dataclass(frozen=True)
class Conversation:
    """A checked dialogue: turns alternate, at least two tutor replies follow student turns.

    Attributes
    ----------
    conversation_id : str
        From the row, or a digest of the turns.
    group : str
        What the split keeps together.
    turns : tuple of Turn
        An optional system turn first, then student and tutor in alternation, either starting.
    fields : mapping
        The row's other scalar fields.
    row : int
        1-based row number in the file.
    layout : str
        Name of the layout the row was read in.
    source : str
        Name of the file.
    """

    conversation_id: str
    group: str
    turns: tuple[Turn, ...]
    fields: Mapping[str, object]
    row: int
    layout: str
    source: str = ""

    @property
    def key(self) -> str:
        """What must be unique in a file: the conversation."""
        return self.conversation_id


@dataclass(frozen=True)
class Preference:
    """A ready pair: a checked prompt that ends with the student, and two different tutor responses.

    Attributes
    ----------
    pair_id : str
        From the row, or the conversation's id with ``#1``.
    prompt : tuple of Turn
        Checked like the turns of a `Conversation`.
    chosen, rejected : str
        The two responses, verbatim; one of them may be blank, not both.
    conversation_id, group, fields, row, layout, source
        As in `Conversation`; without an id of the row's own, the conversation is a digest of the prompt.
    rows : int
        Rows of the input that the pair accounts for: 1, or for a pair made of several rows (see
        `coala_core.sources.pairing`) those that no earlier pair has accounted for.
    """

    conversation_id: str
    group: str
    pair_id: str
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    fields: Mapping[str, object]
    row: int
    layout: str
    source: str = ""
    rows: int = 1

    @property
    def key(self) -> str:
        """What must be unique: the conversation where it has one pair, else the pair."""
        alone = self.pair_id == f"{self.conversation_id}#1"
        return self.conversation_id if alone else self.pair_id


@dataclass(frozen=True)
class RatedResponse:
    """One response with a label or a score, which makes a pair together with another row.

    Attributes
    ----------
    conversation_id : str or None
        Digest of the prompt, or None where all rows of the layout share one prompt.
    group : str or None
        Value of the field to group by, or None where that is the conversation.
    prompt : tuple of Turn
        Checked like the turns of a `Conversation`.
    response : str
        Verbatim.
    worth : float
        The score; of a label, 1 for good and 0 for bad.
    pairing : {"label", "score"}
        What pairs are made by.
    row_id : str or None
        The row's own id.
    fields : mapping
        The row's other scalar fields.
    layout : str
        Name of the layout.
    origin : Row
        The row itself, for the reject that it may become.
    """

    conversation_id: str | None
    group: str | None
    prompt: tuple[Turn, ...]
    response: str
    worth: float
    pairing: Literal["label", "score"]
    row_id: str | None
    fields: Mapping[str, object]
    layout: str
    origin: Row

    @property
    def key(self) -> str | None:
        """What must be unique: the row, where it has an id; the two rows of a labelled pair may share theirs."""
        labelled = self.row_id is not None and self.pairing == "label"
        return f"{self.row_id}#{self.worth:g}" if labelled else self.row_id

    @property
    def row(self) -> int:
        """1-based row number in the file."""
        return self.origin.number

    @property
    def source(self) -> str:
        """Name of the file."""
        return self.origin.source


@dataclass(frozen=True)
class Reject:
    """A row, or one pair of a row, that was not used.

    Attributes
    ----------
    source : str
        Name of the file.
    row : int
        1-based row number.
    fault : Fault
        The kind of fault.
    reason : str
        The fault in this row, in words.
    excerpt : str
        The start of the row, at most 200 characters, always valid Unicode.
    pair_only : bool
        Whether one pair was refused and the row was otherwise used.
    """

    source: str
    row: int
    fault: Fault
    reason: str
    excerpt: str
    pair_only: bool = False


def reject_row(row: Row, error: RowError) -> Reject:
    """Turn a row that cannot be used into its reject.

    Parameters
    ----------
    row : Row
        The row as it was read.
    error : RowError
        What is wrong with it.
    """
    return Reject(row.source, row.number, error.fault, str(error), excerpt_of(row.content))


def excerpt_of(content: object) -> str:
    """Return the start of a row as printable text, at most 200 characters.

    Parameters
    ----------
    content : object
        Raw bytes of a line, or a parsed row.
    """
    if isinstance(content, bytes):
        text = content[: 4 * EXCERPT_CHARACTERS].decode("utf-8", errors="replace")
    else:
        text = _start_of_json(content)
    return text.encode("utf-8", errors="replace").decode("utf-8")[:EXCERPT_CHARACTERS]


def _start_of_json(content: object) -> str:
    """Write no more of a value than an excerpt shows, so that neither its size nor its depth matters."""
    pieces: list[str] = []
    length = 0
    for piece in _ENCODER.iterencode(content):
        pieces.append(piece)
        length += len(piece)
        if length >= EXCERPT_CHARACTERS:
            break
    return "".join(pieces)
