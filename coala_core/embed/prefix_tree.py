"""Token sequences that begin alike, packed so that every common prefix is computed once.

A batch of sequences is a forest: a token stands below the tokens before it. The packed row holds each
node once, as chains, runs of tokens that follow one another. A chain's first token attends to a path of earlier
chains, so one causal pass over the row gives every sequence the states that it would have had alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[int]
Span = tuple[int, int]
"""Start and length of a run of positions in a packed row."""

_BATCH_COST = 16
"""Tokens' worth of fixed cost of a forward pass, which makes equally good packings prefer fewer of them."""


@dataclass(frozen=True)
class Chain:
    """A run of new tokens and where the states of the tokens before it lie."""

    prefix: tuple[Span, ...]
    """Spans that hold the tokens before the run, in order; empty for a root."""
    start: int
    """First position of the run in the packed row."""
    length: int
    """Tokens in the run, at least 1."""

    @property
    def depth(self) -> int:
        """Number of tokens before the run, hence the position id of its first token."""
        return sum(length for _, length in self.prefix)


@dataclass(frozen=True)
class PackedBatch:
    """Sequences packed into one row without padding."""

    rows: tuple[int, ...]
    """Indices of the sequences."""
    token_ids: NDArray[np.int64]
    """(tokens,)"""
    positions: NDArray[np.int64]
    """(tokens,) position of each token in its sequence, from 0."""
    chains: tuple[Chain, ...]
    """Every position of the row is in exactly one."""
    paths: tuple[tuple[Span, ...], ...]
    """For each of `rows`, the spans that hold its tokens, in order."""

    @property
    def attended(self) -> int:
        """Number of (token, visible token) pairs, the token itself included."""
        return int(self.positions.sum()) + len(self.positions)


@dataclass(frozen=True)
class SortedSequences:
    """Sequences in lexicographic order, where common prefixes are neighbours' prefixes.

    Parameters
    ----------
    sequences : sequence of sequences of int
        Token ids; none is empty.
    """

    sequences: Sequence[Tokens]
    order: list[int] = field(init=False)
    """Indices of the sequences, sorted."""
    shared: NDArray[np.int64] = field(init=False)
    """Tokens that each sorted sequence has in common with the one before it; 0 for the first."""
    lengths: NDArray[np.int64] = field(init=False)
    """Tokens of each sorted sequence."""

    def __post_init__(self) -> None:
        order = sorted(range(len(self.sequences)), key=lambda row: tuple(self.sequences[row]))
        arrays = [np.asarray(self.sequences[row], dtype=np.int64) for row in order]
        shared = [common_prefix(one, two) for one, two in zip(arrays, arrays[1:], strict=False)]
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "shared", np.array([0, *shared], dtype=np.int64)[: len(order)])
        object.__setattr__(self, "lengths", np.array([len(array) for array in arrays], dtype=np.int64))

    @property
    def distinct(self) -> int:
        """Number of nodes of the forest: the tokens that have to be computed at least."""
        return int((self.lengths - self.shared).sum())


def common_prefix(one: NDArray[np.int64], two: NDArray[np.int64]) -> int:
    """Length of the longest common prefix.

    >>> common_prefix(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    length = min(len(one), len(two))
    different = one[:length] != two[:length]
    first = int(different.argmax()) if length else 0
    return first if length and different[first] else length


def pack_batches(sequences: Sequence[Tokens], budget: int) -> list[PackedBatch]:
    """Cut sequences into batches of at most `budget` tokens and pack each, computing few tokens twice.

    The sorted sequences are cut where the least is shared: a cut repeats the common prefix of its two
    neighbours, and dynamic programming finds the cuts whose repeated tokens, plus a fixed cost a batch, are fewest.

    Parameters
    ----------
    sequences : sequence of sequences of int
        Token ids; none is empty.
    budget : int
        Largest number of tokens in a packed row; a longer sequence forms a batch of its own.

    Returns
    -------
    list of PackedBatch
        Largest first, so that memory peaks at the start. Every sequence is in exactly one.
    """
    ordered = SortedSequences(sequences)
    batches = [_pack(ordered, first, stop) for first, stop in _cuts(ordered, budget)]
    return sorted(batches, key=lambda batch: (-len(batch.token_ids), batch.rows))


def _cuts(ordered: SortedSequences, budget: int) -> list[tuple[int, int]]:
    """Ranges of sorted sequences, one a batch, that minimise the tokens computed."""
    count, shared = len(ordered.order), ordered.shared
    # A batch of the range [i, j) has shared[i] + total[j] - total[i] tokens: its first sequence comes whole.
    total = np.concatenate([[0], np.cumsum(ordered.lengths - shared)])
    cost = np.zeros(count + 1, dtype=np.int64)
    begin = np.zeros(count + 1, dtype=np.int64)
    for stop in range(1, count + 1):
        # No range that starts further left can fit; the single sequence is always allowed.
        left = min(int(np.searchsorted(total, total[stop] - budget)), stop - 1)
        size = shared[left:stop] + total[stop] - total[left:stop]
        allowed = size <= budget
        allowed[-1] = True
        candidates = np.where(allowed, cost[left:stop] + shared[left:stop] + _BATCH_COST, np.iinfo(np.int64).max)
        best = int(candidates.argmin())
        cost[stop], begin[stop] = candidates[best], left + best
    ranges = []
    stop = count
    while stop:
        ranges.append((int(begin[stop]), stop))
        stop = int(begin[stop])
    return ranges[::-1]


def _pack(ordered: SortedSequences, first: int, stop: int) -> PackedBatch:
    """Pack a range of sorted sequences, the longest first: trunks become whole chains, and branches hang on them."""
    placed: list[int] = []
    paths: dict[int, tuple[Span, ...]] = {}
    chains: list[Chain] = []
    token_ids: list[int] = []
    for place in sorted(range(first, stop), key=lambda place: (-ordered.lengths[place], place)):
        parent, shared = _nearest(ordered.shared, placed, place)
        prefix = _head(paths[parent], shared) if shared else ()
        new = ordered.sequences[ordered.order[place]][shared:]
        paths[place] = prefix
        if len(new):
            chains.append(Chain(prefix, len(token_ids), len(new)))
            paths[place] = (*prefix, (len(token_ids), len(new)))
            token_ids.extend(new)
        placed.insert(bisect_left(placed, place), place)
    positions = [np.arange(chain.depth, chain.depth + chain.length) for chain in chains]
    return PackedBatch(
        rows=tuple(ordered.order[place] for place in range(first, stop)),
        token_ids=np.array(token_ids, dtype=np.int64),
        positions=np.concatenate(positions).astype(np.int64),
        chains=tuple(chains),
        paths=tuple(paths[place] for place in range(first, stop)),
    )


def _nearest(shared: NDArray[np.int64], placed: list[int], place: int) -> tuple[int, int]:
    """Find the placed sequence with the longest prefix in common, which is a neighbour in sorted order."""
    index = bisect_left(placed, place)
    best = (-1, 0)
    for other in placed[max(0, index - 1) : index + 1]:
        low, high = min(other, place), max(other, place)
        common = int(shared[low + 1 : high + 1].min())
        if common > best[1]:
            best = (other, common)
    return best


def _head(path: tuple[Span, ...], tokens: int) -> tuple[Span, ...]:
    """First tokens of a path, with spans that touch joined into one."""
    head: list[Span] = []
    for start, length in path:
        take = min(length, tokens)
        tokens -= take
        if head and sum(head[-1]) == start:
            head[-1] = (head[-1][0], head[-1][1] + take)
        elif take:
            head.append((start, take))
        if not tokens:
            break
    return tuple(head)
