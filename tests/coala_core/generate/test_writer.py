"""Conversations from their first turn to their end, against a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coala_core.config import GenerateConfig
from coala_core.generate.endpoint import Endpoint
from coala_core.generate.topics import load_topics
from coala_core.generate.writer import Written, write_dialogues
from tests.chat_server import Body, ChatServer, Reply, completion, fit_reply, fit_text, is_student

TOPICS = load_topics("builtin")


def write(server: ChatServer, **settings: Any) -> Written:
    """Write conversations with the server's answers."""
    given = {"model": "m", "base_url": server.url, "conversations": 6, "max_retries": 0} | settings
    config = GenerateConfig(**given)
    endpoint = Endpoint(config)
    try:
        return write_dialogues(TOPICS, config, endpoint)
    finally:
        endpoint.close()


def turns_so_far(body: Body) -> int:
    """Turns of the conversation at hand; the lessons take twelve messages of a student's chat, six of a tutor's."""
    before = len(body["messages"]) - 1 - (12 if is_student(body) else 6)
    return before - 1 if is_student(body) else before


def test_every_conversation_is_finished_and_told_of_in_order(server: ChatServer) -> None:
    told = []
    config = GenerateConfig(model="m", base_url=server.url, conversations=6, concurrency=4)
    endpoint = Endpoint(config)
    written = write_dialogues(TOPICS, config, endpoint, lambda *given: told.append(given))
    endpoint.close()
    assert [d.scenario.index for d in written.finished] == list(range(6))
    assert all(len(d.turns) == 2 * d.scenario.exchanges for d in written.finished)
    assert (written.rejected, written.unfinished, dict(written.retries)) == ([], [], {})
    assert told[-1] == (6, 6, "conversations") and told == sorted(told)
    assert server.most_at_once <= 4
    turns = sum(len(d.turns) for d in written.finished)
    assert (len(server.bodies), written.budget.prompt_tokens) == (turns, 100 * turns)


def test_a_conversation_is_the_same_however_many_others_there_are(server: ChatServer) -> None:
    few, many = write(server, conversations=3, concurrency=1), write(server, conversations=5, concurrency=5)
    assert [d.row("m") for d in few.finished] == [d.row("m") for d in many.finished[:3]]
    other = write(server, conversations=3, seed=1)
    assert not {t for d in few.finished for t in d.turns} & {t for d in other.finished for t in d.turns}


def test_requests_are_those_of_agents_that_talk_to_each_other(server: ChatServer) -> None:
    (dialogue,) = write(server, conversations=1).finished
    for at, body in enumerate(server.bodies):
        assert turns_so_far(body) == at
        assert (is_student(body), body["max_tokens"]) == ((True, 40) if at % 2 == 0 else (False, 120))
        assert body["temperature"] == dialogue.scenario.temperature
        assert fit_text(body) == dialogue.turns[at]
        said = [m["content"] for m in body["messages"]]
        assert all(turn in said[place - at] for place, turn in enumerate(dialogue.turns[:at]))


BAD: dict[str, Callable[[Body], Reply]] = {
    "empty": lambda _b: Reply(completion(" ")),
    "refusal": lambda _b: Reply(completion("As an AI, I cannot say. Why?")),
    "control token": lambda b: Reply(completion(fit_text(b) + "<|endoftext|>")),
    "off-role": lambda b: Reply(completion(fit_text(b) + "\nTutor: So. Student: Why?")),
    "truncated": lambda _b: Reply(completion("and then it", "length")),
    "content filter": lambda _b: Reply(completion("", "content_filter")),
    "no usable answer": lambda _b: Reply({}, 500),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_turn_is_asked_for_again_with_another_seed(server: ChatServer, fault: str) -> None:
    bad: list[Body] = []

    def answer(body: Body) -> Reply:
        if turns_so_far(body) == 1 and len(bad) < 2:
            bad.append(body)
            return BAD[fault](body)
        return fit_reply(body)

    server.answer = answer
    written = write(server, conversations=1, min_temperature=0.5, max_temperature=0.65)
    assert len(written.finished) == 1 and dict(written.retries) == {fault: 2}
    assert len({body["seed"] for body in bad}) == 2
    first, second = (body["temperature"] for body in bad)
    assert second == pytest.approx(min(first + 0.1, 0.65))
    assert [body["messages"] for body in bad] == [bad[0]["messages"]] * 2


@pytest.mark.parametrize("fault", ["refusal", "truncated", "no usable answer"])
def test_a_turn_that_stays_bad_costs_its_conversation_only(server: ChatServer, fault: str) -> None:
    topic = write(server, conversations=3).finished[1].scenario.topic
    server.bodies.clear()

    def answer(body: Body) -> Reply:
        unfit = topic in body["messages"][0]["content"] and turns_so_far(body) == 2
        return BAD[fault](body) if unfit else fit_reply(body)

    server.answer = answer
    written = write(server, conversations=3, attempts=3, concurrency=1)
    assert [d.scenario.index for d in written.finished] == [0, 2]
    (rejected,) = written.rejected
    row = rejected.reject()
    assert (row["id"], row["topic"], row["turn"], row["fault"]) == ("generated-0-00001", topic, 3, fault)
    assert row["reason"] and len(row["excerpt"]) <= 200
    assert dict(written.retries) == {fault: 2}, "three attempts are two retries"


def test_a_question_that_was_asked_before_is_repeated(server: ChatServer) -> None:
    server.answer = lambda b: Reply(completion("What is it?" if is_student(b) else fit_text(b)))
    written = write(server, conversations=1, attempts=2)
    (rejected,) = written.rejected
    assert rejected.reject()["reason"] == "the turn repeats turn 1"


def test_a_dialogue_beyond_the_window_is_not_asked_for_again(server: ChatServer) -> None:
    error = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    server.answer = lambda b: Reply(error, 400) if turns_so_far(b) == 3 else fit_reply(b)
    written = write(server, conversations=1)
    assert [str(d.rejection.fault) for d in written.rejected if d.rejection] == ["dialogue too long"]
    assert len(server.bodies) == 4 and not written.retries


@pytest.mark.parametrize(("cap", "name"), [({"max_tokens_total": 4500}, "max_tokens_total"), ({}, "max_cost")])
def test_a_cap_stops_new_work_and_keeps_what_is_finished(server: ChatServer, cap: dict[str, Any], name: str) -> None:
    prices = {"price_per_million_input": 1e6, "price_per_million_output": 1e6}
    written = write(server, conversations=50, concurrency=2, **(cap or prices | {"max_cost": 4500.0}))
    assert written.budget.reached == name
    assert 1 <= len(written.finished) < 50 and len(written.unfinished) <= 2 and not written.rejected
    spent = written.budget.prompt_tokens + written.budget.completion_tokens
    words = sum(len(fit_text(body).split()) for body in server.bodies)
    assert spent == 100 * len(server.bodies) + words <= 4500
    # What is left would not do for one more request: some 2,500 bytes of prompt, an answer of 120 tokens.
    assert spent > 4500 - 3500
