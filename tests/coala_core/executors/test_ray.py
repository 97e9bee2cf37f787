"""The same jobs through Ray actors: the same contract, and the same bytes as local workers give."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from coala_core.executors import RayExecutor, make_executor
from tests.coala_core.executors import workers
from tests.coala_core.executors.workers import Answer, Job

pytestmark = pytest.mark.slow


def eventually(condition: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for this module, with two cores."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    yield ray
    ray.shutdown()


@pytest.fixture
def nobody_is_left(ray: Any) -> Iterator[None]:
    """The actors of a test end with it, so that their cores are free again; Ray goes on."""
    yield
    assert ray.is_initialized()
    assert eventually(lambda: ray.available_resources().get("CPU") == 2.0), ray.available_resources()


@pytest.mark.usefixtures("nobody_is_left")
def test_every_job_is_done_once_and_pulled_late(tmp_path: Path) -> None:
    taken: list[Job] = []

    def jobs() -> Iterator[Job]:
        for number in range(12):
            taken.append(Job(number, "meet", str(tmp_path)))
            yield taken[-1]

    answers: list[Answer] = []
    for answer in RayExecutor(2, 1.0).map(partial(workers.start, str(tmp_path)), jobs()):
        answers.append(answer)
        assert len(answers) <= len(taken) <= len(answers) + 4
    assert sorted(answer.square for answer in answers) == [number**2 for number in range(12)]
    started = sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("started-*"))
    assert started == sorted({answer.pid for answer in answers})
    assert len(started) == 2 and os.getpid() not in started


@pytest.mark.usefixtures("nobody_is_left")
def test_local_and_ray_give_the_same_threads_and_bytes() -> None:
    # Ray has room for one worker of two cores only, which then does everything.
    made = [make_executor(kind, workers=2, cpus_per_worker=2.0) for kind in ("local", "ray")]
    local, distributed = (sorted(executor.map(workers.start_multiplying, range(4))) for executor in made)
    assert local == distributed
    assert [(seed, threads) for seed, threads, _ in local] == [(0, 2), (1, 2), (2, 2), (3, 2)]


@pytest.mark.usefixtures("nobody_is_left")
def test_a_killed_actor_loses_nothing(tmp_path: Path) -> None:
    jobs = [Job(0), Job(1, "hang once", str(tmp_path)), *map(Job, range(2, 6))]
    file = tmp_path / "attempts-1"

    def kill() -> None:
        assert eventually(lambda: file.exists() and file.read_text().endswith("\n"))
        os.kill(int(file.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    answers = list(RayExecutor(2, 1.0).map(partial(workers.start, str(tmp_path)), jobs))
    killer.join()
    assert sorted(answer.square for answer in answers) == [0, 1, 4, 9, 16, 25]
    assert len(set(file.read_text().splitlines())) == 2, "another worker did it"


@pytest.mark.usefixtures("nobody_is_left")
def test_a_job_that_kills_its_worker_is_tried_three_times(tmp_path: Path) -> None:
    message = r"`RayExecutor.map\(jobs=...\)` .*Job\(number=1, .*\), at which 3 workers died .*ActorDiedError.*; make"
    with pytest.raises(RuntimeError, match=message) as raised:
        list(RayExecutor(1, 1.0).map(partial(workers.start, str(tmp_path)), [Job(1, "die", str(tmp_path))]))
    assert "\n" not in str(raised.value)
    assert len(set((tmp_path / "attempts-1").read_text().splitlines())) == 3


@pytest.mark.usefixtures("nobody_is_left")
def test_workers_that_die_while_they_start_are_given_up() -> None:
    with pytest.raises(RuntimeError, match=r"3 workers in a row that died while they started \(ActorDiedError"):
        list(RayExecutor(1, 1.0).map(workers.start_dying, [Job(0)]))


@pytest.mark.usefixtures("nobody_is_left")
def test_errors_keep_their_type_and_message(tmp_path: Path) -> None:
    start = partial(workers.start, str(tmp_path))
    with pytest.raises(ValueError, match="7 is not liked") as raised:
        list(RayExecutor(2, 1.0).map(start, [Job(1, "hang once", str(tmp_path)), Job(7, "ValueError")]))
    assert (type(raised.value), str(raised.value)) == (ValueError, "7 is not liked")
    assert "in raise_value_error" in raised.value.__notes__[0], "where in the worker it happened"
    with pytest.raises(KeyError, match="'weights'"):
        list(RayExecutor(1, 1.0).map(workers.start_failing, [Job(7)]))
    with pytest.raises(RuntimeError, match="AwkwardError: do not like 7"):
        list(RayExecutor(1, 1.0).map(start, [Job(7, "AwkwardError")]))


@pytest.mark.usefixtures("nobody_is_left")
def test_closing_early_stops_an_actor_in_the_middle_of_its_job(tmp_path: Path) -> None:
    answers = RayExecutor(2, 1.0).map(
        partial(workers.start, str(tmp_path)), [Job(1, "hang once", str(tmp_path)), Job(2)]
    )
    assert next(answers).square == 4
    assert eventually((tmp_path / "attempts-1").exists)
    pid = int((tmp_path / "attempts-1").read_text())
    answers.close()
    assert eventually(lambda: not psutil.pid_exists(pid), 5)


@pytest.mark.usefixtures("nobody_is_left")
def test_fewer_places_than_workers_are_enough(tmp_path: Path) -> None:
    answers = list(RayExecutor(5, 1.0).map(partial(workers.start, str(tmp_path)), map(Job, range(10))))
    assert sorted(answer.square for answer in answers) == [number**2 for number in range(10)]


@pytest.mark.usefixtures("ray")
def test_room_that_no_machine_has_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a machine with 3 cores and 0 GPUs for a worker, got 2 and 0 at most; "):
        list(RayExecutor(1, 3.0).map(workers.start_failing, [Job(0)]))
    with pytest.raises(ValueError, match="needs a machine with 1 cores and 1 GPUs for a worker, got 2 and 0 at most; "):
        list(RayExecutor(1, 1.0, 1.0).map(workers.start_failing, [Job(0)]))


@pytest.mark.usefixtures("nobody_is_left")
@pytest.mark.parametrize("by", ["auto", "host and port"])
def test_a_running_cluster_is_joined_and_goes_on(ray: Any, tmp_path: Path, by: str) -> None:
    address = "auto" if by == "auto" else ray.get_runtime_context().gcs_address
    code = f"""
