"""All conversations of a set, several at the same time, turn by turn until each is finished or rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from coala_core.config import GenerateConfig
from coala_core.generate.backends import Backend
from coala_core.generate.budget import Budget
from coala_core.generate.dialogue import Dialogue
from coala_core.generate.topics import Topics, draw_scenario
from coala_core.progress import Progress, silent


@dataclass
class Written:
    """What came of a set.

    Parameters
    ----------
    budget : Budget
        Tokens and cost of all answers, those of rejected and unfinished conversations included.
    finished, rejected, unfinished : list of Dialogue
        In the order of their index; unfinished are those that a cap left so.
    """

    budget: Budget
    finished: list[Dialogue] = field(default_factory=list)
    rejected: list[Dialogue] = field(default_factory=list)
    unfinished: list[Dialogue] = field(default_factory=list)

    @property
    def retries(self) -> Counter[str]:
        """Turns asked for again, by fault."""
        return sum((d.retries for d in (*self.finished, *self.rejected, *self.unfinished)), Counter())


def write_dialogues(topics: Topics, config: GenerateConfig, backend: Backend, progress: Progress = silent) -> Written:
    """Let the agents talk until every conversation is finished or rejected, or a cap is reached.

    A conversation begins as soon as another one ends, in the order of the index. Once a request does not fit below
    a cap, none begins any more, and those under way go on as far as the cap allows.

    Parameters
    ----------
    topics : Topics
        What there is to draw, and phrases that give bad turns away.
    config : GenerateConfig
        Number of conversations, draws, attempts, caps.
    backend : Backend
        Answers; closed by the caller.
    progress : Progress
        Told conversations finished or rejected.

    Raises
    ------
    ValueError, ConnectionError
        As the back end does.
    """
    written = Written(Budget(config))
    coming = _dialogues(topics, config)
    active: dict[int, Dialogue] = {}
    asked: set[int] = set()
    while True:
        while written.budget.reached is None and len(active) < backend.capacity and (new := next(coming, None)):
            active[new.scenario.index] = new
        requests = [d.request() for i, d in sorted(active.items()) if i not in asked]
        requests = [request for request in requests if written.budget.reserve(request)]
        asked |= {request.ticket[0] for request in requests}
        if not asked:
            break
        backend.send(requests)
        for ticket, completion in backend.receive().items():
            written.budget.settle(ticket, completion)
            asked.remove(ticket[0])
            active[ticket[0]].take(completion)
            if active[ticket[0]].done:
                _file(active.pop(ticket[0]), written)
        progress(len(written.finished) + len(written.rejected), config.conversations, "conversations")
    written.unfinished = list(active.values())
    for dialogues in (written.finished, written.rejected, written.unfinished):
        dialogues.sort(key=lambda dialogue: dialogue.scenario.index)
    return written


def _dialogues(topics: Topics, config: GenerateConfig) -> Iterator[Dialogue]:
    """Begin the conversations in the order of their index."""
    exchanges = config.min_exchanges, config.max_exchanges
    temperatures = config.min_temperature, config.max_temperature
    for index in range(config.conversations):
        scenario = draw_scenario(topics, config.seed, index, exchanges, temperatures)
        yield Dialogue(scenario, config, topics.phrases)


def _file(dialogue: Dialogue, written: Written) -> None:
    (written.finished if dialogue.rejection is None else written.rejected).append(dialogue)
