import hashlib
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from coala_core.config import TripletsConfig
from coala_core.config.data import ColumnField, LayoutName
from coala_core.sources import Conversation, Fault, Preference, Row, RowError, Turn, parse_row
from coala_core.sources.fields import ID_FIELDS, ROW_ID_FIELDS
from coala_core.sources.layouts import LAYOUT_FIELDS, LAYOUTS
from coala_core.sources.records import RatedResponse, excerpt_of
from tests.coala_core.sources.reading import parse, read, said, split

TEXTS = ["Why?", "Because.", "And then?", "After that."]
TURNS = tuple(Turn(role, text) for role, text in zip(["user", "assistant"] * 2, TEXTS, strict=True))


def chat(speakers, speaker="role", text="content"):
    return [{speaker: name, text: said} for name, said in zip(speakers, TEXTS, strict=True)]


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
    assert found == Conversation("a", "a", TURNS, {"id": "a"}, 7, layout, "some.jsonl")


def test_a_system_turn_and_a_leading_tutor_turn_are_kept():
    found = parse({"messages": [{"role": "system", "content": "Be kind."}, {"role": "tutor", "content": "Hello!"}]
                   + chat(["student", "tutor"] * 2)})  # fmt: skip
    assert found.turns == (Turn("system", "Be kind."), Turn("assistant", "Hello!"), *TURNS)


def test_texts_are_kept_verbatim():
    assert parse({"history": [" a\n", "b ", "\tc", "d\u2028"]}).turns[0].text == " a\n"


def test_a_row_with_both_responses_is_a_preference_whatever_else_it_holds():
    found = parse(
        {"uid": 5, "prompt": "p", "chosen": "a", "rejected": "b", "messages": chat(["user", "assistant"] * 2)}
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
        ({"text": "x", "title": "y", "label": None}, "the fields fit no known layout: `text`, `title`"),
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


def test_edufeedback_and_logs_as_their_originals_have_them():
    fresco, inertia = read("edufeedback.jsonl", group_by="field")
    assert fresco.turns == said(
        "UAUA", "What is fresco?", "Painting on wet plaster.", "Why wet?", "The pigment binds as it dries."
    )
    assert inertia.turns[:2] == said("AU", "Hello, what shall we revise?", "Inertia.")
    assert (fresco.group, inertia.group, fresco.layout) == ("Art", "Physics", "EduFeedback")
    capitals = said("SUAUA", "Be brief.", "Capital of Peru?", "Lima.", "Of Chile?", "Santiago.")
    (log,), rejects = split(read("sharegpt.json"))
    assert (log.turns, log.conversation_id, log.layout) == (capitals, "s1", "ShareGPT")
    assert rejects[2].fault is Fault.FEW_REPLIES
    (chat,) = read("chatml.jsonl")
    assert (chat.turns, chat.layout) == (capitals, "messages")


def test_columns_of_a_csv_file_are_given_the_names_of_fields():
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    first, second = read("pairs.csv", columns=columns, group_by="topic")
    assert (first.prompt, first.chosen, first.rejected) == (said("U", "What is 2 + 2, please?"), "4", "5, I think")
    assert (first.group, second.chosen) == ("maths", 'He said "Goya".')
    lacking = read("pairs.csv", columns=columns | {"rejected": "worst"})
    assert {reject.fault for reject in lacking} == {Fault.MISSING_FIELD}
    names = "`topic`, `question`, `better`, `worse`"
    assert lacking[0].reason == f"the row has no column `worst` for the field `rejected`, only {names}"


def test_columns_rename_in_every_format_and_can_name_the_id():
    found = parse({"talk": TEXTS, "no": 4}, columns={"history": "talk", "id": "no"})
    assert (found.turns, found.conversation_id, found.fields) == (TURNS, "4", {"id": 4})


def test_a_cell_may_hold_a_list_as_json():
    (found,), rejects = split(read("dialogues.csv"))
    assert found.turns == said("UAUA", "Hi", "Hello", "Bye", "Bye!")
    assert {row: reject.fault for row, reject in rejects.items()} == {2: Fault.NOT_JSON, 3: Fault.UNKNOWN_LAYOUT}
    assert rejects[2].reason.startswith("`messages` is a text that begins like a JSON list: ")


@pytest.mark.parametrize("cell", ["[" * 100_000, r'["\ud800", "a", "b", "c"]', "[]", "[1, 2]"])
def test_a_hostile_cell_is_refused(cell):
    with pytest.raises(RowError):
        parse({"history": cell})


def test_a_response_that_looks_like_json_stays_text():
    assert parse({"prompt": "p", "chosen": "[1]", "rejected": "[2]"}).chosen == "[1]"


def test_the_settings_name_every_layout_and_field():
    assert get_args(LayoutName) == ("auto", *LAYOUTS)
    assert set(get_args(ColumnField)) == LAYOUT_FIELDS | {*ID_FIELDS, *ROW_ID_FIELDS, "pair_id"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layout": "hhh"}, "Input should be 'auto', 'hh', 'preference', .* or 'imdb'"),
        ({"columns": {"promt": "q"}}, "Input should be 'conversation_id', .*'prompt'.* or 'text'"),
        ({"columns": {"prompt": 3}}, "Input should be a valid string"),
    ],
)
def test_impossible_names_fail_at_the_door(setting, message):
    with pytest.raises(ValidationError, match=message):
        TripletsConfig(**setting)


