"""Single responses that carry a label: IMDb's reviews, and TRL's unpaired preference."""

from __future__ import annotations

from collections.abc import Mapping

from coala_core.config import TripletsConfig
from coala_core.sources.fields import digest_turns
from coala_core.sources.pairing import build_response
from coala_core.sources.preferences import only_reply, prompt_turns
from coala_core.sources.records import Fault, RatedResponse, Row, RowError, Turn
from coala_core.sources.turns import parse_messages, response_of, text_of

IMDB = "IMDb"
UNPAIRED = "unpaired preference"

REVIEW_PROMPT = (Turn("user", "Write a movie review."),)
"""Prompt of every pair of reviews, which come without one."""

_SENTIMENTS: Mapping[object, float] = {
    1: 1.0, "1": 1.0, "pos": 1.0, "positive": 1.0, 0: 0.0, "0": 0.0, "neg": 0.0, "negative": 0.0
}  # fmt: skip
_UNLABELLED = (-1, "-1", "unsup")
_JUDGEMENTS: Mapping[object, float] = {1: 1.0, "1": 1.0, "true": 1.0, 0: 0.0, "0": 0.0, "false": 0.0}


def read_review(row: Row, config: TripletsConfig) -> RatedResponse:
    """Read one of IMDb's reviews: ``text``, with the sentiment as ``label``.

    Phase I fits +1 and -1 to single responses, and that is what the reviews are; the pipeline carries them as pairs
    of one positive and one negative review, whose prompt is `REVIEW_PROMPT`.

    Raises
    ------
    RowError
        If the text is refused, or the label is neither 1 or "pos" nor 0 or "neg"; IMDb marks a review without a
        label by -1.
    """
    label = _plain(row.content["label"])
    if label in _UNLABELLED:
        raise RowError(Fault.BAD_LABEL, f"`label` is {label!r}, which marks a review without a label")
    worth = _SENTIMENTS.get(label)
    if worth is None:
        raise _bad_label(row.content["label"], '1 or "pos" for a positive review, 0 or "neg" for a negative one')
    text = text_of(row.content["text"], "`text`", config)
    used = frozenset({"text", "label"})
    return build_response(row, config, IMDB, "label", (None, REVIEW_PROMPT), (text, worth), used)


def read_unpaired(row: Row, config: TripletsConfig) -> RatedResponse:
    """Read a row of TRL's unpaired preference: ``prompt``, ``completion`` and ``label``, true for a good one.

    Raises
    ------
    RowError
        If a text is refused, the completion is not exactly one tutor message, or the label is neither true nor false.
    """
    content = row.content
    worth = _JUDGEMENTS.get(_plain(content["label"]))
    if worth is None:
        raise _bad_label(content["label"], "true for a good completion, false for a bad one")
    prompt = prompt_turns(content["prompt"], config)
    completion = content["completion"]
    if isinstance(completion, list):
        response = only_reply(parse_messages(completion, "completion", config, blank_last=True), "completion")
    else:
        response = response_of(completion, "`completion`", config)
    used = frozenset({"prompt", "completion", "label"})
    return build_response(row, config, UNPAIRED, "label", (digest_turns(prompt), prompt), (response, worth), used)


def _plain(label: object) -> object:
    """Return a label that can be looked up: a number, or a text in lower case."""
    if isinstance(label, str):
        return label.strip().casefold()
    return label if isinstance(label, int | float) else None


def _bad_label(label: object, wanted: str) -> RowError:
    """Say which labels there are."""
    found = ascii(label)[:40] if isinstance(label, str | int | float) else f"a {type(label).__name__}"
    return RowError(Fault.BAD_LABEL, f"`label` must be {wanted}, got {found}")
