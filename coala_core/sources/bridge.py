"""Bridge: what a novice tutor answered in a session of mathematics, and what an expert would have said instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from coala_core.config import TripletsConfig
from coala_core.sources.fields import find_group, scalar_fields, scalar_text
from coala_core.sources.preferences import check_pair
from coala_core.sources.records import Fault, Preference, Row, RowError, Turn
from coala_core.sources.turns import response_of, role_of, sequence_of, text_of

LAYOUT = "Bridge"

TOPIC = "Lesson topic: "
"""What the system turn says before the topic, so that the tutoring itself stays word for word."""

NO_TEXT = "(no text)"
"""Stands for a turn of which no message has text: a speaker sent something, and what it was is not in the data."""


def read_bridge(row: Row, config: TripletsConfig) -> Preference:
    r"""Read a context of tutoring (``c_h``), the novice's reply (``c_r``) and the expert's rewrite (``c_r_``).

    The prompt is a system turn with the lesson's topic and then the context, in which messages that one speaker sent
    in a row are one turn, joined by a line feed; the messages of a reply are joined by a space. Messages without
    text are left out, and a turn of nothing else is `NO_TEXT`. The conversation is the session, the part of ``c_id``
    before ``_``, since contexts of one session overlap. A context can have several rewrites, even the same one
    twice, so the place in the files names the pair: ``{c_id}#{file}:{row}``.

    Parameters
    ----------
    row : Row
        With the fields ``c_id``, ``c_h``, ``c_r`` and ``c_r_``, and perhaps ``lesson_topic``.
    config : TripletsConfig
        Limits, and the field to group by.

    Raises
    ------
    RowError
        If a message is refused, a reply is empty or not the tutor's, or the context does not end with the student.
    """
    content = row.content
    fields = scalar_fields(content, frozenset())
    context = _merge(_messages(content["c_h"], "c_h", config))
    prompt = tuple(Turn(role, text_of(text, "`c_h`", config)) for role, text in [*_topic(fields), *context])
    chosen, rejected = (_reply(content[field], field, config) for field in ("c_r_", "c_r"))
    check_pair(prompt, chosen, rejected, config)
    context_id = scalar_text(fields, "c_id")
    if context_id is None:
        raise RowError(Fault.MISSING_FIELD, "`c_id` holds no text that names the context")
    session = context_id.partition("_")[0] or context_id
    pair_id = f"{context_id}#{row.source.rpartition('/')[2]}:{row.number}"
    group = find_group(fields, session, config.group_by)
    return Preference(session, group, pair_id, prompt, chosen, rejected, fields, row.number, LAYOUT, row.source)


def _topic(fields: Mapping[str, object]) -> Iterator[Turn]:
    """Yield the system turn, where the lesson has a topic."""
    topic = scalar_text(fields, "lesson_topic")
    if topic is not None:
        yield Turn("system", TOPIC + topic)


def _messages(value: object, field: str, config: TripletsConfig) -> Iterator[Turn]:
    """Yield the messages, each ``{user, text}``."""
    for number, item in enumerate(sequence_of(value, field, config), start=1):
        where = f"message {number} of `{field}`"
        if not isinstance(item, dict) or "user" not in item or "text" not in item:
            raise RowError(Fault.UNKNOWN_LAYOUT, f"{where} is not {{user, text}}")
        yield Turn(role_of(item["user"], where), response_of(item["text"], where, config))


def _merge(messages: Iterator[Turn]) -> Iterator[Turn]:
    """Join what one speaker sent in a row."""
    for role, run in groupby(messages, key=lambda message: message.role):
        yield Turn(role, _join("\n", run) or NO_TEXT)


def _reply(value: object, field: str, config: TripletsConfig) -> str:
    """Join the messages of one reply, all of them the tutor's."""
    messages = list(_messages(value, field, config))
    if any(message.role != "assistant" for message in messages):
        raise RowError(Fault.NOT_ONE_RESPONSE, f"`{field}` must hold messages of the tutor only")
    return text_of(_join(" ", messages), f"`{field}`", config)


def _join(separator: str, messages: Iterable[Turn]) -> str:
    """Join the messages that have text."""
    return separator.join(message.text for message in messages if message.text.strip())
