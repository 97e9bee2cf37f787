"""Which turns are fit, which are not and why, and what cleaning changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.generate.checks import Speaker, TurnFault, check_turn
from coala_core.generate.topics import load_topics

PHRASES = load_topics("builtin").phrases
BUILTIN = Path(__file__).parents[3] / "data" / "conversations.jsonl"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  What is a sonnet?\n", "What is a sonnet?"),
        ("Student: What is a sonnet?", "What is a sonnet?"),
        ("**Student:** What is a sonnet?", "What is a sonnet?"),
        ('"What is a sonnet?"', "What is a sonnet?"),
        ("“What is a sonnet?”", "What is a sonnet?"),
        ('Why "free" verse? Is it "easy"?', 'Why "free" verse? Is it "easy"?'),
        ("What is a sonnet? I heard that it", "What is a sonnet?"),
        ("¿Qué es un soneto?", "¿Qué es un soneto?"),
        ("十四行诗是什么？", "十四行诗是什么？"),
    ],
)
def test_cleaning_takes_off_what_is_around_a_turn(text: str, kept: str) -> None:
    assert check_turn(text, "student", [], PHRASES) == (kept, None, "")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("It has 14 lines. The last two are", "It has 14 lines."),
        ("It dates from 1592. The last two are", "It dates from 1592."),
        ("There are two kinds of it.\n\n1. The first\n2. The", "There are two kinds of it."),
        ("A sonnet (a short poem.) It", "A sonnet (a short poem.)"),
        ("It costs 3.5 euros and is the", None),
        ("Sure! It is a poem that", None),  # "Sure!" is next to nothing
        ("fourteen lines", None),
    ],
)
def test_an_unfinished_sentence_is_cut_off(text: str, kept: str | None) -> None:
    checked = check_turn(text, "tutor", [], PHRASES)
    assert (checked.fault, checked.text) == ((None, kept) if kept else (TurnFault.TRUNCATED, text))


LOOP = "It is good because it is good and it is good because it is good and " * 6
DIALOGUE = ["What is a loop?", "A loop repeats some steps until a condition is met, and then it ends."]


@pytest.mark.parametrize(
    ("speaker", "text", "fault", "reason"),
    [
        ("student", " \n", TurnFault.EMPTY, "nothing was said"),
        ("tutor", "Tutor:", TurnFault.EMPTY, "nothing was said"),
        ("tutor", "As an AI language model, I have no ears.", TurnFault.REFUSAL, "'as an ai'"),
        ("tutor", "I’m sorry, but I must pass.", TurnFault.REFUSAL, "sorry, but i"),
        ("tutor", "I CANNOT HELP with that.", TurnFault.REFUSAL, "cannot help"),
        ("tutor", "It ends.<|im_end|>", TurnFault.CONTROL, r"im_end"),
        ("tutor", "[INST] Go on. [/INST]", TurnFault.CONTROL, "INST"),
        ("tutor", "It ends.\nStudent: Why?", TurnFault.OFF_ROLE, "both sides: 'Student:'"),
        ("tutor", "It ends. User: Why?", TurnFault.OFF_ROLE, "both sides"),
        ("student", 'Why?" Tutor: "Because.', TurnFault.OFF_ROLE, "both sides"),
        ("student", "How can I help you today?", TurnFault.OFF_ROLE, "the student says 'how can i help'"),
        ("tutor", "Thank you for explaining this to me.", TurnFault.OFF_ROLE, "the tutor says"),
        ("tutor", "What do you think? Why?", TurnFault.OFF_ROLE, "only asks"),
        ("student", "word " * 31 + "end. Why?", TurnFault.OFF_ROLE, "explains, in 32 words"),
        ("student", "I like it.", TurnFault.NO_QUESTION, "asks nothing"),
        ("student", "What's the loop?", TurnFault.REPEATED, "repeats turn 1"),
        ("tutor", DIALOGUE[1].upper(), TurnFault.REPEATED, "repeats turn 2"),
        ("tutor", DIALOGUE[1] + " So.", TurnFault.REPEATED, "repeats turn 2"),
        ("tutor", DIALOGUE[1].replace("some", "many"), TurnFault.REPEATED, "repeats turn 2"),
        ("tutor", "No! Yes. No. Well, no.\nNo!", TurnFault.REPEATED, "says 3 times 'no'"),
        ("tutor", LOOP + ".", TurnFault.REPEATED, "runs in a loop"),
    ],
)
def test_an_unfit_turn_has_a_fault_and_a_reason(speaker: Speaker, text: str, fault: TurnFault, reason: str) -> None:
    checked = check_turn(text, speaker, DIALOGUE, PHRASES)
    assert checked.fault is fault, checked
    assert reason in checked.reason


@pytest.mark.parametrize(
    ("speaker", "text"),
    [
        ("student", "I cannot see why. Can you show me?"),
        ("student", "What ends a loop?"),
        ("tutor", "The condition of the loop ends it. Do you see where it stands?"),
        ("tutor", "Plato wrote it as a dialogue: each tutor of his time knew it."),
        ("tutor", "1. Read it. 2. Change it. 3. Run it again, and look at what comes out."),
    ],
)
def test_a_fit_turn_may_come_near_a_fault(speaker: Speaker, text: str) -> None:
    assert check_turn(text, speaker, DIALOGUE, PHRASES) == (text, None, "")


def test_turns_that_people_checked_are_fit() -> None:
    """880 turns of the built-in conversations: a check that refuses them would refuse what it should let through."""
    refused = []
    turns = 0
    for line in BUILTIN.read_text(encoding="utf-8").splitlines():
        earlier: list[str] = []
        for speaker, text in json.loads(line)["utterances"]:
            checked = check_turn(text, "student" if speaker == "agent2" else "tutor", earlier, PHRASES)
            refused += [(checked.fault, text)] if checked.fault or checked.text != text else []
            earlier.append(text)
            turns += 1
    assert turns == 880
    # Some of the students' turns are requests that end in a full stop.
    assert [found for found in refused if found[0] is not TurnFault.NO_QUESTION] == []
    assert len(refused) < 0.05 * turns


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=300), st.sampled_from(["student", "tutor"]))
def test_any_text_gets_a_verdict_and_cleaning_settles(text: str, speaker: Speaker) -> None:
    checked = check_turn(text, speaker, [], PHRASES)
    assert checked.text in text
    assert (checked.fault is None) == (checked.reason == "")
    if checked.fault is None:
        assert checked.text.strip() == checked.text != ""
