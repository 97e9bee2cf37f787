"""What the workers of these tests do; light, because every worker process imports it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ANSWER_BYTES = 4_000_000  # more than a pipe holds


class Job(NamedTuple):
    """A number to square, and what happens on the way."""

    number: int
    act: str = "nothing"
    folder: str = ""


class Answer(NamedTuple):
    """A square, and who found it."""

    square: int
    pid: int
    omp: str | None


class AwkwardError(Exception):
    """An exception that can be pickled but not unpickled."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")


def start(folder: str) -> Callable[[Job], Answer]:
    """Leave a file for every call, and return the worker's function."""
    Path(folder, f"started-{os.getpid()}-{time.monotonic_ns()}").touch()
    return work


def work(job: Job) -> Answer:
    """Square the number, after the act."""
    ACTS[job.act](job)
    return Answer(job.number**2, os.getpid(), os.environ.get("OMP_NUM_THREADS"))


def attempts(job: Job) -> int:
    """Count the attempts at a job, this one included."""
    with Path(job.folder, f"attempts-{job.number}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(Path(job.folder, f"attempts-{job.number}").read_text().splitlines())


def meet(job: Job) -> None:
    """Wait until another worker has started, and a little longer."""
    deadline = time.monotonic() + 10
    while len(list(Path(job.folder).glob("started-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.02)


def hang_once(job: Job) -> None:
    """Take very long at the first attempt."""
    if attempts(job) == 1:
        time.sleep(600)


def die(job: Job) -> None:
    """Kill the worker at every attempt."""
    attempts(job)
    os._exit(7)


def die_while_answering_once(job: Job) -> None:
    """Kill the worker a little later."""
    if attempts(job) == 1:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()


def raise_value_error(job: Job) -> None:
    """Fail with an exception of the standard library."""
    raise ValueError(f"{job.number} is not liked")


def raise_awkward_error(job: Job) -> None:
    """Fail with an exception that cannot travel."""
    raise AwkwardError("do not like", job.number)


ACTS: dict[str, Callable[[Job], Any]] = {
    "nothing": lambda job: None,
    "pause": lambda job: time.sleep(0.02),
    "meet": meet,
    "hang once": hang_once,
    "die": die,
    "die while answering once": die_while_answering_once,
    "ValueError": raise_value_error,
    "AwkwardError": raise_awkward_error,
}


def start_answering_at_length() -> Callable[[Job], bytes]:
    """Return a function whose results do not fit into a pipe."""
    return answer_at_length


def answer_at_length(job: Job) -> bytes:
    """Return many bytes, after the act."""
    ACTS[job.act](job)
    return bytes([job.number]) * ANSWER_BYTES


def start_dying() -> Callable[[Job], Answer]:
    """Die while loading."""
    os._exit(9)


def start_failing() -> Callable[[Job], Answer]:
    """Fail while loading."""
    raise KeyError("weights")


def start_multiplying() -> Callable[[int], tuple[int, int, bytes]]:
    """Load torch, and return a function that multiplies matrices."""
    import torch

    def multiply(seed: int) -> tuple[int, int, bytes]:
        generator = torch.Generator().manual_seed(seed)
        left, right = torch.randn(2, 300, 300, generator=generator)
        return seed, torch.get_num_threads(), (left @ right).numpy().tobytes()

    return multiply


def start_reporting_torch() -> Callable[[int], bool]:
    """Return a function that tells whether torch is loaded."""
    return torch_is_loaded


def torch_is_loaded(job: int) -> bool:
    """Whether something has imported torch here."""
    return "torch" in sys.modules
