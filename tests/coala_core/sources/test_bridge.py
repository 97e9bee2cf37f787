import pytest

from coala_core.sources import Fault, RowError
from tests.coala_core.sources.reading import parse, read, said, split

MESSAGE = {"user": "tutor", "text": "Try again."}
ROW = {"c_id": "5_2", "c_h": [{"user": "student", "text": "7"}], "c_r": [MESSAGE | {"text": "No."}], "c_r_": [MESSAGE]}


def test_bridge_sets_the_experts_rewrite_against_the_novices_reply():
    (first, second, third), rejects = split(read("bridge.json"))
    assert first.prompt == said("SAU", "Lesson topic: Areas", "Look at the rectangle.\nWhat is 3 times 4?", "7")
    assert (first.chosen, first.rejected) == ("You added. Can you multiply?", "No. It is 12.")
    assert (first.conversation_id, first.group, first.pair_id) == ("31", "31", "31_4#bridge.json:1")
    # one context, rewritten alike by two experts: two pairs of one session
    assert second.prompt == first.prompt and second.chosen == first.chosen
    assert (second.group, second.pair_id) == ("31", "31_4#bridge.json:2")
    # messages without text are left out, and a turn of nothing else says so
    assert third.prompt == said("SUAU", "Lesson topic: Areas", "So 12?", "Yes. And its edge?", "(no text)")
    assert (third.chosen, third.rejected) == ("What is an edge?", "It is 14.")
    assert {row: reject.fault for row, reject in rejects.items()} == {
        4: Fault.NOT_ONE_RESPONSE,
        5: Fault.NOT_ALTERNATING,
        6: Fault.EMPTY,
    }


def test_a_lesson_without_topic_has_no_system_turn_and_any_field_may_group():
    found = parse(ROW | {"z_what": "hint", "lesson_topic": None}, group_by="z_what")
    assert (found.prompt, found.group, found.key) == (said("U", "7"), "hint", "5_2#some.jsonl:7")


@pytest.mark.parametrize(
    ("change", "fault", "message"),
    [
        ({"c_h": [{"text": "7"}]}, Fault.UNKNOWN_LAYOUT, r"message 1 of `c_h` is not \{user, text\}"),
        ({"c_h": "7"}, Fault.UNKNOWN_LAYOUT, "`c_h` is a str, not a list"),
        ({"c_h": [{"user": "nurse", "text": "7"}]}, Fault.UNKNOWN_ROLE, "message 1 of `c_h` is spoken by 'nurse'"),
        ({"c_h": [MESSAGE]}, Fault.NOT_ALTERNATING, "turns 1 and 2"),
        ({"c_r": [MESSAGE | {"text": None}]}, Fault.NOT_TEXT, "message 1 of `c_r` holds a NoneType"),
        ({"c_r": [MESSAGE | {"text": "x" * 9}] * 3}, Fault.LONG_TURN, "`c_r` has 29 characters"),
        ({"c_r": [MESSAGE]}, Fault.EQUAL_RESPONSES, "the same response"),
        ({"c_id": " "}, Fault.MISSING_FIELD, "`c_id` holds no text"),
    ],
)
def test_unusable_contexts_are_refused(change, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        parse(ROW | change, max_turn_characters=20, identical_pairs="reject")
    assert caught.value.fault is fault
