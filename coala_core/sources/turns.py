"""Roles, texts and the rules that a dialogue must keep, each refusal naming the turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coala_core.config import TripletsConfig
from coala_core.sources.records import Fault, Role, RowError, Turn

SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "student": "user",
    "human": "user",
    "agent2": "user",
    "assistant": "assistant",
    "tutor": "assistant",
    "teacher": "assistant",
    "gpt": "assistant",
    "agent1": "assistant",
}
"""Every speaker that a layout may name; agent1 and agent2 are EduFeedback's tutor and student."""


def role_of(speaker: object, where: str) -> Role:
    """Map a speaker's name to a role.

    Raises
    ------
    RowError
        If the name is not one of `SPEAKERS`.
    """
    role = SPEAKERS.get(speaker.strip().casefold()) if isinstance(speaker, str) else None
    if role is None:
        raise RowError(Fault.UNKNOWN_ROLE, f"{where} is spoken by {str(speaker)[:40]!a}, which is no known role")
    return role


def text_of(value: object, where: str, config: TripletsConfig) -> str:
    """Check one text and return it unchanged.

    Raises
    ------
    RowError
        If it is not a string, is blank, is longer than `max_turn_characters`, or is not valid Unicode.
    """
    if not isinstance(value, str):
        raise RowError(Fault.NOT_TEXT, f"{where} holds a {type(value).__name__}, not a string")
    if not value.strip():
        raise RowError(Fault.EMPTY, f"{where} is empty or only whitespace")
    if len(value) > config.max_turn_characters:
        limit = config.max_turn_characters
        raise RowError(Fault.LONG_TURN, f"{where} has {len(value)} characters, above max_turn_characters={limit}")
    check_unicode(value, where)
    return value


def check_unicode(value: str, where: str) -> None:
    """Refuse half of a surrogate pair, which no file could store as UTF-8.

    Raises
    ------
    RowError
        If `value` holds one.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        detail = f"{where} holds a lone surrogate at character {error.start + 1}"
        raise RowError(Fault.LONE_SURROGATE, detail) from error


def parse_messages(value: object, field: str, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read a list of messages, each ``{role, content}`` or ``{from, value}``.

    Raises
    ------
    RowError
        If it is no such list, or a role or text is refused.
    """
    turns = []
    for number, item in enumerate(sequence_of(value, field, config), start=1):
        where = f"turn {number} of `{field}`"
        keys = next((pair for pair in (("role", "content"), ("from", "value")) if _has_keys(item, pair)), None)
        if keys is None or not isinstance(item, Mapping):
            raise RowError(Fault.UNKNOWN_LAYOUT, f"{where} is neither {{role, content}} nor {{from, value}}")
        turns.append(Turn(role_of(item[keys[0]], where), text_of(item[keys[1]], where, config)))
    return tuple(turns)


def sequence_of(value: object, field: str, config: TripletsConfig) -> Sequence[object]:
    """Return the turns of a field as they are, checked for being a list of an allowed length.

    Raises
    ------
    RowError
        If the field is not a list, is empty, or holds more than `max_turns`.
    """
    if not isinstance(value, list):
        raise RowError(Fault.UNKNOWN_LAYOUT, f"`{field}` is a {type(value).__name__}, not a list")
    if not value:
        raise RowError(Fault.EMPTY, f"`{field}` holds no turns")
    if len(value) > config.max_turns:
        raise RowError(Fault.MANY_TURNS, f"`{field}` holds {len(value)} turns, above max_turns={config.max_turns}")
    return value


def check_prompt(turns: Sequence[Turn]) -> None:
    """Refuse turns that are no dialogue with a student.

    Raises
    ------
    RowError
        If a system turn is not first, two neighbours share a role, or the student never speaks.
    """
    for number, turn in enumerate(turns[1:], start=2):
        if turn.role == "system":
            raise RowError(Fault.SYSTEM_NOT_FIRST, f"turn {number} is a system turn, which may only come first")
        if turn.role == turns[number - 2].role:
            raise RowError(Fault.NOT_ALTERNATING, f"turns {number - 1} and {number} are both of role {turn.role!r}")
    if all(turn.role != "user" for turn in turns):
        raise RowError(Fault.NO_STUDENT, "no turn is the student's")


def check_dialogue(turns: Sequence[Turn]) -> None:
    """Refuse a conversation from which no pair could be made.

    Raises
    ------
    RowError
        As `check_prompt`, and if fewer than two tutor replies follow student turns.
    """
    check_prompt(turns)
    replies = sum(turn.role == "assistant" and turns[at].role == "user" for at, turn in enumerate(turns[1:]))
    if replies < 2:
        raise RowError(Fault.FEW_REPLIES, f"a pair needs two tutor replies to student turns, the row has {replies}")


def _has_keys(item: object, keys: tuple[str, str]) -> bool:
    """Tell whether an item is a mapping with both keys."""
    return isinstance(item, Mapping) and all(key in item for key in keys)
