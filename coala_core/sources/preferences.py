"""Ready pairs in TRL's four preference layouts: strings or messages, explicit or implicit prompt."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coala_core.config import TripletsConfig
from coala_core.sources.records import Fault, RowError, Turn
from coala_core.sources.turns import check_prompt, parse_messages, text_of

_CJK_BREAKS = "。！？：；，、"


class Pair(NamedTuple):
    """A prompt, its two responses and the layout that they came in."""

    layout: str
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str


def parse_preference(content: Mapping[str, object], config: TripletsConfig) -> Pair:
    """Read a row with ``chosen`` and ``rejected``, in any of TRL's four preference layouts.

    A prompt string becomes one student turn. Where ``chosen`` and ``rejected`` are whole dialogues, the
    messages that both begin with are the prompt, also if a prompt string stands beside them.

    Parameters
    ----------
    content : mapping
        The row.
    config : TripletsConfig
        Limits on turns and their lengths.

    Raises
    ------
    RowError
        If the row fits none of the layouts, a response is not exactly one tutor message, the responses are
        equal but for surrounding whitespace, or the prompt breaks a rule of `check_prompt`.
    """
    chosen, rejected, prompt = content["chosen"], content["rejected"], content.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        pair = _from_strings(prompt, chosen, rejected, config)
    elif isinstance(chosen, list) and isinstance(rejected, list):
        pair = _from_messages(prompt, chosen, rejected, config)
    else:
        found = f"{type(chosen).__name__} and {type(rejected).__name__}"
        raise RowError(
            Fault.UNKNOWN_LAYOUT, f"`chosen` and `rejected` must both be strings or message lists, got {found}"
        )
    if config.identical_pairs == "reject" and pair.chosen.strip() == pair.rejected.strip():
        raise RowError(Fault.EQUAL_RESPONSES, "`chosen` and `rejected` are the same response")
    check_prompt((*pair.prompt, Turn("assistant", pair.chosen)))
    return pair


def split_shared_prompt(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split two texts that begin alike into their prompt and two responses.

    The prompt is the longest common prefix, cut back to the last place where both remainders are not blank and
    begin after whitespace (or after a Chinese or Japanese punctuation mark), hence at a word.

    Returns
    -------
    tuple of str
        Prompt and the two responses; prompt + response gives back each text.

    Raises
    ------
    RowError
        If nothing but whitespace is left of the prompt, or the texts are equal.
    """
    if chosen.strip() == rejected.strip():
        raise RowError(Fault.EQUAL_RESPONSES, "`chosen` and `rejected` are the same text")
    shared = len(os.path.commonprefix([chosen, rejected]))
    cut = min(shared, len(chosen.rstrip()) - 1, len(rejected.rstrip()) - 1)
    while cut > 0 and not (chosen[cut - 1].isspace() or chosen[cut - 1] in _CJK_BREAKS):
        cut -= 1
    if cut <= 0 or not chosen[:cut].strip():
        raise RowError(
            Fault.NO_SHARED_PROMPT, "there is no `prompt`, and `chosen` and `rejected` do not begin with one"
        )
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _from_strings(prompt: object, chosen: str, rejected: str, config: TripletsConfig) -> Pair:
    """Read two response strings, or two strings that begin with their prompt."""
    layout = "preference, standard explicit"
    if prompt is None:
        layout = "preference, standard implicit"
        prompt, chosen, rejected = split_shared_prompt(chosen, rejected)
    responses = text_of(chosen, "`chosen`", config), text_of(rejected, "`rejected`", config)
    return Pair(layout, _prompt_turns(prompt, config), *responses)


def _from_messages(prompt: object, chosen: object, rejected: object, config: TripletsConfig) -> Pair:
    """Read two message lists: one reply each after a prompt, or two dialogues that begin alike."""
    ours, theirs = parse_messages(chosen, "chosen", config), parse_messages(rejected, "rejected", config)
    whole_dialogues = not isinstance(prompt, list) and max(len(ours), len(theirs)) > 1
    if prompt is not None and not whole_dialogues:
        turns = _prompt_turns(prompt, config)
        return Pair(
            "preference, conversational explicit", turns, _only_reply(ours, "chosen"), _only_reply(theirs, "rejected")
        )
    if ours == theirs:
        raise RowError(Fault.EQUAL_RESPONSES, "`chosen` and `rejected` are the same messages")
    shared = len(os.path.commonprefix([ours, theirs]))
    if shared == 0:
        raise RowError(Fault.NO_SHARED_PROMPT, "`chosen` and `rejected` do not begin with the same messages")
    replies = _only_reply(ours[shared:], "chosen"), _only_reply(theirs[shared:], "rejected")
    return Pair("preference, conversational implicit", ours[:shared], *replies)


def _prompt_turns(prompt: object, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read a prompt given as one string, the student's, or as messages."""
    if isinstance(prompt, str):
        return (Turn("user", text_of(prompt, "`prompt`", config)),)
    return parse_messages(prompt, "prompt", config)


def _only_reply(turns: Sequence[Turn], field: str) -> str:
    """Return the text of a response, which must be exactly one tutor message."""
    if len(turns) != 1 or turns[0].role != "assistant":
        found = ", ".join(turn.role for turn in turns[:5]) or "none"
        raise RowError(
            Fault.NOT_ONE_RESPONSE, f"`{field}` must hold exactly one assistant message after the prompt, got {found}"
        )
    return turns[0].text
