"""Alternating population: which reply of a conversation is set against which (paper 6.3 and appendix E.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from coala_core.sources import Conversation, Turn

History = Literal["full", "turn"]
Pairs = Literal["adjacent", "all_later", "window"]


class Triplet(NamedTuple):
    """A prompt that ends with the student, the reply to prefer and the reply to disfavour.

    `turn` and `later` are the numbers of the chosen and the rejected reply among the tutor's replies to student
    turns, counted from 1. `pair_id` is ``{conversation_id}#{turn}`` where the rejected reply is the next one, else
    ``{conversation_id}#{turn}-{later}``; a ready pair brings its own, and has the numbers 1 and 2.
    """

    conversation_id: str
    pair_id: str
    group: str
    turn: int
    later: int
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str


def alternating_triplets(
    conversation: Conversation, history: History = "full", pairs: Pairs = "adjacent", window: int = 2
) -> list[Triplet]:
    """Set every reply but the last against later ones; the prompt ends with the student turn that it answers.

    Of r replies to student turns, reply i is chosen and reply j rejected for

    - "adjacent": j = i + 1 (the paper), which gives r - 1 triplets;
    - "all_later": j = i + 1, ..., r, which gives r (r - 1) / 2;
    - "window": j = i + 1, ..., min(i + k, r) with k = `window`, which gives the sum of min(k, r - i) over
      i = 1, ..., r - 1: "adjacent" for k = 1 and "all_later" for k >= r - 1.

    A leading tutor turn is history only. Replies that are the same text give a triplet like any others.

    Parameters
    ----------
    conversation : Conversation
        A checked conversation.
    history : {"full", "turn"}, default="full"
        "full" puts every turn up to the student's into the prompt; "turn" only the system turn, if any, and the
        student's.
    pairs : {"adjacent", "all_later", "window"}, default="adjacent"
        What a chosen reply is set against.
    window : int, default=2
        Later replies that a chosen one is set against where `pairs` is "window"; at least 1.

    Returns
    -------
    list of Triplet
        By chosen reply, then by rejected reply.

    Raises
    ------
    ValueError
        If `history` or `pairs` is none of its words, or `window` is below 1.
    """
    if history not in ("full", "turn"):
        raise ValueError(
            f'`alternating_triplets(history=...)` must be "full" or "turn", got {history!r}; '
            'take "full" for the prompts of the paper.'
        )
    if pairs not in ("adjacent", "all_later", "window"):
        raise ValueError(
            f'`alternating_triplets(pairs=...)` must be "adjacent", "all_later" or "window", got {pairs!r}; '
            'take "adjacent" for the pairs of the paper.'
        )
    if window < 1:
        raise ValueError(
            f"`alternating_triplets(window=...)` must be at least 1, got {window}; take 1 for adjacent replies alone."
        )
    replies = reply_positions(conversation.turns)
    return list(slide(conversation, replies, history, reach_of(pairs, window, len(replies))))


def reply_positions(turns: Sequence[Turn]) -> list[int]:
    """Return the positions of the tutor's replies to student turns, in order."""
    roles = [turn.role for turn in turns]
    return [at for at, role in enumerate(roles) if role == "assistant" and at and roles[at - 1] == "user"]


def reach_of(pairs: Pairs, window: int, replies: int) -> int:
    """Return how many later replies a chosen one is set against at most, in a conversation of so many `replies`."""
    return {"adjacent": 1, "all_later": replies, "window": window}[pairs]


def slide(conversation: Conversation, replies: Sequence[int], history: History, reach: int) -> Iterator[Triplet]:
    """Yield the triplets of a conversation one at a time.

    Parameters
    ----------
    conversation : Conversation
        A checked conversation.
    replies : sequence of int
        Its `reply_positions`.
    history : {"full", "turn"}
        What a prompt holds.
    reach : int
        As of `reach_of`.

    Yields
    ------
    Triplet
        By chosen reply, then by rejected reply; triplets of one chosen reply share their prompt.
    """
    turns, name = conversation.turns, conversation.conversation_id
    system = tuple(turn for turn in turns[:1] if turn.role == "system")
    for number, at in enumerate(replies[:-1], start=1):
        prompt = turns[:at] if history == "full" else (*system, turns[at - 1])
        for later, after in enumerate(replies[number : number + reach], start=number + 1):
            pair_id = f"{name}#{number}" if later == number + 1 else f"{name}#{number}-{later}"
            yield Triplet(name, pair_id, conversation.group, number, later, prompt, turns[at].text, turns[after].text)
