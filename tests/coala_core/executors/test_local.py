"""Many jobs through this process and through spawned ones, whatever happens to either."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from coala_core.executors import LocalExecutor, make_executor
from coala_core.executors.base import own_cores, share_of_cores, shortened
from tests.coala_core.executors import workers
from tests.coala_core.executors.workers import Answer, Job


def children() -> list[psutil.Process]:
    """Processes that this one started, but for the one that cleans up after multiprocessing."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "resource_tracker" not in " ".join(child.cmdline())]


def starts(folder: Path) -> list[int]:
    """Processes in which `start` was called, one entry per call."""
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("started-*"))


def eventually(condition: Callable[[], object], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    before = set(children())
    yield
    assert eventually(lambda: set(children()) <= before, 2), children()


class Counted:
    """An iterable that knows how much of it was taken."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs, self.taken = jobs, 0

    def __iter__(self) -> Iterator[Job]:
        for job in self.jobs:
            self.taken += 1
            yield job


@pytest.mark.parametrize("count", [1, 2])
def test_every_job_is_done_once_and_pulled_late(tmp_path: Path, count: int) -> None:
    jobs = Counted([Job(number, "meet" if count == 2 else "nothing", str(tmp_path)) for number in range(20)])
    answers: list[Answer] = []
    for answer in LocalExecutor(count, threads=3).map(partial(workers.start, str(tmp_path)), jobs):
        answers.append(answer)
        # Two per worker are in hand at most; one worker in this process has no use for a second.
        assert len(answers) <= jobs.taken <= len(answers) + 2 * count
    assert sorted(answer.square for answer in answers) == [number**2 for number in range(20)]
    assert starts(tmp_path) == sorted({answer.pid for answer in answers})
    assert len(starts(tmp_path)) == count
    if count == 1:
        assert {answer.pid for answer in answers} == {os.getpid()}
        assert [answer.square for answer in answers] == [number**2 for number in range(20)]
    else:
        assert os.getpid() not in starts(tmp_path)
        assert {answer.omp for answer in answers} == {"3"}
        assert os.environ["OMP_NUM_THREADS"] == "1", "as tests/conftest.py set it"


@pytest.mark.parametrize("count", [1, 2])
def test_without_jobs_nothing_is_loaded(tmp_path: Path, count: int) -> None:
    assert list(LocalExecutor(count).map(partial(workers.start, str(tmp_path)), [])) == []
    assert starts(tmp_path) == []


def test_no_more_workers_than_jobs_are_started(tmp_path: Path) -> None:
    (answer,) = LocalExecutor(4).map(partial(workers.start, str(tmp_path)), [Job(5)])
    assert answer.square == 25
    assert starts(tmp_path) == [answer.pid]
    assert answer.omp == str(max(1, own_cores() // 4))


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    jobs = [Job(0), Job(1, "hang once", str(tmp_path)), *map(Job, range(2, 6))]
    file = tmp_path / "attempts-1"

    def kill() -> None:
        assert eventually(lambda: file.exists() and file.read_text().endswith("\n"))
        os.kill(int(file.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    answers = list(LocalExecutor(2).map(partial(workers.start, str(tmp_path)), jobs))
    killer.join()
    assert sorted(answer.square for answer in answers) == [0, 1, 4, 9, 16, 25]
    assert len(set(file.read_text().splitlines())) == 2, "another worker did it"
    assert len(starts(tmp_path)) == len(set(starts(tmp_path)))


def test_a_worker_killed_in_the_middle_of_its_answer_loses_nothing(tmp_path: Path) -> None:
    jobs = [Job(1), Job(2, "die while answering once", str(tmp_path)), Job(3)]
    answers = []
    for answer in LocalExecutor(2).map(workers.start_answering_at_length, jobs):
        if not answers:
            assert eventually((tmp_path / "attempts-2").exists)
            time.sleep(0.6)  # nobody reads meanwhile, so that the answer is stuck in the pipe when its author dies
        answers.append((answer[0], set(answer), len(answer)))
    assert sorted(answers) == [(n, {n}, workers.ANSWER_BYTES) for n in (1, 2, 3)]
    assert len((tmp_path / "attempts-2").read_text().splitlines()) == 2


def test_a_job_that_kills_its_worker_is_tried_three_times(tmp_path: Path) -> None:
    jobs = [Job(0), Job(1, "die", str(tmp_path)), *[Job(n, "pause") for n in range(2, 400)]]
    message = r"must hold jobs that a worker survives, got Job\(number=1, .*\), at which 3 workers died .*exit code 7"
    with pytest.raises(RuntimeError, match=message) as raised:
        list(LocalExecutor(2).map(partial(workers.start, str(tmp_path)), jobs))
    assert children() == [] and "\n" not in str(raised.value)
    pids = (tmp_path / "attempts-1").read_text().splitlines()
    assert len(pids) == len(set(pids)) == 3


def test_workers_that_die_while_they_start_are_given_up() -> None:
    with pytest.raises(
        RuntimeError, match=r"3 workers in a row that died while they started \(exit code 9\); use fewer"
    ):
        list(LocalExecutor(2).map(workers.start_dying, map(Job, range(3))))
    assert children() == []


@pytest.mark.parametrize("count", [1, 2])
def test_errors_keep_their_type_and_message(tmp_path: Path, count: int) -> None:
    start = partial(workers.start, str(tmp_path))
    with pytest.raises(ValueError, match="7 is not liked") as raised:
        list(LocalExecutor(count).map(start, [Job(7, "ValueError"), Job(1, "hang once", str(tmp_path))]))
    assert str(raised.value) == "7 is not liked" and type(raised.value) is ValueError
    assert children() == []
    if count == 2:
        assert "in raise_value_error" in raised.value.__notes__[0], "where in the worker it happened"
    with pytest.raises(KeyError, match="'weights'"):
        list(LocalExecutor(count).map(workers.start_failing, [Job(7)]))


def test_an_error_that_cannot_travel_keeps_its_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="AwkwardError") as raised:
        list(LocalExecutor(2).map(partial(workers.start, str(tmp_path)), [Job(7, "AwkwardError")]))
    assert str(raised.value) == "AwkwardError: do not like 7"


def test_an_error_of_the_jobs_stops_the_workers(tmp_path: Path) -> None:
    def jobs() -> Iterator[Job]:
        yield Job(1, "hang once", str(tmp_path))
        assert eventually(lambda: starts(tmp_path))
        raise OSError("disk full")

    with pytest.raises(OSError, match="^disk full$"):
        list(LocalExecutor(2).map(partial(workers.start, str(tmp_path)), jobs()))
    assert children() == []


def test_closing_early_stops_a_worker_in_the_middle_of_its_job(tmp_path: Path) -> None:
    jobs = [Job(1, "hang once", str(tmp_path)), Job(2)]
    with closing(LocalExecutor(2).map(partial(workers.start, str(tmp_path)), jobs)) as answers:
        assert next(answers).square == 4
        assert eventually((tmp_path / "attempts-1").exists)
        before = time.monotonic()
    assert time.monotonic() - before < 2
    assert children() == []


def test_workers_outlive_the_thread_that_started_them(tmp_path: Path) -> None:
    answers = LocalExecutor(2).map(partial(workers.start, str(tmp_path)), map(Job, range(5)))
    found: list[Answer] = []
    thread = threading.Thread(target=lambda: found.append(next(answers)))
    thread.start()
    thread.join()
    time.sleep(0.2)  # what would kill them has had time to
    found += answers
    assert sorted(answer.square for answer in found) == [0, 1, 4, 9, 16]
    assert found[0].pid in {answer.pid for answer in found[1:]}
    assert len(starts(tmp_path)) == len(set(starts(tmp_path))) <= 2


SCRIPT = """
import sys
from functools import partial
from coala_core.executors import LocalExecutor
from tests.coala_core.executors import workers

def main() -> None:
    jobs = [workers.Job(number, "hang once", sys.argv[1]) for number in range(2)]
    for _ in LocalExecutor(2).map(partial(workers.start, sys.argv[1]), jobs):
        pass

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_no_worker_outlives_its_parent(tmp_path: Path, number: int, status: int) -> None:
    script = tmp_path / "program"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen([sys.executable, script, tmp_path], env=environment, stderr=subprocess.PIPE)
    try:
        assert eventually(lambda: len(list(tmp_path.glob("attempts-*"))) == 2)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        process.send_signal(number)
        assert eventually(lambda: process.poll() is not None, 3)
        assert process.returncode == status
        assert psutil.wait_procs(family, timeout=3)[1] == []
    finally:
        process.kill()
        process.communicate()


def test_threads_of_this_process_are_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    results = LocalExecutor(1, threads=before + 2).map(workers.start_multiplying, [0, 1])
    assert [threads for _, threads, _ in results] == [before + 2] * 2
    assert torch.get_num_threads() == before
    assert [threads for _, threads, _ in LocalExecutor(1).map(workers.start_multiplying, [0])] == [before]


def test_torch_is_not_loaded_for_workers_that_do_without() -> None:
    assert list(LocalExecutor(2, threads=1).map(workers.start_reporting_torch, [0])) == [False]


@pytest.mark.parametrize(
    ("cores", "count", "expected"),
    [
        ([8], 3, 2),  # 3 * 2 <= 8 < 3 * 3
        ([2], 4, 1),  # never below 1
        ([5, 3], 2, 3),  # one on each; 4 would leave the smaller machine out
        ([4, 4], 3, 2),  # two on one machine, one on the other
        ([4, 4], 1, 4),  # a worker lives on one machine
    ],
)
def test_cores_are_shared_by_machine(cores: list[float], count: int, expected: int) -> None:
    assert share_of_cores(cores, count) == expected


def test_long_jobs_are_shortened() -> None:
    assert shortened("x" * 1000) == "'" + "x" * 196 + "..."  # 1 + 196 + 3 = 200


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LocalExecutor(0), r"`LocalExecutor\(workers=...\)` must be a whole number of at least 1, got 0; "),
        (lambda: LocalExecutor(1.5), r"workers=...\)` must be a whole number of at least 1, got 1.5; "),
        (lambda: LocalExecutor(True), r"workers=...\)` must be a whole number of at least 1, got True; "),
        (lambda: LocalExecutor(1, threads=-1), r"threads=...\)` must be a whole number of at least 1, got -1; "),
        (lambda: make_executor("dask", 1), r"`make_executor\(kind=...\)` must be local or ray, got 'dask'; "),
        (lambda: make_executor("local", 1, gpus_per_worker=1.0), "must come without settings of Ray, got gpus.*=1.0"),
        (lambda: make_executor("local", 1, address="auto"), "must come without settings of Ray, got .*address='auto'"),
        (
            lambda: make_executor("local", 1, float("nan")),
            r"cpus_per_worker=...\)` must be a positive number, got nan; ",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert re.fullmatch(r"[^\n]+; [^\n.]+", str(raised.value).replace("...", ""))


def test_configured_cores_become_threads() -> None:
    made = [make_executor("local", 2, cpus) for cpus in (None, 0.5, 2.0, 3.9)]
    assert all(isinstance(executor, LocalExecutor) for executor in made)
    assert [(executor.workers, executor.threads) for executor in made] == [(2, None), (2, 1), (2, 2), (2, 3)]
