"""Ready pairs in TRL's four preference layouts: strings or messages, explicit or implicit prompt."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coala_core.config import TripletsConfig
from coala_core.sources.fields import find_group, find_pair_ids, scalar_fields
from coala_core.sources.records import Fault, Preference, Row, RowError, Turn
from coala_core.sources.turns import check_prompt, parse_messages, response_of, text_of

_CJK_BREAKS = "。！？：；，、"


class Pair(NamedTuple):
    """A prompt, its two responses and the layout that they came in.

    `mark` is what else tells the row from one with the same texts.
    """

    layout: str
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    mark: str = ""


def parse_preference(content: Mapping[str, object], config: TripletsConfig) -> Pair:
    """Read a row with ``chosen`` and ``rejected``, in any of TRL's four preference layouts.

    A prompt string becomes one student turn. Where ``chosen`` and ``rejected`` are whole dialogues, the
    messages that both begin with are the prompt, also if a prompt string stands beside them, as in
    UltraFeedback-binarized.

    Parameters
    ----------
    content : mapping
        The row.
    config : TripletsConfig
        Limits on turns and their lengths.

    Raises
    ------
    RowError
        If the row fits none of the layouts, or a response is not exactly one tutor message.
    """
    chosen, rejected, prompt = content["chosen"], content["rejected"], content.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _from_strings(prompt, chosen, rejected, config)
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _from_messages(prompt, chosen, rejected, config)
    found = f"{type(chosen).__name__} and {type(rejected).__name__}"
    raise RowError(Fault.UNKNOWN_LAYOUT, f"`chosen` and `rejected` must both be strings or message lists, got {found}")


def build_preference(row: Row, pair: Pair, used: frozenset[str], config: TripletsConfig) -> Preference:
    """Check a pair and give it ids and group.

    Parameters
    ----------
    row : Row
        The row that it comes from.
    pair : Pair
        What was read out of it.
    used : frozenset of str
        Fields of the row that the pair holds; the other scalar ones are kept as they are.
    config : TripletsConfig
        The field to group by.

    Raises
    ------
    RowError
        As `check_pair`, or if the row lacks the field to group by.
    """
    check_pair(pair.prompt, pair.chosen, pair.rejected, config)
    fields = scalar_fields(row.content, used)
    conversation_id, pair_id = find_pair_ids(fields, pair.prompt, (pair.chosen, pair.rejected, pair.mark))
    group = find_group(fields, conversation_id, config.group_by)
    layout, prompt, chosen, rejected, _ = pair
    return Preference(conversation_id, group, pair_id, prompt, chosen, rejected, fields, row.number, layout, row.source)


def check_pair(prompt: Sequence[Turn], chosen: str, rejected: str, config: TripletsConfig) -> None:
    """Refuse what states no preference.

    One blank response is a preference like any other: people and models do leave an answer empty, and it was
    judged.

    Raises
    ------
    RowError
        If both responses are blank, or equal but for surrounding whitespace where the configuration rejects that, or
        the prompt breaks a rule of `check_prompt` or does not end with the student.
    """
    ours, theirs = chosen.strip(), rejected.strip()
    if not ours and not theirs:
        raise RowError(Fault.EMPTY, "`chosen` and `rejected` are both empty or only whitespace")
    if ours == theirs and config.identical_pairs == "reject":
        raise RowError(Fault.EQUAL_RESPONSES, "`chosen` and `rejected` are the same response")
    check_prompt((*prompt, Turn("assistant", chosen)))


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
    responses = response_of(chosen, "`chosen`", config), response_of(rejected, "`rejected`", config)
    return Pair(layout, prompt_turns(prompt, config), *responses)


def _from_messages(prompt: object, chosen: object, rejected: object, config: TripletsConfig) -> Pair:
    """Read two message lists: one reply each after a prompt, or two dialogues that begin alike."""
    ours = parse_messages(chosen, "chosen", config, blank_last=True)
    theirs = parse_messages(rejected, "rejected", config, blank_last=True)
    whole_dialogues = not isinstance(prompt, list) and max(len(ours), len(theirs)) > 1
    if prompt is not None and not whole_dialogues:
        replies = only_reply(ours, "chosen"), only_reply(theirs, "rejected")
        return Pair("preference, conversational explicit", prompt_turns(prompt, config), *replies)
    same = ours == theirs
    shared = len(ours) - 1 if same else len(os.path.commonprefix([ours, theirs]))
    if shared == 0:
        raise RowError(Fault.NO_SHARED_PROMPT, "`chosen` and `rejected` do not begin with the same messages")
    replies = only_reply(ours[shared:], "chosen"), only_reply(theirs[shared:], "rejected")
    return Pair("preference, conversational implicit", ours[:shared], *replies)


def prompt_turns(prompt: object, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read a prompt given as one string, the student's, or as messages.

    Raises
    ------
    RowError
        As `text_of` and `parse_messages`.
    """
    if isinstance(prompt, str):
        return (Turn("user", text_of(prompt, "`prompt`", config)),)
    return parse_messages(prompt, "prompt", config)


def only_reply(turns: Sequence[Turn], field: str) -> str:
    """Return the text of a response.

    Raises
    ------
    RowError
        If it is not exactly one tutor message.
    """
    if len(turns) != 1 or turns[0].role != "assistant":
        found = ", ".join(turn.role for turn in turns[:5]) or "none"
        raise RowError(
            Fault.NOT_ONE_RESPONSE, f"`{field}` must hold exactly one assistant message after the prompt, got {found}"
        )
    return turns[0].text
