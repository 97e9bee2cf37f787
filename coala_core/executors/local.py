"""Workers on this machine: this process itself, or processes that it spawns."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

from coala_core.executors.base import (
    Dispatch,
    Event,
    Job,
    Result,
    Worker,
    environment,
    limit_threads,
    own_cores,
    portable,
    require_positive,
    share_of_cores,
)

# A forked child would inherit locks that torch's threads hold, and CUDA does not survive a fork.
_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE = 5.0  # seconds in which a resting worker may exit by itself
_environment_lock = threading.Lock()


class LocalExecutor:
    """Workers on this machine.

    One worker is this process itself, and no other is started. Several are spawned processes, which exit when their
    parent is gone, even if it was killed: a thread in each of them watches the parent.

    Parameters
    ----------
    workers : int, at least 1
        Jobs done at the same time.
    threads : int, optional
        Compute threads per worker. None is this machine's cores divided among the workers, 1 at least;
        a single worker then keeps the threads that the process has.

    Raises
    ------
    ValueError
        If a number is not whole or below 1.
    """

    def __init__(self, workers: int = 1, threads: int | None = None) -> None:
        require_positive("LocalExecutor(workers=...)", workers, whole=True)
        require_positive("LocalExecutor(threads=...)", threads, whole=True)
        self.workers = workers
        self.threads = threads

    def map(self, start: Callable[[], Worker[Job, Result]], jobs: Iterable[Job]) -> Generator[Result, None, None]:
        """Do all jobs, as `Executor.map` says; a single worker yields in the order of the jobs.

        Raises
        ------
        RuntimeError
            If three workers died at the same job, or three in a row died while they started.
        """
        if self.workers == 1:
            return self._map_here(start, jobs)
        threads = self.threads or share_of_cores([own_cores()], self.workers)
        return Dispatch(_Processes(start, threads), self.workers, "LocalExecutor").results(jobs)

    def _map_here(self, start: Callable[[], Worker[Job, Result]], jobs: Iterable[Job]) -> Generator[Result, None, None]:
        work: Worker[Job, Result] | None = None
        with _torch_threads(self.threads):
            for job in jobs:
                if work is None:
                    work = start()
                yield work(job)


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads of this process for a while; None changes nothing."""
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Member(NamedTuple):
    process: SpawnProcess
    connection: Connection


class _Processes:
    """A crew of spawned processes, each at the other end of its own pipe."""

    def __init__(self, start: Callable[[], Worker[Any, Any]], threads: int) -> None:
        self._start, self._threads = start, threads
        self._members: list[_Member] = []

    def hire(self) -> None:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, self._threads), name="coala-worker", daemon=True)
        with theirs, _environment_lock, environment(OMP_NUM_THREADS=str(self._threads)):
            process.start()
        member = _Member(process, ours)
        self._members.append(member)
        self._send(member, self._start)

    def assign(self, member: _Member, job: Any) -> None:
        self._send(member, (job,))

    def wait(self) -> Event[_Member]:
        heard = wait([member.connection for member in self._members])
        member = next(member for member in self._members if member.connection in heard)
        try:
            kind, value = member.connection.recv()
        except (EOFError, OSError):  # OSError in the middle of a message
            self._members.remove(member)
            return Event(member, "died", f"exit code {_end(member)}")
        if kind == "failed":
            raise value
        return Event(member, kind, value)

    def stop(self, resting: Collection[_Member]) -> None:
        for member in self._members:
            if member in resting:
                self._send(member, ())
            else:
                member.process.kill()
        deadline = time.monotonic() + _PATIENCE
        for member in self._members:
            member.process.join(max(0.0, deadline - time.monotonic()))
            _end(member)
        self._members.clear()

    def _send(self, member: _Member, message: object) -> None:
        # To a worker that has just died; `wait` is going to say so.
        with suppress(BrokenPipeError, ConnectionResetError):
            member.connection.send(message)


def _end(member: _Member) -> int | None:
    """Make sure that a process is gone, give its resources back, and return its exit code."""
    member.process.join(1.0)
    member.process.kill()
    member.process.join()
    code = member.process.exitcode
    member.process.close()
    member.connection.close()
    return code


def _serve(connection: Connection, threads: int) -> None:
    """Be a worker: load, then do what comes through the pipe until an empty message comes."""
    # Ctrl-C reaches the whole process group; the parent stops its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        work = connection.recv()()
        limit_threads(threads)
        connection.send(("ready", None))
        while message := connection.recv():
            connection.send(("done", work(*message)))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        connection.send(("failed", portable(error)))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Not prctl(PR_SET_PDEATHSIG): that fires when the parent's *thread* ends, and tasks run in threads.
    wait([parent.sentinel])
    os._exit(1)
