"""One conversation in the making: which turn is asked for next, what becomes of an answer, when it is done."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from coala_core.config import GenerateConfig
from coala_core.generate.backends import Completion, Request, Ticket
from coala_core.generate.checks import Checked, Speaker, TurnFault, check_turn
from coala_core.generate.prompts import OPENINGS, student_chat, tutor_chat
from coala_core.generate.topics import Phrases, Scenario
from coala_core.sources.records import excerpt_of

_WARMING = 0.1
"""By which each further attempt at a turn is sampled warmer."""
_SPEAKERS = {"student": "agent2", "tutor": "agent1"}
_ENDINGS = {
    "filtered": (TurnFault.FILTERED, "the endpoint's content filter stopped the turn"),
    "too_long": (TurnFault.TOO_LONG, "the dialogue and a turn exceed the model's window"),
    "failed": (TurnFault.NO_ANSWER, "the endpoint gave no usable answer"),
}


class Rejection(NamedTuple):
    """Why a conversation was given up."""

    turn: int
    """Number of the turn that never became fit, from 1."""
    fault: TurnFault
    """Of its last attempt."""
    reason: str
    """The fault in this turn, in words."""
    excerpt: str
    """Start of the last attempt, at most 200 characters."""


class Dialogue:
    """A conversation between the agents, from its scenario to its last reply or its rejection.

    Parameters
    ----------
    scenario : Scenario
        What it is about.
    config : GenerateConfig
        Seeds, turn lengths and attempts.
    phrases : Phrases
        What gives bad turns away.
    """

    def __init__(self, scenario: Scenario, config: GenerateConfig, phrases: Phrases) -> None:
        self.scenario = scenario
        self.turns: list[str] = []
        self.retries: Counter[str] = Counter()
        """Turns asked for again, by fault."""
        self.rejection: Rejection | None = None
        self._config = config
        self._phrases = phrases
        self._attempt = 0

    @property
    def done(self) -> bool:
        """Whether nothing more will be asked for."""
        return self.rejection is not None or len(self.turns) == 2 * self.scenario.exchanges

    @property
    def speaker(self) -> Speaker:
        """Who is next."""
        return "tutor" if len(self.turns) % 2 else "student"

    @property
    def ticket(self) -> Ticket:
        """Of the request that waits for its answer."""
        return self.scenario.index, len(self.turns), self._attempt

    def request(self) -> Request:
        """Ask for the next turn; every attempt has a seed and a student's opening of its own."""
        rng = np.random.default_rng([self._config.seed, *self.ticket])
        seed, opening = int(rng.integers(2**31)), str(rng.choice(OPENINGS))
        if self.speaker == "tutor":
            chat, limit = tutor_chat(self.scenario, self.turns), self._config.tutor_tokens
        else:
            chat, limit = student_chat(self.scenario, self.turns, opening), self._config.student_tokens
        return Request(self.ticket, chat, self._temperature(), seed, limit)

    def _temperature(self) -> float:
        """Warm up with each attempt, as what was sampled too coldly is sampled again nearly as it was."""
        warmer = self.scenario.temperature + _WARMING * self._attempt
        return round(min(warmer, max(self._config.max_temperature, self.scenario.temperature)), 3)

    def take(self, completion: Completion) -> None:
        """Accept the answer as the next turn, count a retry, or give the conversation up."""
        checked = self._check(completion)
        if checked.fault is None:
            self.turns.append(checked.text)
            self._attempt = 0
            return
        self._attempt += 1
        # The same dialogue is as long at the next attempt.
        if self._attempt == self._config.attempts or checked.fault is TurnFault.TOO_LONG:
            excerpt = excerpt_of(checked.text.encode("utf-8", errors="replace"))
            self.rejection = Rejection(len(self.turns) + 1, checked.fault, checked.reason, excerpt)
        else:
            self.retries[checked.fault] += 1

    def _check(self, completion: Completion) -> Checked:
        if completion.finish in _ENDINGS:
            fault, reason = _ENDINGS[completion.finish]
            return Checked(completion.text, fault, completion.detail or reason)
        return check_turn(completion.text, self.speaker, self.turns, self._phrases)

    def row(self, model: str) -> dict[str, Any]:
        """Return the finished conversation in EduFeedback's layout, with what it was drawn to be."""
        speakers = [_SPEAKERS["tutor" if at % 2 else "student"] for at in range(len(self.turns))]
        return {
            **self._heading(),
            "mood": self.scenario.mood,
            "temperature": self.scenario.temperature,
            "seed": self._config.seed,
            "model": model,
            "utterances": [list(pair) for pair in zip(speakers, self.turns, strict=True)],
        }

    def reject(self) -> dict[str, Any]:
        """Return what `rejects.jsonl` keeps of a conversation that was given up."""
        assert self.rejection is not None
        return {**self._heading(), **self.rejection._asdict()}

    def _heading(self) -> dict[str, Any]:
        index, seed = self.scenario.index, self._config.seed
        return {"id": f"generated-{seed}-{index:05d}", "field": self.scenario.field, "topic": self.scenario.topic}
