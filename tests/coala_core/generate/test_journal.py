"""Answers on disk: whole or absent, given back in their order, asked for once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.generate.backends import Completion, Request, Ticket
from coala_core.generate.journal import Journal, JournalledBackend


def request(number: int, text: str = "Why?") -> Request:
    return Request((number, 0, 0), [{"role": "user", "content": text}], 0.5, number, 40)


class Counting:
    """A back end that answers two requests at a time and counts what it is asked."""

    capacity = 4

    def __init__(self) -> None:
        self.waiting: list[Request] = []
        self.asked: list[Ticket] = []

    def send(self, requests: Sequence[Request]) -> None:
        self.waiting += requests
        self.asked += [request.ticket for request in requests]

    def receive(self) -> Mapping[Ticket, Completion]:
        now, self.waiting = self.waiting[:2], self.waiting[2:]
        return {r.ticket: Completion(f"answer {r.seed}", "stop" if r.seed else "failed", 3, 2) for r in now}

    def close(self) -> None:
        self.waiting.clear()


def test_answers_come_back_line_by_line_and_are_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.jsonl"
    with Journal(path) as journal:
        backend = JournalledBackend(Counting(), journal)
        backend.send([request(number) for number in (1, 2, 3)])
        first, second = backend.receive(), backend.receive()
    assert [list(first), list(second)] == [[(1, 0, 0), (2, 0, 0)], [(3, 0, 0)]]
    with Journal(path) as journal:
        model = Counting()
        again = JournalledBackend(model, journal)
        # In another order, and beside one that is new.
        again.send([request(number) for number in (3, 4, 2, 1)])
        assert [again.receive(), again.receive()] == [first, second]
        assert again.receive() == {(4, 0, 0): Completion("answer 4", "stop", 3, 2)}
        assert model.asked == [(4, 0, 0)]
        performance = again.performance(seconds=4.0)
    assert performance == {"answers": 1, "answers_reused": 3, "written_tokens": 2, "written_tokens_per_second": 0.5}
    assert len(path.read_text().splitlines()) == 3


def test_what_failed_is_asked_for_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Journal(tmp_path / "a.jsonl") as journal:
            model = Counting()
            backend = JournalledBackend(model, journal)
            backend.send([request(0), request(1)])
            assert {answer.finish for answer in backend.receive().values()} <= {"failed", "stop"}
            assert (0, 0, 0) in model.asked


@pytest.mark.parametrize("other", ["text", "seed", "temperature", "max_tokens"])
def test_another_request_gets_no_answer(tmp_path: Path, other: str) -> None:
    changed = {
        "text": request(1, "Why not?"),
        "seed": Request((1, 0, 0), request(1).messages, 0.5, 2, 40),
        "temperature": Request((1, 0, 0), request(1).messages, 0.6, 1, 40),
        "max_tokens": Request((1, 0, 0), request(1).messages, 0.5, 1, 41),
    }
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.append({request(1).identity: Completion("yes")})
    with Journal(tmp_path / "a.jsonl") as journal:
        assert journal.find(request(1)) == (0, Completion("yes"))
        assert journal.find(changed[other]) is None


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 400), st.booleans())
def test_a_torn_line_is_cut_off_and_the_others_stay(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bool
) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.jsonl"
    with Journal(path) as journal:
        for number in range(3):
            journal.append({request(number).identity: Completion(f"é {number}", detail="\n")})
    whole = path.read_bytes()
    assert [len(json.loads(line)) for line in whole.splitlines()] == [1, 1, 1]
    cut = whole[: min(at, len(whole))]
    path.write_bytes(cut + (b"\x00{]\n" if junk else b""))
    left = cut.count(b"\n")
    with Journal(path) as journal:
        found = [journal.find(request(number)) is not None for number in range(3)]
        assert found == [number < left for number in range(3)]
        journal.append({request(9).identity: Completion("more")})
    with Journal(path) as journal:
        assert journal.find(request(9)) == (left, Completion("more"))
