"""Responses that another conversation has nearly word for word."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from coala_core.progress import Progress, silent

PERMUTATIONS = 128
SHINGLE_WORDS = 3
SHOWN_CLUSTERS = 5
_EXCERPT = 200
_PROGRESS_TEXTS = 500
# Verification removes false candidates, nothing brings back a missed one: with both, of two texts as similar as asked
# for fewer than one in a hundred is missed.
_WEIGHTS = (0.1, 0.9)
_LOOSER = 0.85
# A text with so many candidates lies in a region that the index covers already; adding it would make work quadratic.
_CROWD = 64
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")

Shingles = NDArray[np.uint64]


@dataclass
class _Text:
    """A distinct text and the conversations that hold it as a response."""

    excerpt: str
    shingles: Shingles
    conversations: set[str] = field(default_factory=set)
    doubled_in: set[str] = field(default_factory=set)
    """Those conversations in which it is a near-duplicate of another conversation's response."""


def near_duplicates(
    responses: Iterable[tuple[str, str]], similarity: float, seed: int, progress: Progress = silent
) -> dict[str, Any]:
    """Find responses whose words another conversation repeats.

    Texts are compared as sets of word 3-shingles (after case folding, without punctuation; a Chinese or Japanese
    character counts as a word). MinHash proposes candidates, and the Jaccard similarity of the sets decides. A reply
    that is chosen in one pair and rejected in another of the same conversation is one response.

    Parameters
    ----------
    responses : iterable of (str, str)
        Conversation and response; at least one.
    similarity : float, in (0, 1]
        Jaccard similarity from which two texts are near-duplicates.
    seed : int
        Seed of the permutations.
    progress : Progress
        Told distinct texts compared.

    Returns
    -------
    dict
        ``responses``, distinct ones in a conversation; ``near_duplicates``, those of them with a near-duplicate in
        another conversation, and their ``share``; ``clusters``, how many groups they form when linked one to the
        next, and ``largest``, up to five of these: ``responses``, ``conversations``, ``wordings``, ``example``.

    Raises
    ------
    ValueError
        If there is no response.
    """
    texts = _distinct(responses)
    if not texts:
        raise ValueError("`near_duplicates(responses=...)` needs at least one response, got none; sample some pairs.")
    clusters = _link(texts, similarity, seed, progress)
    units = sum(len(text.conversations) for text in texts)
    doubled = sum(len(text.doubled_in) for text in texts)
    found = [cluster for cluster in clusters if any(texts[at].doubled_in for at in cluster)]
    largest = sorted((_describe([texts[at] for at in cluster]) for cluster in found), key=_by_size)[:SHOWN_CLUSTERS]
    return {
        "responses": units,
        "near_duplicates": doubled,
        "share": doubled / units,
        "clusters": len(found),
        "largest": largest,
    }


def shingles_of(text: str) -> Shingles:
    """Return a text's word 3-shingles as a sorted set of 64-bit digests; a shorter text is one shingle, whole."""
    words = _WORD.findall(text.casefold()) or [text.casefold().strip()]
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    shingles = {" ".join(words[at : at + SHINGLE_WORDS]).encode("utf-8", "surrogatepass") for at in starts}
    digests = b"".join(hashlib.blake2b(shingle, digest_size=8).digest() for shingle in shingles)
    return np.unique(np.frombuffer(digests, dtype="<u8"))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Size of the intersection of two sorted sets over that of their union, in [0, 1]."""
    common = np.intersect1d(one, other, assume_unique=True).size
    return float(common / (one.size + other.size - common))


def _distinct(responses: Iterable[tuple[str, str]]) -> list[_Text]:
    """Join responses that are the same but for case and whitespace."""
    texts: dict[str, _Text] = {}
    for conversation, response in responses:
        normalised = " ".join(response.casefold().split())
        if normalised not in texts:
            texts[normalised] = _Text(response[:_EXCERPT], shingles_of(response))
        texts[normalised].conversations.add(conversation)
    return list(texts.values())


def _link(texts: list[_Text], similarity: float, seed: int, progress: Progress) -> list[list[int]]:
    """Mark every text that another conversation repeats, and return the linked ones together."""
    index = MinHashLSH(threshold=_LOOSER * similarity, num_perm=PERMUTATIONS, weights=_WEIGHTS)
    empty = MinHash(num_perm=PERMUTATIONS, seed=seed, hashfunc=int)
    parents = list(range(len(texts)))
    for at, text in enumerate(texts):
        if len(text.conversations) > 1:
            text.doubled_in |= text.conversations
        sketch = empty.copy()
        sketch.update_batch((text.shingles & np.uint64(0xFFFFFFFF)).tolist())
        candidates = sorted(index.query(sketch))
        for other in candidates:
            if _are_similar(text.shingles, texts[other].shingles, similarity):
                _mark(text, texts[other])
                parents[_root(parents, at)] = _root(parents, other)
        if len(candidates) < _CROWD:
            index.insert(at, sketch, check_duplication=False)
        if at % _PROGRESS_TEXTS == 0:
            progress(at, len(texts), "texts compared")
    clusters: dict[int, list[int]] = {}
    for at in range(len(texts)):
        clusters.setdefault(_root(parents, at), []).append(at)
    return list(clusters.values())


def _are_similar(one: Shingles, other: Shingles, similarity: float) -> bool:
    """Compare two sets, first by size alone."""
    small, large = sorted((one.size, other.size))
    return bool(small >= similarity * large and jaccard(one, other) >= similarity)


def _mark(one: _Text, other: _Text) -> None:
    """Note in which conversations each of two similar texts is repeated by another one."""
    for text, repeated in ((one, other), (other, one)):
        if len(repeated.conversations) > 1:
            text.doubled_in |= text.conversations
        else:
            text.doubled_in |= text.conversations - repeated.conversations


def _root(parents: list[int], at: int) -> int:
    """Find the representative of a text's cluster, and shorten the way to it."""
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = parents[at]
    return at


def _describe(cluster: list[_Text]) -> dict[str, Any]:
    """State how large a cluster is, with its first text."""
    return {
        "responses": sum(len(text.conversations) for text in cluster),
        "conversations": len(set().union(*(text.conversations for text in cluster))),
        "wordings": len(cluster),
        "example": cluster[0].excerpt,
    }


def _by_size(cluster: dict[str, Any]) -> tuple[int, str]:
    return -cluster["responses"], cluster["example"]
