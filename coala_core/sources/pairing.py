"""Pairs of several rows: by labels, one good response and one bad, or by scores, the best and each lower one.

Both keep only the rows that still wait. By labels, a row waits for the next one of the other label, so in a file
whose labels alternate within each prompt next to nothing is held. By scores, the files are read twice: the first
time counts the responses of each prompt, so that in the second a prompt is complete, and let go, at its last row,
wherever its rows stand; where they are adjacent, one prompt is held at a time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from coala_core.config import TripletsConfig
from coala_core.sources.fields import ROW_ID_FIELDS, digest_texts, find_group, first_text, scalar_fields
from coala_core.sources.preferences import check_pair
from coala_core.sources.records import (
    Fault,
    Preference,
    RatedResponse,
    Reject,
    Row,
    RowError,
    Turn,
    reject_row,
)
from coala_core.sources.turns import check_prompt

Key = tuple[str | None, str | None]
"""What responses must share to make a pair: prompt, and group where that is not the conversation."""

Claim = Callable[[Preference], None]
"""Takes the pair's id, or raises `RowError` where it is taken."""


def build_response(
    row: Row,
    config: TripletsConfig,
    layout: str,
    pairing: Literal["label", "score"],
    prompt: tuple[str | None, tuple[Turn, ...]],
    rated: tuple[str, float],
    used: frozenset[str],
) -> RatedResponse:
    """Check one row of a layout that makes a pair of several.

    Parameters
    ----------
    row : Row
        The row.
    config : TripletsConfig
        The field to group by.
    layout, pairing
        As in `RatedResponse`.
    prompt : tuple
        Digest of the prompt, or None for a prompt that all rows share, and its turns.
    rated : tuple
        The response and what it is worth.
    used : frozenset of str
        Fields of the row that are texts of the pair or their label; the other scalar ones are kept.

    Raises
    ------
    RowError
        If the prompt breaks a rule, or the row lacks the field to group by.
    """
    conversation_id, turns = prompt
    response, worth = rated
    check_prompt((*turns, Turn("assistant", response)))
    fields = scalar_fields(row.content, used)
    group = None if config.group_by == "conversation_id" else find_group(fields, "", config.group_by)
    row_id = first_text(fields, ("pair_id", *ROW_ID_FIELDS))
    return RatedResponse(conversation_id, group, turns, response, worth, pairing, row_id, fields, layout, row)


def key_of(response: RatedResponse) -> Key:
    """Return what the response must share with others."""
    return response.conversation_id, response.group


class LabelPairs:
    """Sets the k-th good response of a prompt against its k-th bad one, in order of arrival; each is used once.

    Parameters
    ----------
    config : TripletsConfig
        Whether pairs of twice the same response are refused.
    claim : callable
        Called with each pair.
    """

    def __init__(self, config: TripletsConfig, claim: Claim) -> None:
        self._config = config
        self._claim = claim
        self._waiting: dict[Key, deque[RatedResponse]] = {}

    def add(self, response: RatedResponse) -> Iterator[Preference | Reject]:
        """Take in a row; yield the pair that it completes, if it does, or that pair's rows as rejects."""
        key = key_of(response)
        waiting = self._waiting.setdefault(key, deque())
        if not waiting or waiting[0].worth == response.worth:
            waiting.append(response)
            return
        earlier = waiting.popleft()
        if not waiting:
            del self._waiting[key]
        try:
            chosen, rejected = (earlier, response) if earlier.worth > response.worth else (response, earlier)
            pair = _pair(chosen, rejected, rows=2, first=earlier)
            _accept(pair, self._config, self._claim)
        except RowError as error:
            yield from (reject_row(one.origin, error) for one in (earlier, response))
        else:
            yield pair

    def finish(self) -> Iterator[Preference | Reject]:
        """Yield a reject for every row that found no partner."""
        for waiting in self._waiting.values():
            for one in waiting:
                wanted = "bad" if one.worth else "good"
                shared = "" if one.conversation_id is None else " to its prompt"
                group = "" if one.group is None else " in its group"
                reason = f"no {wanted} response{shared}{group} is left to set this one against"
                yield reject_row(one.origin, RowError(Fault.NO_PARTNER, reason))
        self._waiting.clear()


