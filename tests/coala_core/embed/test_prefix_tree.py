"""Packed prefix trees: every sequence is there, every shared token once, and the cuts are the best there are."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coala_core.embed.prefix_tree import PackedBatch, SortedSequences, common_prefix, pack_batches

BATCH_COST = 16
"""What a batch costs beside its tokens, in tokens."""

tokens = st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple)
"""Of an alphabet of two, so that prefixes are shared, sequences equal and some are prefixes of others."""
forests = st.lists(tokens, min_size=1, max_size=14)

EQUAL = [(1, 2, 3)] * 4
NESTED = [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 5), (1, 2, 5, 6)]


def trie(sequences: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Nodes of the forest: every distinct prefix."""
    return {sequence[:stop] for sequence in sequences for stop in range(1, len(sequence) + 1)}


def positions_of(path: tuple[tuple[int, int], ...]) -> list[int]:
    return [position for start, length in path for position in range(start, start + length)]


def check_batch(batch: PackedBatch, sequences: list[tuple[int, ...]]) -> None:
    """Check what makes a packed row compute each sequence as if it were alone, by plain loops."""
    ids, places = batch.token_ids.tolist(), batch.positions.tolist()
    members = [sequences[row] for row in batch.rows]
    before: dict[int, list[int]] = {}
    for chain in batch.chains:
        prefix = positions_of(chain.prefix)
        assert chain.depth == len(prefix)
        assert chain.length >= 1
        assert all(one[0] + one[1] != two[0] for one, two in pairwise(chain.prefix)), "spans that touch are joined"
        for position in range(chain.start, chain.start + chain.length):
            assert position not in before, "a position is in one chain"
            before[position] = prefix + list(range(chain.start, position))
            assert max(before[position], default=-1) < position, "what a token sees comes before it"
    assert sorted(before) == list(range(len(ids))), "every position is in a chain"
    for member, path in zip(members, batch.paths, strict=True):
        own = positions_of(path)
        assert tuple(ids[position] for position in own) == member
        assert [places[position] for position in own] == list(range(len(member)))
        for index, position in enumerate(own):
            assert before[position] == own[:index], "a token sees its own sequence, in order, and nothing else"
    assert len(ids) == len(trie(members)), "no token of a batch is there twice"
    assert batch.attended == sum(len(node) for node in trie(members)), "a node sees its path and itself"


@settings(max_examples=150, deadline=None)
@given(sequences=forests, budget=st.integers(1, 60))
@example(sequences=EQUAL, budget=2)
@example(sequences=EQUAL, budget=3)
@example(sequences=NESTED, budget=4)
@example(sequences=[(0,)], budget=1)
def test_every_sequence_is_read_back_and_sees_itself_only(sequences: list[tuple[int, ...]], budget: int) -> None:
    batches = pack_batches(sequences, budget)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(sequences)))
    for batch in batches:
        check_batch(batch, sequences)
        assert len(batch.token_ids) <= budget or len(batch.rows) == 1
        assert batch.token_ids.dtype == batch.positions.dtype == np.int64
    sizes = [len(batch.token_ids) for batch in batches]
    assert sizes == sorted(sizes, reverse=True)


@settings(max_examples=150, deadline=None)
@given(sequences=forests)
@example(sequences=EQUAL)
@example(sequences=NESTED)
def test_with_room_for_all_each_distinct_token_is_computed_once(sequences: list[tuple[int, ...]]) -> None:
    nodes = len(trie(sequences))
    assert SortedSequences(sequences).distinct == nodes
    (batch,) = pack_batches(sequences, budget=nodes)
    assert len(batch.token_ids) == nodes
    if nodes > max(map(len, sequences)):
        assert len(pack_batches(sequences, budget=nodes - 1)) > 1


