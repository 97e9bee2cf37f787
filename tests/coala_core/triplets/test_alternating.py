"""Counts, order and content of the triplets of one conversation, for every variant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.sources import Conversation, Turn
from coala_core.triplets import alternating_triplets

variants = st.tuples(st.sampled_from(["adjacent", "all_later", "window"]), st.integers(1, 15))


def conversation(*turns, group="g"):
    roles = {"S": "system", "U": "user", "A": "assistant"}
    return Conversation("c", group, tuple(Turn(roles[text[0]], text) for text in turns), {}, 1, "messages")


def test_the_window_slides_over_replies():
    first, second = alternating_triplets(conversation("S", "A0", "U1", "A1", "U2", "A2", "U3", "A3", "U4"))
    assert (first.pair_id, first.turn, first.later, first.group, first.conversation_id) == ("c#1", 1, 2, "g", "c")
    assert [turn.text for turn in first.prompt] == ["S", "A0", "U1"]
    assert (first.chosen, first.rejected) == ("A1", "A2")
    assert (second.pair_id, second.turn, second.later) == ("c#2", 2, 3)
    assert [turn.text for turn in second.prompt] == ["S", "A0", "U1", "A1", "U2"]
    assert (second.chosen, second.rejected) == ("A2", "A3")


def test_history_turn_keeps_the_system_turn_and_the_students():
    found = alternating_triplets(conversation("S", "U1", "A1", "U2", "A2", "U3", "A3"), history="turn")
    assert [[turn.text for turn in triplet.prompt] for triplet in found] == [["S", "U1"], ["S", "U2"]]
    found = alternating_triplets(conversation("A0", "U1", "A1", "U2", "A2"), history="turn")
    assert [[turn.text for turn in triplet.prompt] for triplet in found] == [["U1"]]


@pytest.mark.parametrize(
    ("pairs", "window", "expected"),
    [
        ("adjacent", 3, {"c#1": "A1 A2", "c#2": "A2 A3", "c#3": "A3 A4"}),
        ("window", 1, {"c#1": "A1 A2", "c#2": "A2 A3", "c#3": "A3 A4"}),
        ("window", 2, {"c#1": "A1 A2", "c#1-3": "A1 A3", "c#2": "A2 A3", "c#2-4": "A2 A4", "c#3": "A3 A4"}),
        (
            "all_later",
            1,
            {"c#1": "A1 A2", "c#1-3": "A1 A3", "c#1-4": "A1 A4", "c#2": "A2 A3", "c#2-4": "A2 A4", "c#3": "A3 A4"},
        ),
    ],
)
def test_the_pairs_of_four_replies(pairs, window, expected):
    dialogue = conversation("U1", "A1", "U2", "A2", "U3", "A3", "U4", "A4")
    found = alternating_triplets(dialogue, pairs=pairs, window=window)
    assert [(triplet.pair_id, f"{triplet.chosen} {triplet.rejected}") for triplet in found] == list(expected.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"history": "last"}, r'\(history=...\)` must be "full" or "turn", got \'last\'; take "full"'),
        ({"pairs": "all"}, r'\(pairs=...\)` must be "adjacent", "all_later" or "window", got \'all\'; take'),
        ({"window": 0}, r"\(window=...\)` must be at least 1, got 0; take 1 for adjacent"),
    ],
)
def test_other_words_are_refused(settings, message):
    with pytest.raises(ValueError, match="`alternating_triplets" + message):
        alternating_triplets(conversation("U1", "A1", "U2", "A2"), **settings)


@st.composite
def conversations(draw):
    replies = draw(st.integers(0, 12))
    body = [text for at in range(1, replies + 1) for text in (f"U{at}", f"A{at}")]
    system, tutor, student = (draw(st.booleans()) for _ in range(3))
    return replies, conversation(*["S"] * system, *["A0"] * tutor, *body, *["U last"] * student)


def count(pairs, window, replies):
    """The formulas of the docstring."""
    if pairs == "adjacent":
        return max(replies - 1, 0)
    if pairs == "all_later":
        return replies * (replies - 1) // 2
    return sum(min(window, replies - i) for i in range(1, replies))


@given(conversations(), variants, st.sampled_from(["full", "turn"]))
def test_counts_follow_the_formula_and_prompts_end_with_the_student(case, variant, history):
    (replies, dialogue), (pairs, window) = case, variant
    found = alternating_triplets(dialogue, history, pairs, window)
    assert len(found) == count(pairs, window, replies)
    assert len({triplet.pair_id for triplet in found}) == len(found)
    numbers = [(triplet.turn, triplet.later) for triplet in found]
    assert numbers == sorted(set(numbers))
    for triplet in found:
        assert (triplet.chosen, triplet.rejected) == (f"A{triplet.turn}", f"A{triplet.later}")
        assert triplet.prompt[-1] == Turn("user", f"U{triplet.turn}")
        assert (triplet.pair_id == f"c#{triplet.turn}") == (triplet.later == triplet.turn + 1)
        if history == "full":
            assert dialogue.turns[: len(triplet.prompt)] == triplet.prompt
            assert dialogue.turns[len(triplet.prompt)].text == triplet.chosen


@given(conversations(), variants)
def test_every_reply_but_the_last_is_chosen_and_every_one_but_the_first_rejected(case, variant):
    (replies, dialogue), (pairs, window) = case, variant
    found = alternating_triplets(dialogue, "full", pairs, window)
    chosen, rejected = [triplet.chosen for triplet in found], [triplet.rejected for triplet in found]
    assert set(chosen) == {f"A{at}" for at in range(1, replies)}
    assert set(rejected) == {f"A{at}" for at in range(2, replies + 1)}
    if pairs == "adjacent":
        assert len(set(chosen)) == len(chosen)
        assert len(set(rejected)) == len(rejected)


@given(conversations(), st.integers(1, 15))
def test_the_variants_contain_one_another(case, window):
    replies, dialogue = case
    adjacent, all_later, some = (
        alternating_triplets(dialogue, "full", pairs, window) for pairs in ("adjacent", "all_later", "window")
    )
    assert set(adjacent) <= set(some) <= set(all_later)
    assert window > 1 or some == adjacent
    assert window < replies - 1 or some == all_later
