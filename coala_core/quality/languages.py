"""Which languages the responses are written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

SHORTEST = 20
"""Letters below which no language is guessed."""
MIN_CONFIDENCE = 0.5
UNDETERMINED = ("und", "zxx")
"""What the model says below its minimal confidence, and of what is no language, after ISO 639."""

_LONGEST = 2000  # characters; more do not change the answer


def language_mix(texts: Iterable[str]) -> dict[str, Any]:
    """Count the languages of some texts.

    Parameters
    ----------
    texts : iterable of str
        At least one.

    Returns
    -------
    dict
        ``texts``; ``short``, those with fewer than 20 letters; ``undetermined``, others of which the model is less
        than half sure, or that it takes for no language; ``languages``, of the rest, by falling frequency:
        ``language`` (ISO 639 code), ``texts`` and ``share`` of all texts.

    Raises
    ------
    ValueError
        If there is no text.
    """
    counts: Counter[str] = Counter(_language(text) for text in texts)
    total = counts.total()
    if not total:
        raise ValueError("`language_mix(texts=...)` needs at least one text, got none; sample some pairs.")
    short, undetermined = counts.pop("", 0), sum(counts.pop(code, 0) for code in UNDETERMINED)
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "texts": total,
        "short": short,
        "undetermined": undetermined,
        "languages": [{"language": code, "texts": count, "share": count / total} for code, count in found],
    }


def _language(text: str) -> str:
    """Return the code of a text's language, one of `UNDETERMINED`, or nothing where the text is short."""
    start = text[:_LONGEST]
    # An ideograph says about as much as a syllable, so few of them suffice.
    letters = sum(3 if sign >= "\u3040" else 1 for sign in start if sign.isalpha())
    return str(_model().classify(start)[0]) if letters >= SHORTEST else ""


@cache
def _model() -> LanguageIdentifier:
    """Load the model, which takes a second, once."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE)
