"""Layouts that a conversion writes, each as a function from a record to the fields of its rows.

Dialogues, one row each:

=======================================  ======================================================================
``messages``                             ``messages: [{role, content}, ...]``, roles system, user, assistant
``sharegpt``                             ``conversations: [{from, value}, ...]``, from system, human, gpt
``edufeedback``                          ``utterances: [[agent1 | agent2 | system, text], ...]``; agent1 tutors
``history``                              ``history: [text, ...]``; the student begins, no system turn
=======================================  ======================================================================

Pairs, as TRL has them:

=======================================  ======================================================================
``preference-conversational``            ``prompt``, ``chosen``, ``rejected``, each a list of messages
``preference-conversational-implicit``   ``chosen``, ``rejected``: the prompt's messages and the reply
``preference-standard``                  three texts; the prompt is one student turn
``preference-standard-implicit``         two transcripts as in Anthropic HH: ``Human:`` and ``Assistant:``
``unpaired``                             two rows: ``prompt``, ``completion`` (messages) and ``label``
``unpaired-standard``                    two rows: ``prompt``, ``completion`` (texts) and ``label``
=======================================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import pyarrow as pa

from coala_core.convert.refusals import Inexpressible
from coala_core.sources import Role, Turn

DialogueLayout = Literal["messages", "sharegpt", "edufeedback", "history"]
PairLayout = Literal[
    "preference-conversational",
    "preference-conversational-implicit",
    "preference-standard",
    "preference-standard-implicit",
    "unpaired",
    "unpaired-standard",
]
TargetLayout = Literal[DialogueLayout, PairLayout]

DIALOGUE_TARGETS: tuple[DialogueLayout, ...] = get_args(DialogueLayout)
PAIR_TARGETS: tuple[PairLayout, ...] = get_args(PairLayout)
TARGETS: tuple[TargetLayout, ...] = (*DIALOGUE_TARGETS, *PAIR_TARGETS)

Extras = Sequence[Mapping[str, object]]
"""What each message holds beside speaker and text; empty where no message holds more."""

Fields = dict[str, object]

TURN_FIELDS = "turn_fields"
"""Field in which layouts of bare texts carry the extras of a row's own turns; reading gives them back to the turns."""

BARE_TARGETS: tuple[TargetLayout, ...] = (
    "edufeedback",
    "history",
    "preference-standard",
    "preference-standard-implicit",
    "unpaired-standard",
)
"""Layouts of bare texts, without room for extras."""

_PROMPT_TURNS, _REPLIES = slice(None, -2), slice(-2, None)

_SHAREGPT: Mapping[Role, str] = {"system": "system", "user": "human", "assistant": "gpt"}
_EDUFEEDBACK: Mapping[Role, str] = {"system": "system", "user": "agent2", "assistant": "agent1"}
_ITSELF: Mapping[Role, str] = {"system": "system", "user": "user", "assistant": "assistant"}
_TRANSCRIPT: Mapping[Role, str] = {"user": "Human", "assistant": "Assistant"}
_CONVERSATIONAL = {"preference-standard": "preference-conversational", "unpaired-standard": "unpaired"}

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TEXT = pa.string()

COLUMNS: Mapping[TargetLayout, Mapping[str, pa.DataType]] = {
    "messages": {"messages": _MESSAGES},
    "sharegpt": {"conversations": pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))},
    "edufeedback": {"utterances": pa.list_(pa.list_(pa.string()))},
    "history": {"history": pa.list_(pa.string())},
    "preference-conversational": {"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES},
    "preference-conversational-implicit": {"chosen": _MESSAGES, "rejected": _MESSAGES},
    "preference-standard": {"prompt": _TEXT, "chosen": _TEXT, "rejected": _TEXT},
    "preference-standard-implicit": {"chosen": _TEXT, "rejected": _TEXT},
    "unpaired": {"prompt": _MESSAGES, "completion": _MESSAGES, "label": pa.bool_()},
    "unpaired-standard": {"prompt": _TEXT, "completion": _TEXT, "label": pa.bool_()},
}
"""The fields of each layout, with their types where a file has columns."""


def write_dialogue(turns: Sequence[Turn], extras: Extras, layout: DialogueLayout) -> Fields:
    """Lay a dialogue out.

    Parameters
    ----------
    turns : sequence of Turn
        Checked.
    extras : sequence of mapping
        Empty, or one for each turn.
    layout : {"messages", "sharegpt", "edufeedback", "history"}
        How. The two without room for extras carry them in the field `TURN_FIELDS`.

    Raises
    ------
    Inexpressible
        If the layout cannot hold the roles, or an extra has the name of one of the layout's keys.
    """
    if layout == "messages":
        return {"messages": _messages(turns, extras)}
    if layout == "sharegpt":
        return {"conversations": _messages(turns, extras, ("from", "value"), _SHAREGPT)}
    beside: Fields = {TURN_FIELDS: [dict(extra) for extra in extras]} if extras else {}
    if layout == "edufeedback":
        return {"utterances": [[_EDUFEEDBACK[turn.role], turn.text] for turn in turns], **beside}
    if turns[0].role != "user":
        who = "a system turn" if turns[0].role == "system" else "the tutor"
        raise Inexpressible(f"it begins with {who}, and `history` begins with the student; choose `messages`")
    return {"history": [turn.text for turn in turns], **beside}


