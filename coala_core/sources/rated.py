"""HelpSteer and HelpSteer2: responses that people scored from 0 to 4 in five attributes."""

from __future__ import annotations

import math
import re

from coala_core.config import TripletsConfig
from coala_core.sources.fields import digest_turns, list_fields, scalar_fields
from coala_core.sources.pairing import build_response
from coala_core.sources.preferences import prompt_turns
from coala_core.sources.records import Fault, RatedResponse, Row, RowError, Turn
from coala_core.sources.turns import check_prompt, response_of

LAYOUT = "HelpSteer"

_FIELDS = frozenset({"prompt", "response"})
_MARKER = re.compile(r"(?:^|\n)<extra_id_1>(User|Assistant)(?:\n|$)")


def read_rated(row: Row, config: TripletsConfig) -> RatedResponse:
    """Read a ``prompt`` with one ``response`` and the score that `triplets.score` names.

    A prompt of several turns, marked by lines ``<extra_id_1>User`` and ``<extra_id_1>Assistant`` as in HelpSteer2, is
    divided at the marks; one whose marks do not alternate between student and tutor is kept whole.

    Raises
    ------
    RowError
        If a text is refused, or the score is absent or not a finite number.
    """
    score = _score(row, config.score)
    given = row.content["prompt"]
    prompt = prompt_turns(given, config)
    if isinstance(given, str):
        prompt = _split_prompt(given)
    response = response_of(row.content["response"], "`response`", config)
    return build_response(row, config, LAYOUT, "score", (digest_turns(prompt), prompt), (response, score), _FIELDS)


def _score(row: Row, name: str) -> float:
    """Return the score of a response, which a CSV file holds as text."""
    value = row.content.get(name)
    if value is None:
        others = list_fields(scalar_fields(row.content, _FIELDS))
        reason = f"the row has no score `{name}`; `triplets.score` can name one of its other fields: {others}"
        raise RowError(Fault.BAD_SCORE, reason)
    try:
        score = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise RowError(Fault.BAD_SCORE, f"the score `{name}` must be a finite number, got a {type(value).__name__}")
    return score


def _split_prompt(text: str) -> tuple[Turn, ...]:
    """Divide a prompt at the marks of HelpSteer2, if they make a dialogue that ends with the student."""
    opening, *rest = _MARKER.split(text)
    turns = [Turn("user", opening)] if opening.strip() else []
    turns += [
        Turn("user" if speaker == "User" else "assistant", words)
        for speaker, words in zip(rest[::2], rest[1::2], strict=True)
    ]
    if len(turns) > 1 and turns[-1] == ("assistant", ""):
        turns.pop()  # the cue for the response
    try:
        check_prompt((*turns, Turn("assistant", "")))
    except RowError:
        return (Turn("user", text),)
    whole = turns[0].role == "user" and all(turn.text.strip() for turn in turns)
    return tuple(turns) if whole else (Turn("user", text),)
