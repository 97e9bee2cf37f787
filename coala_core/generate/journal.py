"""Every answer of a language model on disk as soon as it is there, so that a killed run pays for none of them twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from coala_core.generate.backends import Backend, Completion, Request, Ticket


class Journal:
    """Answers by the content of their request, appended line by line.

    A line holds the answers that came together. It is there whole or not at all: a line that a killed process or a
    full disk left unfinished is cut off. Whatever changes a request (another topic, seed, prompt) changes its
    digest, so an answer never goes to a request that it was not given to.

    Parameters
    ----------
    path : Path
        File of JSON lines, made where it is absent; one process at a time may have it open.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._answers: dict[str, tuple[int, Completion]] = {}
        whole = 0
        self._file = path.open("a+b")
        self._file.seek(0)
        for number, line in enumerate(self._file):
            answers = _parse(line)
            if answers is None:
                break
            self._answers.update({identity: (number, answer) for identity, answer in answers.items()})
            whole += len(line)
        self._file.truncate(whole)

    def find(self, request: Request) -> tuple[int, Completion] | None:
        """Return an answer with the number of its line, or None."""
        return self._answers.get(request.identity)

    def append(self, answers: Mapping[str, Completion]) -> None:
        """Write answers by the digest of their request as one line, and wait until the disk has it."""
        line = json.dumps({identity: answer.as_dict() for identity, answer in answers.items()}, sort_keys=True)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse(line: bytes) -> dict[str, Completion] | None:
    """Read a line; None if it is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        return {identity: Completion(**answer) for identity, answer in json.loads(line).items()}
    except (ValueError, TypeError, AttributeError):
        return None


class JournalledBackend:
    """A back end whose answers are kept, and which is not asked again for those that are.

    Kept answers come back line by line, as they were given. The requests that wait when the last line has been
    read are therefore those that waited when it was written, and a run that goes on makes the batches that it
    would have made.

    Parameters
    ----------
    backend : Backend
        Is asked for what the journal does not have.
    journal : Journal
        Open.
    """

    def __init__(self, backend: Backend, journal: Journal) -> None:
        self.capacity = backend.capacity
        self._reused = 0
        self._answered = 0
        self._written_tokens = 0
        self._backend = backend
        self._journal = journal
        self._kept: dict[Ticket, tuple[int, Completion]] = {}
        self._asked: dict[Ticket, str] = {}

    def send(self, requests: Sequence[Request]) -> None:
        """Take requests; those that the journal can answer go no further."""
        missing = []
        for request in requests:
            kept = self._journal.find(request)
            if kept is not None:
                self._kept[request.ticket] = kept
            else:
                self._asked[request.ticket] = request.identity
                missing.append(request)
        if missing:
            self._backend.send(missing)

    def receive(self) -> Mapping[Ticket, Completion]:
        """Return what one line of the journal answers, or wait for the back end and keep what it says."""
        if self._kept:
            first = min(number for number, _ in self._kept.values())
            found = {ticket: answer for ticket, (number, answer) in self._kept.items() if number == first}
            for ticket in found:
                del self._kept[ticket]
            self._reused += len(found)
            return found
        answers = self._backend.receive()
        self._answered += len(answers)
        self._written_tokens += sum(answer.completion_tokens for answer in answers.values())
        kept = {self._asked.pop(ticket): answer for ticket, answer in answers.items()}
        # What did not come may come another time.
        if usable := {identity: answer for identity, answer in kept.items() if answer.finish != "failed"}:
            self._journal.append(usable)
        return answers

    def performance(self, seconds: float) -> dict[str, float]:
        """Say what this run did itself: answers asked for and reused, tokens written, and how fast."""
        return {
            "answers": self._answered,
            "answers_reused": self._reused,
            "written_tokens": self._written_tokens,
            "written_tokens_per_second": self._written_tokens / seconds,
        }

    def close(self) -> None:
        """Close the back end."""
        self._backend.close()