def write_pair(prompt: Sequence[Turn], chosen: str, rejected: str, extras: Extras, layout: PairLayout) -> list[Fields]:
    """Lay a pair out: one row, or two of an unpaired layout, the chosen response first.

    Parameters
    ----------
    prompt : sequence of Turn
        Checked; ends with the student.
    chosen, rejected : str
        The responses.
    extras : sequence of mapping
        Empty, or one for each message of the prompt, the chosen and the rejected response, in this order.
    layout : str
        One of `PAIR_TARGETS`.

    Raises
    ------
    Inexpressible
        If the layout cannot hold the prompt or the extras.
    """
    if layout in ("preference-standard", "preference-standard-implicit", "unpaired-standard"):
        return _text_rows(prompt, chosen, rejected, extras, layout)
    before = _messages(prompt, extras[_PROMPT_TURNS])
    replies = ([Turn("assistant", chosen)], [Turn("assistant", rejected)])
    ours, theirs = (_messages(reply, extras[_REPLIES][at : at + 1]) for at, reply in enumerate(replies))
    if layout == "preference-conversational":
        return [{"prompt": before, "chosen": ours, "rejected": theirs}]
    if layout == "preference-conversational-implicit":
        return [{"chosen": [*before, *ours], "rejected": [*before, *theirs]}]
    return [_rated(before, ours, True), _rated(before, theirs, False)]


def write_response(prompt: Sequence[Turn], response: str, good: bool, extras: Extras, layout: PairLayout) -> Fields:
    """Lay one labelled response out.

    Parameters
    ----------
    prompt : sequence of Turn
        Checked; ends with the student.
    response : str
        The response.
    good : bool
        Its label.
    extras : sequence of mapping
        Empty, or one for each message of the prompt and one for the response.
    layout : {"unpaired", "unpaired-standard"}
        How.

    Raises
    ------
    Inexpressible
        As `write_pair`.
    """
    good_row, bad_row = write_pair(prompt, response, response, (*extras, *extras[-1:]), layout)
    return good_row if good else bad_row


def _rated(prompt: object, completion: object, label: bool) -> Fields:
    """Write a row of an unpaired layout."""
    return {"prompt": prompt, "completion": completion, "label": label}


def _text_rows(prompt: Sequence[Turn], chosen: str, rejected: str, extras: Extras, layout: PairLayout) -> list[Fields]:
    """Lay a pair out as texts."""
    beside: Fields = {TURN_FIELDS: [dict(extra) for extra in extras]} if extras else {}
    if layout == "preference-standard-implicit":
        if prompt[0].role != "user":
            raise Inexpressible(
                f"its prompt begins with a {prompt[0].role} turn, and a transcript with the student; "
                "choose `preference-conversational-implicit`"
            )
        before = "".join(map(_said, prompt))
        return [
            {
                name: before + _said(Turn("assistant", text))
                for name, text in (("chosen", chosen), ("rejected", rejected))
            }
            | beside
        ]
    if len(prompt) != 1:
        raise Inexpressible(
            f"its prompt has {len(prompt)} turns, and one text holds one; choose `{_CONVERSATIONAL[layout]}`, "
            "or for conversations --set triplets.history=turn"
        )
    if layout == "preference-standard":
        return [{"prompt": prompt[0].text, "chosen": chosen, "rejected": rejected} | beside]
    if extras:
        raise Inexpressible("its messages hold more than speaker and text; choose `unpaired`")
    return [_rated(prompt[0].text, chosen, True), _rated(prompt[0].text, rejected, False)]


def _said(turn: Turn) -> str:
    """Write one turn of a transcript."""
    return f"\n\n{_TRANSCRIPT[turn.role]}: {turn.text}"


def _messages(
    turns: Sequence[Turn],
    extras: Extras,
    keys: tuple[str, str] = ("role", "content"),
    speakers: Mapping[Role, str] = _ITSELF,
) -> list[Fields]:
    """Write messages, each with its extras."""
    speaker, text = keys
    messages: list[Fields] = [{speaker: speakers[turn.role], text: turn.text} for turn in turns]
    for number, (message, extra) in enumerate(zip(messages, extras, strict=False), start=1):
        taken = [key for key in keys if key in extra]
        if taken:
            raise Inexpressible(
                f"its turn {number} has a field `{taken[0]}` of its own, which the layout needs; rename it"
            )
        message.update(extra)
    return messages