BOTH = {"prompt": "p", "chosen": "a", "rejected": "b", "history": TEXTS}


def test_a_forced_layout_is_the_one_that_is_read():
    assert isinstance(parse(BOTH), Preference)
    assert parse(BOTH, layout="history").turns == TURNS
    assert parse({"prompt": "p", "completion": "c", "label": 1, "text": "t"}, layout="imdb").response == "t"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_row_lacks_of_a_forced_layout_is_said(layout):
    with pytest.raises(RowError, match=f"the layout {layout} needs `.* the row lacks `.*, having `x`") as caught:
        parse({"x": 1}, layout=layout)
    assert caught.value.fault is Fault.MISSING_FIELD


def test_the_missing_fields_are_named():
    with pytest.raises(RowError) as caught:
        parse({"input": "p", "output_1": "a", "output_2": None}, layout="llmbar")
    needs, lacks = "`input`, `output_1`, `output_2`, `label`", "`output_2`, `label`"
    has = "`input`, `output_1`, `output_2`"
    assert str(caught.value) == f"the layout llmbar needs {needs}, and the row lacks {lacks}, having {has}"


texts = st.text(st.characters(), max_size=8)  # lone surrogates included
names = st.sampled_from([*get_args(ColumnField), "helpfulness", "role", "content", "from", "value", "user", "text"])
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["user", "agent1", "[]", "[{}]"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | texts, inner, max_size=4),
    max_leaves=10,
)
dialogues = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": scalars})
    | st.tuples(st.sampled_from(["agent1", "agent2"]), scalars).map(list)
    | st.fixed_dictionaries({"user": st.sampled_from(["tutor", "student"]), "text": scalars}),
    max_size=5,
)
beside = ("prompt", "helpfulness", "id", "pair_id", "lesson_topic")
layouts = st.sampled_from(list(LAYOUTS)).flatmap(
    lambda name: st.fixed_dictionaries(
        {field: scalars | dialogues for field in LAYOUTS[name].needs},
        optional={field: scalars | dialogues for field in beside if field not in LAYOUTS[name].needs},
    )
)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@settings(max_examples=150)
@given(layouts | st.dictionaries(names | texts, values, max_size=6), st.sampled_from(get_args(LayoutName)))
@example({"chosen": "\n\nHuman:", "rejected": "\n\nHuman:"}, "auto")
@example({"prompt": "p", "completion": "\ud800", "label": True}, "auto")
@example({"id": "\ud800", "text": "p", "label": 1}, "auto")
def test_any_object_gives_a_record_or_a_row_error(content, layout):
    try:
        record = parse_row(Row(1, content), TripletsConfig(layout=layout))
    except RowError as error:
        str(error).encode("utf-8")
    else:
        assert isinstance(record, Conversation | Preference | RatedResponse)
    excerpt_of(content).encode("utf-8")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_deep_nest_is_a_row_error(layout):
    deep = nested(50_000)
    needs = LAYOUTS[layout].needs
    for content in ({field: deep for field in needs}, {field: [{"role": deep, "content": deep}] for field in needs}):
        with pytest.raises(RowError):
            parse(content | {"helpfulness": deep}, layout=layout)
        assert len(excerpt_of(content)) == 200
