"""The endpoint's client against a real server, which answers well, badly, late or not at all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from coala_core.config import GenerateConfig
from coala_core.generate.backends import Completion, Request
from coala_core.generate.endpoint import Endpoint
from tests.chat_server import Body, ChatServer, Reply, completion

SECRET = "sk-no-one-may-read-this"
SOON = {"retry-after-ms": "10"}


def request(number: int = 0, text: str = "Why?") -> Request:
    return Request((number, 0, 0), [{"role": "user", "content": text}], 0.25, 7 + number, 40)


@contextmanager
def opened(server: ChatServer, **settings: Any) -> Iterator[Endpoint]:
    """An endpoint with little patience."""
    given = {"model": "m", "base_url": server.url, "timeout_seconds": 5.0, "max_retries": 2} | settings
    endpoint = Endpoint(GenerateConfig(**given))
    try:
        yield endpoint
    finally:
        endpoint.close()


def ask(endpoint: Endpoint, requests: Sequence[Request]) -> dict[int, Completion]:
    """Send requests and wait for all answers, by conversation."""
    endpoint.send(requests)
    answers: dict[int, Completion] = {}
    while len(answers) < len(requests):
        answers |= {ticket[0]: answer for ticket, answer in endpoint.receive().items()}
    return answers


def in_turn(*replies: Reply) -> Any:
    """Answer with each reply once, then with the last for ever."""
    left = list(replies)
    return lambda _body: left.pop(0) if len(left) > 1 else left[0]


def test_a_request_is_what_the_api_describes(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    server.answer = lambda _body: Reply(completion(" Because so. "))
    with opened(server, api_key_variable="MY_KEY", top_p=0.8) as endpoint:
        answers = ask(endpoint, [request()])
    assert answers == {0: Completion(" Because so. ", "stop", 100, 2)}
    assert server.keys == [f"Bearer {SECRET}"]
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Why?"}],
            "temperature": 0.25,
            "top_p": 0.8,
            "seed": 7,
            "max_tokens": 40,
        }
    ]


def test_without_a_key_none_is_sent(server: ChatServer) -> None:
    with opened(server) as endpoint:
        ask(endpoint, [request()])
    assert server.keys == ["Bearer none"]


def test_requests_run_at_the_same_time(server: ChatServer) -> None:
    server.answer = lambda _body: Reply(completion("So."), delay=0.2)
    started = time.monotonic()
    with opened(server, concurrency=8) as endpoint:
        assert len(ask(endpoint, [request(number) for number in range(8)])) == 8
    assert server.most_at_once > 1
    assert time.monotonic() - started < 8 * 0.2


@pytest.mark.parametrize(
    ("trouble", "requests"),
    [
        ([Reply({}, 429, {"Retry-After": "0.3"})], 2),
        ([Reply({}, 500, SOON), Reply(b"<html>", 502, SOON)], 3),
        ([Reply({}, 503, SOON), Reply({}, 408, SOON)], 3),
    ],
)
def test_trouble_that_passes_is_waited_out(server: ChatServer, trouble: list[Reply], requests: int) -> None:
    server.answer = in_turn(*trouble, Reply(completion("So.")))
    with opened(server) as endpoint:
        assert ask(endpoint, [request()])[0].text == "So."
    assert len(server.bodies) == requests
    if "Retry-After" in trouble[0].headers:
        assert server.times[1] - server.times[0] >= 0.3


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(completion("It is", "length")), Completion("It is", "length", 100, 2)),
        (Reply(completion("", "content_filter")), Completion("", "filtered", 100, 0)),
        (Reply({"error": {"message": "no", "code": "content_filter"}}, 400), "filtered"),
        (Reply({"error": {"message": "no", "code": "context_length_exceeded"}}, 400), "too_long"),
        (Reply({"error": {"message": "This model's maximum context length is 9 tokens"}}, 400), "too_long"),
        (Reply(completion(None)), "failed"),
        (Reply(completion(["not", "text"])), "failed"),
        (Reply(completion("So.") | {"choices": []}), "failed"),
        (Reply({"choices": [{"index": 0}]}), "failed"),
        (Reply({"hello": "world"}), "failed"),
        (Reply(["a", "list"]), "failed"),
        (Reply(b"{not json"), "failed"),
        (Reply(b"\xff\xfe"), "failed"),
        (Reply(b"<html>busy</html>", headers={"Content-Type": "text/html"}), "failed"),
        (Reply(b""), "failed"),
        (Reply({}, 500, SOON), "failed"),
        (Reply(completion("late"), delay=1.0), "failed"),
    ],
    ids=lambda value: str(getattr(value, "content", ""))[:40],
)
def test_every_kind_of_answer_becomes_a_completion(
    server: ChatServer, reply: Reply, expected: Completion | str
) -> None:
    server.answer = lambda _body: reply
    with opened(server, timeout_seconds=0.4, max_retries=1 if reply.status == 500 else 0) as endpoint:
        answer = ask(endpoint, [request()])[0]
    assert answer == expected if isinstance(expected, Completion) else answer.finish == expected
    if answer.finish == "failed":
        assert answer.detail and "\n" not in answer.detail and len(answer.detail) <= 200


def test_a_refusal_of_the_model_is_one(server: ChatServer) -> None:
    content = completion(None)
    content["choices"][0]["message"]["refusal"] = "I must not."
    server.answer = lambda _body: Reply(content)
    with opened(server) as endpoint:
        assert ask(endpoint, [request()])[0] == Completion(
            "I must not.", "filtered", 100, 1, detail="the model refused"
        )


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": None}, {"prompt_tokens": -1, "completion_tokens": 2}])
def test_tokens_that_nobody_counted_are_estimated(server: ChatServer, usage: object) -> None:
    server.answer = lambda _body: Reply(completion("So it is.", usage=usage))
    with opened(server) as endpoint:
        # 10 bytes of prompt and 9 of answer, three to a token.
        assert ask(endpoint, [request(text="0123456789")])[0] == Completion("So it is.", "stop", 4, 3, True)


@pytest.mark.parametrize(
    ("reply", "kind", "sentence"),
    [
        (
            Reply({"error": {"message": f"bad {SECRET}"}}, 401),
            ValueError,
            "got status 401; put a valid .* MY_KEY",
        ),
        (Reply({"error": {"message": f"no {SECRET}"}}, 403), ValueError, "got status 403; put a valid key"),
        (Reply({"error": {"message": f"no model {SECRET}"}}, 404), ValueError, "got status 404: .*correct the address"),
        (Reply({"error": {"message": f"bad seed {SECRET}"}}, 422), ValueError, "got status 422: .*or the settings"),
        (Reply({"error": {"message": f"slow {SECRET}"}}, 429, SOON), ConnectionError, "its rate limit after 2 retries"),
        (Reply({}, 429, {"Retry-After": "600"}), ConnectionError, "its rate limit .* the same command then continues"),
    ],
)
def test_what_no_turn_can_pass_ends_the_work(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, reply: Reply, kind: type[Exception], sentence: str
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    server.answer = lambda _body: reply
    with opened(server, api_key_variable="MY_KEY") as endpoint, pytest.raises(kind, match=sentence) as caught:
        ask(endpoint, [request()])
    assert server.url in str(caught.value)
    assert SECRET not in str(caught.value) and caught.value.__suppress_context__


def test_what_is_paid_for_still_comes_after_a_refusal(server: ChatServer) -> None:
    def answer(body: Body) -> Reply:
        first = body["seed"] == 7
        return Reply({}, 401) if first else Reply(completion("So."), delay=0.3)

    server.answer = answer
    with opened(server) as endpoint:
        endpoint.send([request(0), request(1), request(2)])
        came: set[int] = set()
        while len(came) < 2:
            came |= {ticket[0] for ticket in endpoint.receive()}
        endpoint.send([request(3)])
        with pytest.raises(ValueError, match="got status 401"):
            endpoint.receive()
    assert came == {1, 2}
    assert len(server.bodies) == 3, "nothing is sent once the endpoint has refused"


def test_an_endpoint_where_everything_fails_ends_the_work(server: ChatServer) -> None:
    server.answer = lambda _body: Reply({}, 500)
    with opened(server, max_retries=0, concurrency=1, attempts=2) as endpoint:
        for number in range(5):
            assert ask(endpoint, [request(number)])[number].finish == "failed"
        with pytest.raises(ConnectionError, match=r"must answer, got 5 failures in a row, the last: InternalServerErr"):
            ask(endpoint, [request(5)])


def test_nobody_listening_is_a_failure(server: ChatServer) -> None:
    server.http.server_close()
    server.http.shutdown()
    with opened(server, max_retries=0) as endpoint:
        answer = ask(endpoint, [request()])[0]
    assert (answer.finish, answer.detail) == ("failed", "APIConnectionError: Connection error.")


def test_closing_does_not_wait_for_answers(server: ChatServer) -> None:
    server.answer = lambda _body: Reply(completion("So."), delay=3.0)
    with opened(server) as endpoint:
        endpoint.send([request(number) for number in range(4)])
        time.sleep(0.2)
        started = time.monotonic()
    assert time.monotonic() - started < 2
