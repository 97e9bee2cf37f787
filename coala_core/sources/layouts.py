"""Recognise the layout of one row and turn it into a checked conversation or ready pair.

=====================  ==========================================================================
EduFeedback            ``utterances: [[agent1 | agent2, text], ...]``; agent1 is the tutor
TRL, ChatML            ``messages: [{role, content}, ...]``
ShareGPT               ``conversations: [{from, value}, ...]``
plain history          ``history: [text, ...]``, the student first
preference, explicit   ``prompt``, ``chosen``, ``rejected``, as strings or as messages
preference, implicit   ``chosen``, ``rejected`` that begin with the same prompt
=====================  ==========================================================================

A row with both ``chosen`` and ``rejected`` is a preference whatever else it holds; otherwise the first
layout of the table whose field is there decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

from coala_core.config import TripletsConfig
from coala_core.sources.preferences import parse_preference
from coala_core.sources.records import Conversation, Fault, Preference, Row, RowError, Turn
from coala_core.sources.turns import check_dialogue, check_unicode, parse_messages, role_of, sequence_of, text_of

ID_FIELDS = ("conversation_id", "id", "uid", "prompt_id")
"""Fields that may name a row, the first one present wins."""

_PREFERENCE_FIELDS = frozenset({"prompt", "chosen", "rejected"})
_DIGEST_CHARACTERS = 24


def parse_row(row: Row, config: TripletsConfig) -> Conversation | Preference:
    """Read one row in whichever layout it has.

    Parameters
    ----------
    row : Row
        A numbered JSON object.
    config : TripletsConfig
        Limits, and the field to group by.

    Returns
    -------
    Conversation or Preference
        With its id (from `ID_FIELDS`, else 24 hexadecimal digits of a SHA-256 of the content) and group.

    Raises
    ------
    RowError
        If the row has no known layout, breaks a rule of its layout, or lacks the field to group by.
    """
    content = row.content
    if "chosen" in content and "rejected" in content:
        return _preference(row, config)
    for field, (layout, parse) in DIALOGUE_LAYOUTS.items():
        if content.get(field) is not None:
            turns = parse(content[field], field, config)
            check_dialogue(turns)
            fields = _scalar_fields(content, frozenset({field}))
            conversation_id = _find_id(fields, turns)
            group = _find_group(fields, conversation_id, config.group_by)
            return Conversation(conversation_id, group, turns, fields, row.number, layout)
    found = ", ".join(f"`{key[:40]}`" for key in list(map(str, content))[:8]) or "none"
    raise RowError(Fault.UNKNOWN_LAYOUT, f"the fields fit no known layout: {found.encode('utf-8', 'replace').decode()}")


def _preference(row: Row, config: TripletsConfig) -> Preference:
    """Read a ready pair with its ids and group."""
    layout, prompt, chosen, rejected = parse_preference(row.content, config)
    fields = _scalar_fields(row.content, _PREFERENCE_FIELDS)
    conversation_id = _find_id(fields, (*prompt, Turn("assistant", chosen), Turn("assistant", rejected)))
    pair_id = _scalar_text(fields, "pair_id") or f"{conversation_id}#1"
    group = _find_group(fields, conversation_id, config.group_by)
    return Preference(conversation_id, group, pair_id, prompt, chosen, rejected, fields, row.number, layout)


def _utterances(value: object, field: str, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read EduFeedback's [speaker, text] pairs."""
    turns = []
    for number, item in enumerate(sequence_of(value, field, config), start=1):
        where = f"turn {number} of `{field}`"
        if not isinstance(item, list) or len(item) != 2:
            raise RowError(Fault.UNKNOWN_LAYOUT, f"{where} is not a [speaker, text] pair")
        turns.append(Turn(role_of(item[0], where), text_of(item[1], where, config)))
    return tuple(turns)


def _history(value: object, field: str, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read a plain list of texts in which the student begins."""
    texts = sequence_of(value, field, config)
    return tuple(
        Turn("assistant" if at % 2 else "user", text_of(text, f"turn {at + 1} of `{field}`", config))
        for at, text in enumerate(texts)
    )


DIALOGUE_LAYOUTS: Mapping[str, tuple[str, Callable[[object, str, TripletsConfig], tuple[Turn, ...]]]] = {
    "utterances": ("EduFeedback", _utterances),
    "messages": ("messages", parse_messages),
    "conversations": ("ShareGPT", parse_messages),
    "history": ("history", _history),
}
"""Field that gives a dialogue away, with the name of its layout and its reader."""

LAYOUT_FIELDS = _PREFERENCE_FIELDS | DIALOGUE_LAYOUTS.keys()
"""Every field that belongs to a layout."""


def _scalar_fields(content: Mapping[str, object], used: frozenset[str]) -> dict[str, object]:
    """Keep what is neither part of the dialogue nor a container."""
    return {
        key: value
        for key, value in content.items()
        if key not in used and value is not None and not isinstance(value, list | tuple | dict | bytes)
    }


def _scalar_text(fields: Mapping[str, object], name: str) -> str | None:
    """Return a field as text, or None where it is absent, blank or not a number."""
    value = fields.get(name)
    if value is None or (isinstance(value, float) and value != value):
        return None
    text = str(value)
    check_unicode(text, f"`{name}`")
    return text if text.strip() else None


def _find_id(fields: Mapping[str, object], turns: tuple[Turn, ...]) -> str:
    """Return the row's own id, or a digest of its content."""
    given = (_scalar_text(fields, name) for name in ID_FIELDS)
    return next((text for text in given if text is not None), None) or _digest(turns)


def _digest(turns: tuple[Turn, ...]) -> str:
    """Digest roles and texts."""
    encoded = json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]


def _find_group(fields: Mapping[str, object], conversation_id: str, group_by: str) -> str:
    """Return what the split keeps together."""
    if group_by == "conversation_id":
        return conversation_id
    group = _scalar_text(fields, group_by)
    if group is None:
        raise RowError(Fault.NO_GROUP, f"the row has no value in the field {group_by!r} to group by")
    return group