class ScorePairs:
    """Sets the best response of a prompt against each one with a lower score.

    k responses give at most k - 1 pairs, so that prompts with many responses do not outweigh the others, and what is
    chosen is always a response that no other one was scored above, as in UltraFeedback-binarized. Of several best
    ones the first is taken, and the others are rejects, as are all responses of a prompt on which the scores do not
    differ: a tie states no preference.

    Parameters
    ----------
    config : TripletsConfig
        The score's name, and whether pairs of twice the same response are refused.
    claim : callable
        Called with each pair.
    count : callable
        Counts the responses of each prompt; called once, before the first row.
    """

    def __init__(self, config: TripletsConfig, claim: Claim, count: Callable[[], Counter[Key]]) -> None:
        self._config = config
        self._claim = claim
        self._count = count
        self._counts: Mapping[Key, int] | None = None
        self._waiting: dict[Key, list[RatedResponse]] = {}

    def add(self, response: RatedResponse) -> Iterator[Preference | Reject]:
        """Take in a row; yield the pairs and rejects of its prompt, if that is complete."""
        if self._counts is None:
            self._counts = self._count()
        key = key_of(response)
        waiting = self._waiting.setdefault(key, [])
        waiting.append(response)
        if len(waiting) >= self._counts.get(key, 0):
            del self._waiting[key]
            yield from self._judge(waiting)

    def finish(self) -> Iterator[Preference | Reject]:
        """Yield the pairs and rejects of prompts of which a counted row was refused, hence never came."""
        for waiting in self._waiting.values():
            yield from self._judge(waiting)
        self._waiting.clear()

    def _judge(self, responses: list[RatedResponse]) -> Iterator[Preference | Reject]:
        """Yield what all responses to one prompt give: every row is in a pair or a reject."""
        best = max(responses, key=lambda one: one.worth)
        used = passed = False
        refusal = RowError(Fault.NO_PARTNER, "no other response to its prompt is there to set this one against")
        for one in responses:
            if one is best:
                passed = True
                continue
            try:
                pair = self._against(best, one, rows=1 if used else 2, first=best if passed else one)
            except RowError as error:
                refusal = error
                yield reject_row(one.origin, error)
            else:
                used = True
                yield pair
        if not used:
            yield reject_row(best.origin, refusal)

    def _against(self, best: RatedResponse, other: RatedResponse, rows: int, first: RatedResponse) -> Preference:
        """Set a response against the best one."""
        if other.worth == best.worth:
            reason = (
                f"`{self._config.score}` is {best.worth:g} in rows {best.row} and {other.row}, the best of their prompt"
            )
            raise RowError(Fault.TIED_SCORES, reason)
        pair = _pair(best, other, rows, first)
        _accept(pair, self._config, self._claim)
        return pair


def _accept(pair: Preference, config: TripletsConfig, claim: Claim) -> None:
    """Refuse a pair that states nothing or was there before."""
    check_pair(pair.prompt, pair.chosen, pair.rejected, config)
    claim(pair)


def _pair(chosen: RatedResponse, rejected: RatedResponse, rows: int, first: RatedResponse) -> Preference:
    """Make a pair of two rows, with the fields in which they agree.

    Its conversation is the prompt, or where that says nothing the two rows.
    """
    # The two rows of a pair that was taken apart share its id.
    names = "+".join(dict.fromkeys(one.row_id or digest_texts(one.response) for one in (chosen, rejected)))
    shared = chosen.conversation_id
    conversation_id, pair_id = (names, f"{names}#1") if shared is None else (shared, f"{shared}#{names}")
    return Preference(
        conversation_id=conversation_id,
        group=conversation_id if chosen.group is None else chosen.group,
        pair_id=pair_id,
        prompt=chosen.prompt,
        chosen=chosen.response,
        rejected=rejected.response,
        fields={name: value for name, value in chosen.fields.items() if rejected.fields.get(name) == value},
        row=first.row,
        layout=chosen.layout,
        source=first.source,
        rows=rows,
    )
