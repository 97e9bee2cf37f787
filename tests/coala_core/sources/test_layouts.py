import hashlib

import pytest

from coala_core.config import TripletsConfig
from coala_core.sources import Conversation, Fault, Preference, Row, RowError, Turn, parse_row

TEXTS = ["Why?", "Because.", "And then?", "After that."]
TURNS = tuple(Turn(role, text) for role, text in zip(["user", "assistant"] * 2, TEXTS, strict=True))


def chat(speakers, speaker="role", text="content"):
    return [{speaker: name, text: said} for name, said in zip(speakers, TEXTS, strict=True)]


def parse(content, **settings):
    return parse_row(Row(7, content), TripletsConfig(**settings))


@pytest.mark.parametrize(
    ("layout", "content"),
    [
        ("EduFeedback", {"utterances": [list(p) for p in zip(["agent2", "agent1"] * 2, TEXTS, strict=True)]}),
        ("messages", {"messages": chat(["user", "assistant"] * 2)}),
        ("messages", {"messages": chat(["student", "tutor", "Student", "teacher"])}),
        ("ShareGPT", {"conversations": chat(["human", "gpt"] * 2, "from", "value")}),
        ("ShareGPT", {"conversations": chat(["user", "assistant"] * 2, "from", "value")}),
        ("history", {"history": TEXTS}),
    ],
)
def test_one_dialogue_reads_alike_in_every_layout(layout, content):
    found = parse({"id": "a"} | content)
    assert found == Conversation("a", "a", TURNS, {"id": "a"}, 7, layout)


def test_a_system_turn_and_a_leading_tutor_turn_are_kept():
    found = parse({"messages": [{"role": "system", "content": "Be kind."}, {"role": "tutor", "content": "Hello!"}]
                   + chat(["student", "tutor"] * 2)})  # fmt: skip
    assert found.turns == (Turn("system", "Be kind."), Turn("assistant", "Hello!"), *TURNS)


def test_texts_are_kept_verbatim():
    assert parse({"history": [" a\n", "b ", "\tc", "d\u2028"]}).turns[0].text == " a\n"


def test_a_row_with_both_responses_is_a_preference_whatever_else_it_holds():
    found = parse(
        {"prompt_id": 5, "prompt": "p", "chosen": "a", "rejected": "b", "messages": chat(["user", "assistant"] * 2)}
    )
    assert isinstance(found, Preference)
    assert (found.conversation_id, found.pair_id, found.key) == ("5", "5#1", "5")


def test_a_ready_pair_may_name_itself_within_its_conversation():
    found = parse({"conversation_id": "c", "pair_id": "c#4", "prompt": "p", "chosen": "a", "rejected": "b"})
    assert (found.conversation_id, found.group, found.pair_id, found.key) == ("c", "c", "c#4", "c#4")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"conversation_id": "c", "id": "i", "uid": "u", "prompt_id": "p"}, "c"),
        ({"id": 12, "uid": "u"}, "12"),
        ({"id": None, "uid": "u"}, "u"),
        ({"id": "  ", "prompt_id": "p"}, "p"),
        ({"id": {"nested": 1}, "uid": "u"}, "u"),
    ],
)
def test_the_first_id_present_names_the_row(names, expected):
    assert parse(names | {"history": TEXTS}).conversation_id == expected


def test_without_an_id_the_content_is_digested():
    plain = '[["user","Why?"],["assistant","Because."],["user","And then?"],["assistant","After that."]]'
    expected = hashlib.sha256(plain.encode()).hexdigest()[:24]
    assert parse({"history": TEXTS}).conversation_id == expected
    assert parse({"messages": chat(["user", "assistant"] * 2), "topic": "x"}).conversation_id == expected
    assert parse({"history": [*TEXTS[:3], "Other."]}).conversation_id != expected


def test_scalar_fields_are_kept_and_one_of_them_can_be_the_group():
    content = {"id": "a", "field": "art", "year": 1900, "score": 0.5, "tags": ["x"], "meta": {}, "none": None}
    found = parse(content | {"history": TEXTS}, group_by="year")
    assert found.fields == {"id": "a", "field": "art", "year": 1900, "score": 0.5}
    assert found.group == "1900"


@pytest.mark.parametrize("value", [None, " ", float("nan"), ["x"]])
def test_a_row_without_its_group_is_refused(value):
    with pytest.raises(RowError, match="no value in the field 'title' to group by") as caught:
        parse({"title": value, "history": TEXTS}, group_by="title")
    assert caught.value.fault is Fault.NO_GROUP


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"text": "x", "label": 1}, "the fields fit no known layout: `text`, `label`"),
        ({}, "the fields fit no known layout: none"),
        ({"chosen": "only one side"}, "fit no known layout: `chosen`"),
        ({"messages": "text"}, "`messages` is a str, not a list"),
        ({"messages": ["text"]}, "turn 1 of `messages` is neither"),
        ({"messages": [{"role": "user"}]}, "turn 1 of `messages` is neither"),
        ({"utterances": [["agent2", "a", "b"]]}, r"turn 1 of `utterances` is not a \[speaker, text\] pair"),
    ],
)
def test_an_unknown_layout_is_refused(content, message):
    with pytest.raises(RowError, match=message) as caught:
        parse(content)
    assert caught.value.fault is Fault.UNKNOWN_LAYOUT
