"""From a record to the rows of a target layout, each read back before it counts as written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from coala_core.config import TripletsConfig
from coala_core.convert.items import CHOSEN_FIELDS, REJECTED_FIELDS, Item, same
from coala_core.convert.layouts import (
    BARE_TARGETS,
    COLUMNS,
    DIALOGUE_TARGETS,
    TURN_FIELDS,
    DialogueLayout,
    Extras,
    Fields,
    PairLayout,
    TargetLayout,
    write_dialogue,
    write_pair,
    write_response,
)
from coala_core.convert.refusals import Inexpressible, Refusal, TargetFault, refuse_pair, refuse_row
from coala_core.sources import Conversation, Fault, Preference, Row, RowError, parse_row
from coala_core.sources.layouts import Record
from coala_core.sources.records import RatedResponse
from coala_core.triplets import Triplet, alternating_triplets, reply_similarity

CONVERSATION_TURN_FIELDS = "conversation_turn_fields"
"""Field in which a pair carries what the messages of its whole conversation hold beside speaker and text."""

OWN = "row_"
"""Prefix of a conversation's field whose name its pairs need for something else."""

WHY_NO_CONVERSATION = "a pair tells two replies to a prompt, not with which of them a conversation went on"
"""Why pairs cannot become dialogues."""

_OWN_IDS = ("Bridge", "HelpSteer", "IMDb")
"""Layouts whose ids are not read from fields alone."""


@dataclass(frozen=True)
class Written:
    """One row of the output.

    Attributes
    ----------
    row : mapping
        Its fields.
    line : bytes
        The same as JSON in UTF-8.
    """

    row: Mapping[str, object]
    line: bytes


class RowWriter:
    """Writes records as rows of a layout.

    Parameters
    ----------
    config : TripletsConfig
        Which replies of a conversation make pairs, which pairs are left out, and the limits of reading.
    layout : str
        One of `TARGETS`.
    finite : bool
        Whether the format holds finite numbers only, as JSON does.
    """

    def __init__(self, config: TripletsConfig, layout: TargetLayout, finite: bool) -> None:
        self._config = config
        self._layout = layout
        self._finite = finite
        self._limits = TripletsConfig(max_turns=config.max_turns, max_turn_characters=config.max_turn_characters)

    def write(self, item: Item) -> Iterator[Written | Refusal]:
        """Yield the rows of an item, or why there are none; of a conversation that becomes pairs, by pair."""
        record = item.record
        try:
            if self._layout in DIALOGUE_TARGETS:
                yield self._dialogue(item)
            elif isinstance(record, Conversation):
                yield from self._pairs_of(item, record)
            elif isinstance(record, Preference):
                self._check_replies(record.chosen, record.rejected)
                yield from self._pair(record, _ids_of(record) | item.fields, item.extras)
            else:
                yield self._response(item, record)
        except Inexpressible as error:
            yield refuse_row(item.row, error)

    def _dialogue(self, item: Item) -> Written:
        """Write a conversation."""
        record = item.record
        if not isinstance(record, Conversation):
            reason = f"the row is of the layout {record.layout}, and {WHY_NO_CONVERSATION}"
            raise Inexpressible(reason, TargetFault.NO_CONVERSATION)
        row = self._join(item.fields, write_dialogue(record.turns, item.extras, cast(DialogueLayout, self._layout)))
        self._confirm(row, (record.conversation_id, record.turns))
        return self._encode(row)

    def _response(self, item: Item, record: RatedResponse) -> Written:
        """Write a labelled response."""
        row = write_response(
            record.prompt, record.response, record.worth == 1, item.extras, cast(PairLayout, self._layout)
        )
        row = self._join(item.fields, row)
        self._confirm(row, (record.prompt, record.response, record.worth))
        return self._encode(row)

    def _pairs_of(self, item: Item, record: Conversation) -> Iterator[Written | Refusal]:
        """Write the pairs of a conversation, by alternating population."""
        config = self._config
        fields = dict(item.fields)
        if item.extras:
            fields[CONVERSATION_TURN_FIELDS] = [dict(extra) for extra in item.extras]
        for triplet in alternating_triplets(record, config.history, config.pairs, config.window):
            try:
                self._check_replies(triplet.chosen, triplet.rejected)
                yield from self._pair(triplet, _named(triplet, fields, self._layout), ())
            except Inexpressible as error:
                yield refuse_pair(item.row, error, triplet.chosen)

    def _check_replies(self, chosen: str, rejected: str) -> None:
        """Refuse a pair that the configuration leaves out."""
        identical = chosen.strip() == rejected.strip()
        if identical and self._config.identical_pairs == "reject":
            raise Inexpressible("both replies are the same text", Fault.EQUAL_REPLIES)
        limit = self._config.near_duplicates
        if limit is not None and (similarity := reply_similarity(chosen, rejected)) >= limit:
            reason = f"the replies have similarity {similarity:.3f}, near_duplicates={limit} or above"
            raise Inexpressible(reason, Fault.NEAR_DUPLICATE)

    def _pair(self, pair: Preference | Triplet, fields: Fields, extras: Extras) -> list[Written]:
        """Write a pair as the one or two rows of the layout, all of them or none."""
        laid_out = write_pair(pair.prompt, pair.chosen, pair.rejected, extras, cast(PairLayout, self._layout))
        beside = [fields] if len(laid_out) == 1 else _each_row(fields)
        rows = [self._join(own, row) for own, row in zip(beside, laid_out, strict=True)]
        if len(rows) == 1:
            self._confirm(rows[0], (pair.prompt, pair.chosen, pair.rejected))
        else:
            for row, response, worth in zip(rows, (pair.chosen, pair.rejected), (1.0, 0.0), strict=True):
                self._confirm(row, (pair.prompt, response, worth))
        return [self._encode(row) for row in rows]

    def _join(self, fields: Fields, laid_out: Fields) -> Fields:
        """Put the row's other fields beside those of the layout; null ones of the same name make room."""
        bare = (TURN_FIELDS,) if self._layout in BARE_TARGETS else ()
        for name in (*COLUMNS[self._layout], *bare):
            if fields.get(name) is not None:
                raise Inexpressible(f"its own field `{name}` has the name of one that the layout needs; rename it")
        return fields | laid_out

    def _confirm(self, row: Fields, expected: tuple[object, ...]) -> None:
        """Refuse a row that, read again, would say something else."""
        try:
            record = parse_row(Row(1, row), self._limits)
        except RowError as error:
            raise Inexpressible(f"as `{self._layout}` it could not be read again: {error}") from error
        if said_by(record) != expected:
            raise Inexpressible(
                f"as `{self._layout}` it would be read as {record.layout} with other texts, roles or ids; "
                "choose another layout"
            )

    def _encode(self, row: Fields) -> Written:
        """Write a row as JSON."""
        try:
            return Written(
                row, json.dumps(row, ensure_ascii=False, allow_nan=not self._finite, default=_refuse).encode()
            )
        except UnicodeEncodeError as error:
            raise Inexpressible("one of its fields holds a lone surrogate, which no file can hold as UTF-8") from error
        except ValueError as error:
            if isinstance(error, Inexpressible):
                raise
            raise Inexpressible("one of its fields holds a number that is not finite; write null instead") from error


