"""The dialogue as each agent sees it."""

from __future__ import annotations

import pytest

from coala_core.generate.prompts import Message, student_chat, tutor_chat
from coala_core.generate.topics import Scenario

SCENARIO = Scenario(index=0, field="music", topic="jazz", mood="bored", exchanges=3, temperature=0.5)
TURNS = ["Where does jazz come from?", "From New Orleans.", "Who began it?", "Many people did.", "Is it hard?"]


def alternates(chat: list[Message]) -> bool:
    """Whether a system message is followed by user and assistant in turn, the user first and last."""
    roles = [message["role"] for message in chat]
    return roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]


@pytest.mark.parametrize("so_far", [0, 2, 4])
def test_the_student_sees_itself_as_the_assistant(so_far: int) -> None:
    chat = student_chat(SCENARIO, TURNS[:so_far], "How")
    assert alternates(chat)
    assert "bored student" in chat[0]["content"] and "jazz" in chat[0]["content"]
    own = [m["content"] for m in chat if m["role"] == "assistant"]
    others = [m["content"] for m in chat if m["role"] == "user"]
    assert own[len(own) - so_far // 2 :] == TURNS[:so_far:2]
    for reply, seen in zip(TURNS[1:so_far:2][::-1], others[::-1], strict=False):
        assert seen.startswith(reply)
    assert "Begin with How." in others[-1] and others[-1].endswith("question about jazz.")


def test_what_the_student_was_asked_agrees_with_what_it_said() -> None:
    chat = student_chat(SCENARIO, TURNS[:4], "Can")
    asked = [m["content"] for m in chat if m["role"] == "user" and "jazz" in m["content"]]
    assert [text.split("Begin with ")[1].split(".")[0] for text in asked] == ["Where", "Who", "Can"]


@pytest.mark.parametrize("so_far", [1, 3, 5])
def test_the_tutor_sees_itself_as_the_assistant(so_far: int) -> None:
    chat = tutor_chat(SCENARIO, TURNS[:so_far])
    assert alternates(chat)
    assert "quiz on jazz" in chat[0]["content"] and "bored" not in str(chat)
    assert [m["content"] for m in chat[-so_far:]] == TURNS[:so_far]


def test_what_is_said_is_not_taken_for_a_template() -> None:
    turns = ["Why {topic}?", "Because {of} {0}."]
    assert turns[1] in student_chat(SCENARIO, turns, "Why")[-1]["content"]
    assert tutor_chat(SCENARIO, turns[:1])[-1]["content"] == turns[0]
