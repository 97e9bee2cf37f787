import pytest

from coala_core.sources import Fault, RowError
from tests.coala_core.sources.reading import parse, read, rows_of, said, split


def test_the_best_response_of_helpsteer_is_set_against_each_lower_one():
    items = read("helpsteer.jsonl")
    (cold, ice), rejects = split(items)
    # scores 4, 1, 3, 4: the first of the best against 1 and 3
    assert cold.prompt == ice.prompt == said("U", "Why is snow white?")
    assert (cold.chosen, cold.rejected, cold.row, cold.rows) == ("It scatters all light.", "It is cold.", 1, 2)
    assert (ice.chosen, ice.rejected, ice.row, ice.rows) == ("It scatters all light.", "Because ice is.", 1, 1)
    assert ice.group == cold.group == cold.conversation_id
    faults = {row: reject.fault for row, reject in rejects.items()}
    assert faults == {4: Fault.TIED_SCORES, 5: Fault.TIED_SCORES, 6: Fault.TIED_SCORES, 7: Fault.NO_PARTNER}
    assert rejects[4].reason == "`helpfulness` is 4 in rows 1 and 4, the best of their prompt"
    assert rows_of(items) == 7


def test_another_attribute_gives_other_pairs():
    pairs, rejects = split(read("helpsteer.jsonl", score="verbosity"))
    assert {pair.chosen for pair in pairs} == {"All light is scattered."}
    assert [pair.rejected for pair in pairs] == ["It scatters all light.", "It is cold.", "Because ice is."]
    # the pair's first row is the one that came first, chosen or not
    assert [(pair.row, pair.rows) for pair in pairs] == [(1, 2), (2, 1), (3, 1)]
    assert rejects.keys() == {5, 6, 7}


def test_marked_prompts_of_helpsteer2_are_divided_into_turns():
    (rain, mark), rejects = split(read("helpsteer2.jsonl"))
    assert rain.prompt == said("UAU", "What is rain?", "Water that falls.", "And hail?")
    assert mark.prompt == said("U", "Explain the mark <extra_id_1> of T5.")
    assert rejects[5].fault is Fault.BAD_SCORE
    remedy = "`triplets.score` can name one of its other fields: `correctness`"
    assert rejects[5].reason == f"the row has no score `helpfulness`; {remedy}"


U, A = "<extra_id_1>User\n", "<extra_id_1>Assistant\n"


@pytest.mark.parametrize(
    ("prompt", "turns"),
    [
        (f"a\n{A}b\n{U}c", said("UAU", "a", "b", "c")),
        (f"{U}a\n{A}b\n\n{U}c\nd", said("UAU", "a", "b\n", "c\nd")),
        (f"a\n{A}b\n{U}c\n{A}", said("UAU", "a", "b", "c")),  # the cue for the response
        (f"{U}a", said("U", "a")),
        (f"a\n{U}b", said("U", f"a\n{U}b")),
        (f"a\n{A}b", said("U", f"a\n{A}b")),
        (f"{A}a\n{U}b", said("U", f"{A}a\n{U}b")),
        (f"a\n{A} \n{U}b", said("U", f"a\n{A} \n{U}b")),
        (f"a {A}b\n{U}c", said("U", f"a {A}b\n{U}c")),
    ],
)
def test_prompts_are_divided_only_where_the_marks_make_a_dialogue(prompt, turns):
    assert parse({"prompt": prompt, "response": "r", "helpfulness": 1}).prompt == turns


@pytest.mark.parametrize("score", [3, 3.0, "3", " 3 "])
def test_scores_may_be_texts(score):
    assert parse({"prompt": "p", "response": "r", "helpfulness": score}).worth == 3


@pytest.mark.parametrize(
    ("change", "fault", "message"),
    [
        ({"helpfulness": True}, Fault.BAD_SCORE, "must be a finite number, got a bool"),
        ({"helpfulness": "high"}, Fault.BAD_SCORE, "got a str"),
        ({"helpfulness": float("inf")}, Fault.BAD_SCORE, "got a float"),
        ({"helpfulness": 10**400}, Fault.BAD_SCORE, "got a int"),
        ({"helpfulness": [4]}, Fault.BAD_SCORE, "got a list"),
        ({"helpfulness": None}, Fault.BAD_SCORE, "has no score `helpfulness`.* other fields: none"),
        ({"response": 5}, Fault.NOT_TEXT, "`response` holds a int"),
        ({"prompt": "\n"}, Fault.EMPTY, "`prompt` is empty"),
    ],
)
def test_unusable_rows_are_refused(change, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        parse({"prompt": "p", "response": "r", "helpfulness": 4} | change)
    assert caught.value.fault is fault