def cheapest(sequences: list[tuple[int, ...]], budget: int) -> int:
    """Fewest tokens, plus the cost of the batches, over all ways to cut the sorted sequences."""
    ordered = sorted(sequences)
    best = None
    for cuts in range(len(ordered)):
        for inner in combinations(range(1, len(ordered)), cuts):
            parts = [ordered[start:stop] for start, stop in pairwise((0, *inner, len(ordered)))]
            sizes = [len(trie(part)) for part in parts]
            if all(size <= budget or len(part) == 1 for size, part in zip(sizes, parts, strict=True)):
                cost = sum(sizes) + BATCH_COST * len(parts)
                best = cost if best is None else min(best, cost)
    assert best is not None
    return best


LONG = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(
    lambda bits: tuple(bit for bit in bits for _ in range(9))
)
"""Runs of nine equal tokens, so that a repeated prefix may cost more than a batch."""


@settings(max_examples=80, deadline=None)
@given(sequences=st.lists(LONG, min_size=1, max_size=7), budget=st.integers(9, 120))
def test_no_other_cut_of_the_sorted_sequences_is_cheaper(sequences: list[tuple[int, ...]], budget: int) -> None:
    batches = pack_batches(sequences, budget)
    cost = sum(len(batch.token_ids) for batch in batches) + BATCH_COST * len(batches)
    assert cost == cheapest(sequences, budget)


def test_a_conversation_is_cut_where_little_is_shared() -> None:
    # Two conversations of 40 tokens with three branches of 4 each: 52 tokens together.
    first = [tuple(range(100, 140)) + (branch,) * 4 for branch in (1, 2, 3)]
    second = [tuple(range(200, 240)) + (branch,) * 4 for branch in (1, 2, 3)]
    mixed = [sequence for pair in zip(first, second, strict=True) for sequence in pair]
    batches = pack_batches(mixed, budget=60)
    assert [set(batch.rows) for batch in batches] == [{0, 2, 4}, {1, 3, 5}]
    assert [len(batch.token_ids) for batch in batches] == [52, 52]


def test_a_trunk_is_one_chain_and_its_branches_hang_on_it() -> None:
    trunk = (7, 8, 9, 10)
    (batch,) = pack_batches([(7, 8, 5), trunk, (7, 8, 5, 6, 6), (3,)], budget=100)
    # Longest first: 7 8 5 6 6; then the trunk's own 9 10, which sees 7 8; then 3, a root. 7 8 5 adds nothing.
    assert batch.token_ids.tolist() == [7, 8, 5, 6, 6, 9, 10, 3]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 2, 3, 0]
    assert [(chain.prefix, chain.start, chain.length) for chain in batch.chains] == [
        ((), 0, 5),
        (((0, 2),), 5, 2),
        ((), 7, 1),
    ]
    assert dict(zip(batch.rows, batch.paths, strict=True)) == {
        0: ((0, 3),),
        1: ((0, 2), (5, 2)),
        2: ((0, 5),),
        3: ((7, 1),),
    }
    # 1 + 2 + 3 + 4 + 5 for the longest, 3 + 4 for the trunk's own tokens, 1 for the root.
    assert batch.attended == 23


@pytest.mark.parametrize(
    ("one", "two", "common"),
    [([], [1], 0), ([1], [2], 0), ([1, 2], [1, 2], 2), ([1, 2], [1, 2, 3], 2), ([1, 2, 3, 4], [1, 2, 9, 4], 2)],
)
def test_the_common_prefix_ends_where_the_tokens_differ(one: list[int], two: list[int], common: int) -> None:
    arrays = np.array(one, dtype=np.int64), np.array(two, dtype=np.int64)
    assert common_prefix(*arrays) == common_prefix(*arrays[::-1]) == common


def test_packing_does_not_depend_on_the_order_of_the_sequences() -> None:
    rng = np.random.default_rng(0)
    sequences = [tuple(rng.integers(0, 3, size=rng.integers(1, 9)).tolist()) for _ in range(60)]
    sequences = sorted(set(sequences))
    shuffled = [sequences[i] for i in rng.permutation(len(sequences))]
    one, two = ([batch.token_ids.tolist() for batch in pack_batches(s, 50)] for s in (sequences, shuffled))
    assert sorted(one) == sorted(two)


def test_nothing_needs_no_batch() -> None:
    assert pack_batches([], budget=10) == []
    assert SortedSequences([]).distinct == 0
