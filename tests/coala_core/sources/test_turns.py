import pytest

from coala_core.config import TripletsConfig
from coala_core.sources import Fault, RowError, Turn
from coala_core.sources.turns import SPEAKERS, check_dialogue, role_of, text_of
from tests.coala_core.sources.reading import parse


@pytest.mark.parametrize("speaker", ["tool", "agent3", "", None, 1, ["user"]])
def test_unknown_speakers_are_refused(speaker):
    with pytest.raises(RowError, match="turn 1 is spoken by .* no known role") as caught:
        role_of(speaker, "turn 1")
    assert caught.value.fault is Fault.UNKNOWN_ROLE


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_speakers_are_known_in_any_case(speaker):
    assert role_of(f" {speaker.upper()} ", "turn 1") == SPEAKERS[speaker]


@pytest.mark.parametrize(
    ("value", "fault", "message"),
    [
        (None, Fault.NOT_TEXT, "turn 1 holds a NoneType, not a string"),
        ([{"type": "text"}], Fault.NOT_TEXT, "turn 1 holds a list"),
        ("", Fault.EMPTY, "turn 1 is empty"),
        (" \n\u00a0", Fault.EMPTY, "turn 1 is empty or only whitespace"),
        ("abcdef", Fault.LONG_TURN, "turn 1 has 6 characters, above max_turn_characters=5"),
        ("ab\ud83d", Fault.LONE_SURROGATE, "turn 1 holds a lone surrogate at character 3"),
    ],
)
def test_unusable_texts_are_refused(value, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        text_of(value, "turn 1", TripletsConfig(max_turn_characters=5))
    assert caught.value.fault is fault


def test_a_text_at_the_limit_passes_unchanged():
    assert text_of(" 🌍b ", "turn 1", TripletsConfig(max_turn_characters=4)) == " 🌍b "


def dialogue(letters):
    roles = {"S": "system", "U": "user", "A": "assistant"}
    return [Turn(roles[letter], f"text {at}") for at, letter in enumerate(letters)]


@pytest.mark.parametrize("letters", ["UAUA", "UAUAU", "AUAUA", "SUAUA", "SAUAUAU"])
def test_dialogues_with_two_replies_pass(letters):
    check_dialogue(dialogue(letters))


@pytest.mark.parametrize(
    ("letters", "fault", "message"),
    [
        ("UAAUA", Fault.NOT_ALTERNATING, "turns 2 and 3 are both of role 'assistant'"),
        ("UAUU", Fault.NOT_ALTERNATING, "turns 3 and 4 are both of role 'user'"),
        ("UASUA", Fault.SYSTEM_NOT_FIRST, "turn 3 is a system turn"),
        ("SSUAUA", Fault.SYSTEM_NOT_FIRST, "turn 2 is a system turn"),
        ("A", Fault.NO_STUDENT, "no turn is the student's"),
        ("SA", Fault.NO_STUDENT, "no turn is the student's"),
        ("U", Fault.FEW_REPLIES, "the row has 0"),
        ("AUA", Fault.FEW_REPLIES, "the row has 1"),  # the leading tutor turn answers nobody
        ("SUAU", Fault.FEW_REPLIES, "the row has 1"),
    ],
)
def test_dialogues_that_break_a_rule_are_refused(letters, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        check_dialogue(dialogue(letters))
    assert caught.value.fault is fault


@pytest.mark.parametrize("text", ["café", "\u2028x", "🌍"])
def test_texts_beyond_ascii_pass_unchanged(text):
    assert parse({"history": [text, "b", "c", text]}).turns[3].text == text


def layout(field, texts):
    speakers = ["agent2", "agent1"] * 2
    if field == "utterances":
        return [list(pair) for pair in zip(speakers, texts, strict=True)]
    messages = [{"role": role, "content": text} for role, text in zip(speakers, texts, strict=True)]
    return messages if field == "messages" else texts


@pytest.mark.parametrize("place", range(4))
def test_half_a_character_is_found_wherever_it_stands(place):
    # JSON can write half of a surrogate pair as an escape; a text of ASCII alone cannot hold one
    texts = ["a", "b", "c", "d"]
    texts[place] = "café \ud83d"
    for field in ("history", "messages", "utterances"):
        with pytest.raises(RowError, match=f"turn {place + 1} of `{field}` holds a lone surrogate at character 6"):
            parse({field: layout(field, texts)})


def test_a_speaker_that_is_no_text_is_named_by_its_type():
    with pytest.raises(RowError, match="turn 1 is spoken by a list, which is no known role"):
        role_of([["user"]], "turn 1")
