"""Many idempotent jobs through workers that load something heavy once, whatever the workers are.

An executor differs from another only in its *crew*: how a worker is started, given a job, heard and stopped.
Which worker gets which job, and what happens when a worker dies, is `Dispatch` for all of them:

- a worker is started only while more jobs wait than workers are being started, so no jobs means no worker;
- a job is given to a worker that has finished loading and has nothing else to do, so a worker that dies
  was at one job at most, and that job is known;
- per worker at most one job is being done and one more is pulled from the iterable and waits.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Member = TypeVar("Member")
Worker = Callable[[Job], Result]
"""What `start` returns: it does one job and keeps what it has loaded."""

ATTEMPTS = 3
"""A job is given to this many workers at most, and so many may die in a row while they start."""

_LONGEST_REPR = 200


class Executor(Protocol):
    """Runs jobs through a fixed number of workers."""

    def map(self, start: Callable[[], Worker[Job, Result]], jobs: Iterable[Job]) -> Generator[Result, None, None]:
        """Do all jobs and yield their results as they come, in any order.

        A worker that dies loses nothing: its job is given to another one. Jobs must therefore be idempotent.
        Close the generator (`contextlib.closing`) when you may leave it early: that stops the workers.

        Parameters
        ----------
        start : callable
            Called once in every worker; loads what is heavy and returns the function that does a job.
            It and the jobs must be picklable where workers are other processes.
        jobs : iterable
            Pulled as workers become free: at most two jobs per worker are pulled and not yet done.

        Yields
        ------
        Result
            What the worker's function returned for one job.

        Raises
        ------
        RuntimeError
            If three workers died at the same job, or three in a row died while they started.
        Exception
            Whatever `start`, the worker's function or the iterable raised, with its own type and message.
        """
        ...


class Event(NamedTuple, Generic[Member]):
    """What one member of a crew reports: it has loaded, it did its job (`value`), or it died (`value` says how)."""

    member: Member
    kind: Literal["ready", "done", "died"]
    value: Any


class Crew(Protocol[Member]):
    """Workers of one kind, as `Dispatch` sees them."""

    def hire(self) -> None:
        """Begin to start one more worker."""

    def assign(self, member: Member, job: Any) -> None:
        """Give a job to a worker that has nothing to do."""

    def wait(self) -> Event[Member]:
        """Block until a worker reports; raise what its function raised."""
        ...

    def stop(self, resting: Collection[Member]) -> None:
        """Let the resting workers go and kill the others; return when none is left."""


@dataclass
class _Task:
    job: Any
    deaths: int = 0


class Dispatch(Generic[Member]):
    """Gives jobs to a crew, and again when a worker died.

    Parameters
    ----------
    crew : Crew
        Workers, none of them started yet.
    workers : int
        How many there are at most.
    name : str
        Executor, as error messages name it.
    """

    def __init__(self, crew: Crew[Member], workers: int, name: str) -> None:
        self._crew, self._workers, self._name = crew, workers, name
        self._waiting: deque[_Task] = deque()
        self._busy: dict[Member, _Task] = {}
        self._resting: list[Member] = []
        self._starting = 0
        self._stillborn = 0

    def results(self, jobs: Iterable[Any]) -> Generator[Any, None, None]:
        """Yield results as they come; however this ends, no worker is left.

        Raises
        ------
        RuntimeError
            If three workers died at the same job, or three in a row died while they started.
        """
        source, finished = iter(jobs), False
        try:
            while self._supply(source):
                event = self._crew.wait()
                if event.kind == "died":
                    self._bury(event.member, event.value)
                    continue
                self._release(event)
                # Before the caller sees the result, because the caller may take its time.
                self._hand_out()
                if event.kind == "done":
                    yield event.value
            finished = True
        finally:
            self._crew.stop(self._resting if finished else [])

    def _release(self, event: Event[Member]) -> None:
        if event.kind == "ready":
            self._starting -= 1
            self._stillborn = 0
        else:
            del self._busy[event.member]
        self._resting.append(event.member)

    def _supply(self, source: Iterator[Any]) -> bool:
        """Pull jobs until two per worker are in hand; whether anything is left to do."""
        self._hand_out()
        while len(self._waiting) + len(self._busy) < 2 * self._workers:
            try:
                self._waiting.append(_Task(next(source)))
            except StopIteration:
                break
            self._hand_out()
        return bool(self._waiting or self._busy)

    def _hand_out(self) -> None:
        while self._waiting and self._resting:
            member, task = self._resting.pop(0), self._waiting.popleft()
            self._busy[member] = task
            self._crew.assign(member, task.job)
        while self._starting < min(len(self._waiting), self._workers - len(self._busy) - len(self._resting)):
            self._starting += 1
            self._crew.hire()

    def _bury(self, member: Member, how: str) -> None:
        """Put the dead worker's job first in the queue, unless too many workers have died at it."""
        if member in self._resting:
            self._resting.remove(member)
            return
        if (task := self._busy.pop(member, None)) is None:
            self._starting -= 1
            self._stillborn += 1
            if self._stillborn == ATTEMPTS:
                raise RuntimeError(
                    f"`{self._name}.map(start=...)` must return, got {ATTEMPTS} workers in a row that died "
                    f"while they started ({how}); use fewer workers, or give them more memory"
                )
            return
        task.deaths += 1
        if task.deaths == ATTEMPTS:
            raise RuntimeError(
                f"`{self._name}.map(jobs=...)` must hold jobs that a worker survives, got {shortened(task.job)}, "
                f"at which {ATTEMPTS} workers died (the last: {how}); "
                "make the job smaller, use fewer workers, or give them more memory"
            )
        self._waiting.appendleft(task)


def shortened(job: object) -> str:
    """Representation of a job, short enough for an error message."""
    text = repr(job)
    return text if len(text) <= _LONGEST_REPR else f"{text[: _LONGEST_REPR - 3]}..."


def portable(error: Exception) -> Exception:
    """Return an error that can travel to another process, with the worker's traceback as a note."""
    note = "In the worker:\n" + "".join(traceback.format_exception(error)).rstrip()
    try:
        copy = ForkingPickler.loads(ForkingPickler.dumps(error))
        faithful = type(copy) is type(error) and str(copy) == str(error)
    except Exception:  # noqa: BLE001 - foreign classes may raise anything when they are copied
        faithful = False
    result = error if faithful else RuntimeError(f"{type(error).__name__}: {error}")
    result.add_note(note)
    return result


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def limit_threads(threads: int) -> None:
    """Let torch use so many threads in this worker if it is loaded; OMP_NUM_THREADS sees to it if it is not yet."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


def share_of_cores(nodes: Iterable[float], workers: int) -> int:
    """Give the largest whole number of cores, 1 at least, that every worker can have.

    Parameters
    ----------
    nodes : iterable of float
        Cores of each machine; a worker lives on one.
    workers : int
        Workers on all machines together.
    """
    cores = [int(node) for node in nodes]
    shares = range(max(cores, default=1), 1, -1)
    return next((share for share in shares if sum(core // share for core in cores) >= workers), 1)


def own_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_positive(call: str, value: float | None, *, whole: bool) -> None:
    """Refuse a number that is not positive, or not whole where it must be; None passes.

    Raises
    ------
    ValueError
        In one sentence.
    """
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < float("inf")):
        kind = "a whole number of at least 1" if whole else "a positive number"
        raise ValueError(f"`{call}` must be {kind}, got {value!r}; give 1 if unsure")
