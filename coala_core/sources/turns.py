"""Roles, texts and the rules that a dialogue must keep, each refusal naming the turn."""

from __future__ import annotations

import json
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
        name = ascii(speaker[:40]) if isinstance(speaker, str) else f"a {type(speaker).__name__}"
        raise RowError(Fault.UNKNOWN_ROLE, f"{where} is spoken by {name}, which is no known role")
    return role


def text_of(value: object, where: str, config: TripletsConfig) -> str:
    """Check one text and return it unchanged.

    Raises
    ------
    RowError
        If it is not a string, is blank, is longer than `max_turn_characters`, or is not valid Unicode.
    """
    text = response_of(value, where, config)
    if not text or text.isspace():
        raise RowError(Fault.EMPTY, f"{where} is empty or only whitespace")
    return text


def response_of(value: object, where: str, config: TripletsConfig) -> str:
    """Check one response of a pair, which unlike other texts may be blank, and return it unchanged.

    Raises
    ------
    RowError
        If it is not a string, is longer than `max_turn_characters`, or is not valid Unicode.
    """
    if not isinstance(value, str):
        raise RowError(Fault.NOT_TEXT, f"{where} holds a {type(value).__name__}, not a string")
    if len(value) > config.max_turn_characters:
        limit = config.max_turn_characters
        raise RowError(Fault.LONG_TURN, f"{where} has {len(value)} characters, above max_turn_characters={limit}")
    if not value.isascii():
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


def parse_messages(value: object, field: str, config: TripletsConfig, blank_last: bool = False) -> tuple[Turn, ...]:
    """Read a list of messages, each ``{role, content}`` or ``{from, value}``.

    Parameters
    ----------
    value : object
        The list, or the text of its JSON.
    field : str
        Where it comes from.
    config : TripletsConfig
        Limits on turns and their lengths.
    blank_last : bool, default=False
        Whether the last message is a response, which may be blank.

    Raises
    ------
    RowError
        If it is no such list, or a role or text is refused.
    """
    items = sequence_of(value, field, config)
    turns = []
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise _no_message(number, field)
        if "role" in item and "content" in item:
            speaker, text = item["role"], item["content"]
        elif "from" in item and "value" in item:
            speaker, text = item["from"], item["value"]
        else:
            raise _no_message(number, field)
        if blank_last and number == len(items):
            where = f"turn {number} of `{field}`"
            turns.append(Turn(role_of(speaker, where), response_of(text, where, config)))
        else:
            turns.append(checked_turn(speaker, text, number, field, config))
    return tuple(turns)


def checked_turn(speaker: object, text: object, number: int, field: str, config: TripletsConfig) -> Turn:
    """Check one turn of a list.

    Raises
    ------
    RowError
        As `role_of` and `text_of`.
    """
    # Nearly every turn of a large set passes here, without the price of naming the place.
    if type(speaker) is str and type(text) is str and text.isascii() and text and not text.isspace():
        role = SPEAKERS.get(speaker)
        if role is not None and len(text) <= config.max_turn_characters:
            return Turn(role, text)
    where = f"turn {number} of `{field}`"
    return Turn(role_of(speaker, where), text_of(text, where, config))


def sequence_of(value: object, field: str, config: TripletsConfig) -> Sequence[object]:
    """Return the turns of a field as they are, checked for being a list of an allowed length.

    A string that begins with a bracket is read as JSON, since a cell of a CSV file can hold a list in no other way.

    Raises
    ------
    RowError
        If the field is not a list, is empty, or holds more than `max_turns`.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parse_cell(value, field)
    if not isinstance(value, list):
        raise RowError(Fault.UNKNOWN_LAYOUT, f"`{field}` is a {type(value).__name__}, not a list")
    if not value:
        raise RowError(Fault.EMPTY, f"`{field}` holds no turns")
    if len(value) > config.max_turns:
        raise RowError(Fault.MANY_TURNS, f"`{field}` holds {len(value)} turns, above max_turns={config.max_turns}")
    return value


def _parse_cell(value: str, field: str) -> object:
    """Read the JSON in a cell."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise RowError(Fault.NOT_JSON, f"`{field}` is a text that begins like a JSON list: {reason}") from error


def _no_message(number: int, field: str) -> RowError:
    """Say what a message must be."""
    reason = f"turn {number} of `{field}` is neither {{role, content}} nor {{from, value}}"
    return RowError(Fault.UNKNOWN_LAYOUT, reason)


def check_prompt(turns: Sequence[Turn]) -> None:
    """Refuse turns that are no dialogue with a student.

    Raises
    ------
    RowError
        If a system turn is not first, two neighbours share a role, or the student never speaks.
    """
    previous = None
    student = False
    for number, (role, _) in enumerate(turns, start=1):
        if role == "system" and previous is not None:
            raise RowError(Fault.SYSTEM_NOT_FIRST, f"turn {number} is a system turn, which may only come first")
        if role == previous:
            raise RowError(Fault.NOT_ALTERNATING, f"turns {number - 1} and {number} are both of role {role!r}")
        student = student or role == "user"
        previous = role
    if not student:
        raise RowError(Fault.NO_STUDENT, "no turn is the student's")


def check_dialogue(turns: Sequence[Turn]) -> None:
    """Refuse a conversation from which no pair could be made.

    Raises
    ------
    RowError
        As `check_prompt`, and if fewer than two tutor replies follow student turns.
    """
    check_prompt(turns)
    # Roles alternate now, so a tutor turn answers the student unless it opens the dialogue.
    opening = next(at for at, turn in enumerate(turns) if turn.role == "user")
    replies = (len(turns) - opening) // 2
    if replies < 2:
        raise RowError(Fault.FEW_REPLIES, f"a pair needs two tutor replies to student turns, the row has {replies}")