from functools import partial
from coala_core.executors import RayExecutor
from tests.coala_core.executors import workers

executor = RayExecutor(2, address={address!r})
jobs = map(workers.Job, range(5))
print(sorted(answer.square for answer in executor.map(partial(workers.start, {str(tmp_path)!r}), jobs)))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 4, 9, 16]\n"), done.stderr
    pids = {int(path.name.split("-")[1]) for path in tmp_path.glob("started-*")}
    assert pids and eventually(lambda: not any(map(psutil.pid_exists, pids)))


SCRIPT = """
import signal, sys
from functools import partial
from coala_core.executors import make_executor
from tests.coala_core.executors import workers

handler = lambda *_: None
signal.signal(signal.SIGTERM, handler)
folder, act = sys.argv[1:]
jobs = [workers.Job(1), workers.Job(2, act, folder)]
for answer in make_executor("ray", 2, 1.0).map(partial(workers.start, folder), jobs):
    print(answer.square, answer.omp, flush=True)
assert signal.getsignal(signal.SIGTERM) is handler
import ray
assert not ray.is_initialized()
"""


def program(folder: Path, act: str) -> subprocess.Popen[str]:
    """Start a program that starts Ray for itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), act],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_ray_of_its_own_is_quiet_and_ends_with_the_jobs(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    process = program(tmp_path, "hang once")
    try:
        assert eventually((tmp_path / "attempts-2").exists, 60)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(int((tmp_path / "attempts-2").read_text()), signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert sorted(out.splitlines()) == ["1 1", "4 1"]
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_no_actor_outlives_a_killed_parent(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    process = program(tmp_path, "hang once")
    try:
        assert eventually((tmp_path / "attempts-2").exists, 60)
        # Two small agents of Ray go on for about a minute, because they try to tell a server that is gone, too.
        family = [p for p in psutil.Process(process.pid).children(recursive=True) if not p.name().endswith("Agent")]
        assert int((tmp_path / "attempts-2").read_text()) in [child.pid for child in family]
    finally:
        process.kill()
        process.communicate()
    assert psutil.wait_procs(family, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), r"`RayExecutor\(workers=...\)` must be a whole number of at least 1, got 0; "),
        ((1, 0), r"`RayExecutor\(cpus_per_worker=...\)` must be a positive number, got 0; "),
        (
            (1, None, -1.0),
            r"`RayExecutor\(gpus_per_worker=...\)` must be between 0 and 1, or a whole number, got -1.0; ",
        ),
        ((1, None, 1.5), r"`RayExecutor\(gpus_per_worker=...\)` must be between 0 and 1, or a whole number, got 1.5; "),
        (
            (1, None, 0.0, "ray://x:1"),
            r"`RayExecutor\(address=...\)` must be auto or host:port .*, got 'ray://x:1'; run",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_executor("ray", *arguments)


def test_without_jobs_ray_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(RayExecutor(2).map(workers.start_failing, [])) == []
    with pytest.raises(ModuleNotFoundError, match=r"needs the package ray, .*; run `pip install .*\[ray\]'`, or use"):
        list(RayExecutor(2).map(workers.start_failing, [Job(0)]))


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, address: str) -> None:
    pytest.importorskip("ray")
    # In a process of its own that knows nothing of the Ray of this one, which would be used.
    code = f"""
import functools
from ray._private import services
from coala_core.executors import RayExecutor
services._cached_find_gcs_addresses = functools.cache(set)
try:
    list(RayExecutor(1, address={address!r}).map(print, [0]))
except ConnectionError as error:
    print(error)
"""
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith(f"`RayExecutor(address='{address}')` must lead to a running cluster, got none; run")
