"""How alike two replies are."""

from __future__ import annotations

_WORDS = 3


def reply_similarity(one: str, other: str) -> float:
    """Exact Jaccard similarity of two texts' word shingles, |A & B| / |A | B|.

    A and B are the sets of runs of w successive words of the case-folded texts, words being what whitespace
    separates; w = 3, or 1 where either text has fewer than three words. Two blank texts have similarity 1.

    Parameters
    ----------
    one, other : str
        The texts; their order does not matter.

    Returns
    -------
    float
        In [0, 1]; 1 where the sets are equal, which equal texts imply.
    """
    ours, theirs = one.casefold().split(), other.casefold().split()
    width = _WORDS if min(len(ours), len(theirs)) >= _WORDS else 1
    left, right = _shingles(ours, width), _shingles(theirs, width)
    either = len(left | right)
    return len(left & right) / either if either else 1.0


def _shingles(words: list[str], width: int) -> set[tuple[str, ...]]:
    """Return the distinct runs of `width` words."""
    return set(zip(*(words[start:] for start in range(width)), strict=False))