def said_by(record: Record) -> tuple[object, ...]:
    """Return what a record says: id and turns, or prompt and responses with their worth."""
    if isinstance(record, Conversation):
        return record.conversation_id, record.turns
    if isinstance(record, Preference):
        return record.prompt, record.chosen, record.rejected
    return record.prompt, record.response, record.worth


def _ids_of(pair: Preference) -> Fields:
    """Return the ids of a pair that its row's fields do not tell."""
    if pair.layout not in _OWN_IDS:
        return {}
    return {"conversation_id": pair.conversation_id, "pair_id": pair.pair_id}


def _named(triplet: Triplet, fields: Fields, layout: TargetLayout) -> Fields:
    """Put ids, group and turn beside the fields of the conversation, which make room."""
    ours: Fields = {name: getattr(triplet, name) for name in ("conversation_id", "pair_id", "group", "turn")}
    theirs = dict(fields)
    for name in {"prompt": None, **dict.fromkeys((*COLUMNS[layout], TURN_FIELDS)), **ours}:
        if name in theirs and not (name in ours and str(theirs[name]) == str(ours[name])):
            if OWN + name in theirs:
                raise Inexpressible(f"its own field `{name}` would be overwritten; rename it")
            theirs[OWN + name] = theirs.pop(name)
    return ours | theirs


def _each_row(fields: Fields) -> list[Fields]:
    """Give the rows of a pair back in which they differ, if they were brought together here."""
    shared = {name: value for name, value in fields.items() if name not in (CHOSEN_FIELDS, REJECTED_FIELDS)}
    parts = [fields[name] for name in (CHOSEN_FIELDS, REJECTED_FIELDS) if name in fields]
    if not all(isinstance(part, dict) and part and not part.keys() & shared.keys() for part in parts):
        return [fields, fields]
    ours, theirs = (cast(Fields, fields.get(name, {})) for name in (CHOSEN_FIELDS, REJECTED_FIELDS))
    if any(name in theirs and same(ours[name], theirs[name]) for name in ours):
        return [fields, fields]
    return [shared | ours, shared | theirs]


def _refuse(value: object) -> object:
    """Refuse what JSON has no form for."""
    raise Inexpressible(f"one of its fields holds a {type(value).__name__}, which JSON cannot hold; write it as text")
