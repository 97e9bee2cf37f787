import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.config import TripletsConfig
from coala_core.sources import Fault, RowError, Turn
from coala_core.sources.preferences import parse_preference, split_shared_prompt
from tests.coala_core.sources.reading import parse, read, read_rows_of, said, split

LIMITS = TripletsConfig(identical_pairs="reject")
ASK = {"role": "user", "content": "Why is the sky blue?"}
GOOD = {"role": "assistant", "content": "Air scatters short waves most."}
BAD = {"role": "assistant", "content": "It mirrors the sea."}
RULES = {"role": "system", "content": "Be brief."}
EXPECTED = ((Turn("user", ASK["content"]),), GOOD["content"], BAD["content"])


@pytest.mark.parametrize(
    ("layout", "row"),
    [
        ("standard explicit", {"prompt": ASK["content"], "chosen": GOOD["content"], "rejected": BAD["content"]}),
        ("conversational explicit", {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}),
        ("conversational explicit", {"prompt": ASK["content"], "chosen": [GOOD], "rejected": [BAD]}),
        ("conversational implicit", {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}),
        ("conversational implicit", {"prompt": "any", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}),
    ],
)
def test_one_pair_reads_alike_in_every_layout(layout, row):
    pair = parse_preference(row, LIMITS)
    assert pair.layout == f"preference, {layout}"
    assert pair[1:4] == EXPECTED


def test_standard_implicit_takes_the_shared_beginning_as_prompt():
    row = {"chosen": "Q: two plus two?\nA: four, of course", "rejected": "Q: two plus two?\nA: five"}
    pair = parse_preference(row, LIMITS)
    # both go on with "f", so the longest common prefix ends inside a word and is cut back to the space
    assert pair == (
        "preference, standard implicit",
        (Turn("user", "Q: two plus two?\nA: "),),
        "four, of course",
        "five",
        "",
    )


def test_a_prompt_may_hold_system_and_earlier_turns():
    later = {"role": "user", "content": "And at dusk?"}
    pair = parse_preference(
        {"chosen": [RULES, ASK, GOOD, later, BAD], "rejected": [RULES, ASK, GOOD, later, GOOD]}, LIMITS
    )
    assert [turn.role for turn in pair.prompt] == ["system", "user", "assistant", "user"]
    assert (pair.chosen, pair.rejected) == (BAD["content"], GOOD["content"])


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("What now? Go home", "What now? Go", "What now? "),  # the shorter is a prefix: neither response may be empty
        ("天空为何是蓝的？散射。", "天空为何是蓝的？海。", "天空为何是蓝的？"),
        ("Say so:\nno\n", "Say so:\nyes\n", "Say so:\n"),
    ],
)
def test_the_prompt_ends_at_a_word(chosen, rejected, prompt):
    assert split_shared_prompt(chosen, rejected) == (prompt, chosen[len(prompt) :], rejected[len(prompt) :])


texts = st.text(alphabet="ab \n。", max_size=12)


@given(texts, texts, texts)
def test_splitting_loses_nothing_and_keeps_words_whole(prompt, one, other):
    chosen, rejected = prompt + one, prompt + other
    try:
        shared, ours, theirs = split_shared_prompt(chosen, rejected)
    except RowError as error:
        assert error.fault in (Fault.EQUAL_RESPONSES, Fault.NO_SHARED_PROMPT)
        return
    assert (shared + ours, shared + theirs) == (chosen, rejected)
    assert shared.strip() and ours.strip() and theirs.strip()
    assert shared[-1].isspace() or shared[-1] == "。"


