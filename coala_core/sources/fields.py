"""What a row says about itself beside its texts: columns renamed, ids, the group, other fields."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import orjson

from coala_core.config.data import ColumnField
from coala_core.sources.records import Fault, RowError, Turn
from coala_core.sources.turns import check_unicode

ID_FIELDS = ("conversation_id", "id", "uid", "prompt_id")
"""Fields that may name a conversation, the first one present wins."""

ROW_ID_FIELDS = ("id", "uid")
"""Fields that may name a row of which several make one pair."""

_CONTAINERS = (list, tuple, dict, bytes)
_CONVERSATION_DIGITS = 24
_PAIR_DIGITS = 12


def rename_columns(content: Mapping[str, object], columns: Mapping[ColumnField, str]) -> Mapping[str, object]:
    """Give the fields of a row the names that layouts know.

    Parameters
    ----------
    content : mapping
        The row.
    columns : mapping of field to str
        Name in the file of each field; two fields may swap names.

    Raises
    ------
    RowError
        If the row lacks one of the columns.
    """
    for field, column in columns.items():
        if column not in content:
            reason = f"the row has no column {_shown(column)} for the field `{field}`, only {list_fields(content)}"
            raise RowError(Fault.MISSING_FIELD, reason)
    taken = set(columns.values())
    others = {name: value for name, value in content.items() if name not in taken}
    others.update((field, content[column]) for field, column in columns.items())
    return others


def list_fields(names: Iterable[str]) -> str:
    """Write the first eight names of fields, safe to print."""
    shown = [_shown(name) for name in names]
    return ", ".join(shown[:8]) + (" and others" if len(shown) > 8 else "") if shown else "none"


def scalar_fields(content: Mapping[str, object], used: frozenset[str]) -> dict[str, object]:
    """Keep what is neither part of the dialogue nor a container."""
    return {
        name: value
        for name, value in content.items()
        if value is not None and name not in used and not isinstance(value, _CONTAINERS)
    }


def scalar_text(fields: Mapping[str, object], name: str) -> str | None:
    """Return a field as text, or None where it is absent, blank or not a number.

    Raises
    ------
    RowError
        If it is not valid Unicode.
    """
    value = fields.get(name)
    if value is None or (isinstance(value, float) and value != value):
        return None
    text = value if isinstance(value, str) else str(value)
    if not text.isascii():
        check_unicode(text, f"`{name}`")
    return text if text.strip() else None


def find_conversation_id(fields: Mapping[str, object], turns: Sequence[Turn]) -> str:
    """Return the conversation's own id, or a digest of its turns."""
    return first_text(fields, ID_FIELDS) or digest_turns(turns)


def find_pair_ids(fields: Mapping[str, object], prompt: Sequence[Turn], texts: tuple[str, ...]) -> tuple[str, str]:
    """Name a ready pair and the conversation that it belongs to.

    A row's own id names its conversation, and the pair is the first of it. A ``prompt_id`` names the prompt only,
    and so does the digest that stands in where there is no id: pairs of one prompt then share their conversation,
    which the split keeps together, and a digest of `texts`, the responses, names the pair.

    Returns
    -------
    tuple of str
        Ids of conversation and pair.
    """
    conversation_id = first_text(fields, ID_FIELDS[:-1])
    if conversation_id is not None:
        return conversation_id, scalar_text(fields, "pair_id") or f"{conversation_id}#1"
    conversation_id = scalar_text(fields, ID_FIELDS[-1]) or digest_turns(prompt)
    return conversation_id, scalar_text(fields, "pair_id") or f"{conversation_id}#{digest_texts(*texts)}"


def find_group(fields: Mapping[str, object], conversation_id: str, group_by: str) -> str:
    """Return what the split keeps together.

    Raises
    ------
    RowError
        If the row lacks the field to group by.
    """
    if group_by == "conversation_id":
        return conversation_id
    group = scalar_text(fields, group_by)
    if group is None:
        raise RowError(Fault.NO_GROUP, f"the row has no value in the field {group_by!r} to group by")
    return group


def first_text(fields: Mapping[str, object], names: Sequence[str]) -> str | None:
    """Return the first of several fields that holds something, as text."""
    return next((text for name in names if (text := scalar_text(fields, name)) is not None), None)


def digest_turns(turns: Sequence[Turn]) -> str:
    """Name turns by 24 hexadecimal digits of a SHA-256 of roles and texts."""
    return hashlib.sha256(orjson.dumps([list(turn) for turn in turns])).hexdigest()[:_CONVERSATION_DIGITS]


def digest_texts(*texts: str) -> str:
    """Name texts, within a conversation, by 12 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(orjson.dumps(texts)).hexdigest()[:_PAIR_DIGITS]


def _shown(name: str) -> str:
    """Quote a field's name, short and valid Unicode."""
    return f"`{name[:40].encode('utf-8', 'replace').decode()}`"
