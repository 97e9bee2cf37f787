"""Blocks: Arrow gets exactly the triplets, in bounded pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.sources import Turn
from coala_core.triplets import TRIPLET_SCHEMA, Triplet, columns
from coala_core.triplets.columns import TripletBlock

words = st.text(max_size=6)
turns = st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), words)
prompts = st.lists(turns, min_size=1, max_size=4).map(tuple)
triplets = st.builds(Triplet, words, words, words, st.integers(1, 99), st.integers(2, 99), prompts, words, words)


def triplet(number, text="text"):
    return Triplet("c", f"c#{number}", "g", number, number + 1, (Turn("user", text),), text, text)


@settings(deadline=None, max_examples=50)
@given(st.lists(triplets, min_size=1, max_size=8))
def test_a_block_gives_back_what_was_added(added):
    block = TripletBlock()
    assert all(block.add(one) for one in added)
    batch = block.batch()
    batch.validate(full=True)
    assert batch.schema == TRIPLET_SCHEMA
    assert len(block) == len(added)
    assert batch.to_pylist() == [
        {
            "conversation_id": one.conversation_id,
            "pair_id": one.pair_id,
            "group": one.group,
            "turn": one.turn,
            "prompt": [{"role": turn.role, "content": turn.text} for turn in one.prompt],
            "chosen": [{"role": "assistant", "content": one.chosen}],
            "rejected": [{"role": "assistant", "content": one.rejected}],
        }
        for one in added
    ]


def test_a_block_ends_at_its_number_of_rows(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_ROWS", 2)
    block = TripletBlock()
    assert [block.add(triplet(number)) for number in (1, 2, 3)] == [True, True, False]
    assert block.batch()["pair_id"].to_pylist() == ["c#1", "c#2"]


@pytest.mark.parametrize(("characters", "kept"), [(23, 1), (24, 2)])
def test_a_block_ends_where_the_texts_would_be_too_long(monkeypatch, characters, kept):
    monkeypatch.setattr(columns, "BLOCK_CHARACTERS", characters)
    block = TripletBlock()
    # 12 characters each: four of the prompt and of either reply
    assert [block.add(triplet(number)) for number in (1, 2, 3)] == [True, kept == 2, False]
    assert len(block) == kept


def test_a_triplet_that_is_too_long_for_any_block_has_one_of_its_own(monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_CHARACTERS", 10)
    block = TripletBlock()
    assert block.add(triplet(1))
    assert not block.add(triplet(2, text=""))