@pytest.mark.parametrize(
    ("row", "fault", "message"),
    [
        ({"chosen": "p a", "rejected": "p a"}, Fault.EQUAL_RESPONSES, "the same text"),
        ({"chosen": "yes", "rejected": "no"}, Fault.NO_SHARED_PROMPT, "there is no `prompt`"),
        ({"chosen": [GOOD], "rejected": [BAD]}, Fault.NO_SHARED_PROMPT, "do not begin with the same messages"),
        ({"prompt": "p", "chosen": "a", "rejected": [BAD]}, Fault.UNKNOWN_LAYOUT, "must both be .* got str and list"),
        ({"prompt": 5, "chosen": "a", "rejected": "b"}, Fault.UNKNOWN_LAYOUT, "`prompt` is a int, not a list"),
        ({"prompt": "p", "chosen": None, "rejected": "b"}, Fault.UNKNOWN_LAYOUT, "got NoneType and str"),
        ({"prompt": [ASK, GOOD | {"content": " "}], "chosen": "a", "rejected": "b"}, Fault.EMPTY, "turn 2 of `prompt`"),
        ({"chosen": [ASK | {"content": ""}, GOOD], "rejected": [ASK, BAD]}, Fault.EMPTY, "turn 1 of `chosen` is empty"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, Fault.EMPTY, "`prompt` is empty"),
        ({"prompt": [ASK], "chosen": [], "rejected": [BAD]}, Fault.EMPTY, "`chosen` holds no turns"),
        ({"prompt": [ASK], "chosen": [ASK], "rejected": [BAD]}, Fault.NOT_ONE_RESPONSE, "`chosen` .* got user"),
        ({"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD, ASK]}, Fault.NOT_ONE_RESPONSE, "got assistant, user"),
        ({"chosen": [ASK, GOOD], "rejected": [ASK]}, Fault.NOT_ONE_RESPONSE, "`rejected` .* got none"),
    ],
)
def test_what_is_no_pair_is_refused(row, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        parse_preference(row, LIMITS)
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    ("row", "fault", "message"),
    [
        ({"prompt": "p", "chosen": "same ", "rejected": " same"}, Fault.EQUAL_RESPONSES, "the same response"),
        ({"chosen": [ASK, GOOD], "rejected": [ASK, GOOD]}, Fault.EQUAL_RESPONSES, "the same response"),
        ({"prompt": "p", "chosen": "", "rejected": " \n"}, Fault.EMPTY, "`chosen` and `rejected` are both empty"),
        ({"prompt": [RULES], "chosen": [GOOD], "rejected": [BAD]}, Fault.NO_STUDENT, "no turn is the student's"),
        ({"prompt": [ASK, GOOD], "chosen": [GOOD], "rejected": [BAD]}, Fault.NOT_ALTERNATING, "turns 2 and 3"),
        ({"prompt": [ASK, RULES], "chosen": [GOOD], "rejected": [BAD]}, Fault.SYSTEM_NOT_FIRST, "turn 2"),
    ],
)
def test_what_states_no_preference_is_refused(row, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        parse(row, identical_pairs="reject")
    assert caught.value.fault is fault


def test_identical_responses_are_kept_where_the_configuration_keeps_them():
    pair = parse({"chosen": [ASK, GOOD], "rejected": [ASK, GOOD]})
    assert (pair.prompt, pair.chosen, pair.rejected) == (EXPECTED[0], GOOD["content"], GOOD["content"])


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "a", "rejected": ""},
        {"prompt": "p", "chosen": [GOOD], "rejected": [GOOD | {"content": ""}]},
        {"chosen": [ASK, GOOD], "rejected": [ASK, GOOD | {"content": ""}]},
    ],
)
def test_one_response_may_be_empty(row):
    assert parse(row).rejected == ""


def test_ultrafeedback_as_the_hub_has_it():
    (first, second), rejects = split(read("ultrafeedback_hub.jsonl"))
    question = said("U", "Name a prime above ten.")
    assert (first.prompt, first.chosen, first.rejected) == (question, "Eleven.", "Twelve.")
    assert first.fields == {"prompt_id": "p1", "score_chosen": 9.0, "score_rejected": 2.0}
    # a prompt_id names the prompt: another pair on it is no duplicate
    assert (second.chosen, second.rejected, second.group) == ("Thirteen.", "", "p1")
    assert rejects == {}
    (trl,) = read("ultrafeedback_trl.jsonl")
    assert (trl.prompt, trl.chosen, trl.rejected) == (question, "Eleven.", "Twelve.")


def test_pairs_of_one_prompt_share_their_group_and_one_pair_comes_once(tmp_path):
    rows = [{"prompt": "p", "chosen": "a", "rejected": text} for text in ("b", "c", "b")]
    (one, two), rejects = split(read_rows_of(tmp_path, *rows))
    assert one.group == two.group == one.conversation_id
    assert rejects[3].fault is Fault.DUPLICATE_ID
