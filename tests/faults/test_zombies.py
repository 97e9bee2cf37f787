"""Runs whose machine died: the server crashes them in the stated time and gives their place to the next one.

Runs stay alive here by waiting for an artifact's lock, which the test holds; so they cost no processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from coala_core.config import TripletsConfig
from coala_core.stages import triplets
from coala_core.storage import Store
from flows.zombies import HEARTBEAT_SECONDS, SILENCE_SECONDS, watch_for_zombies
from tests.faults.world import World, family, flow_processes, kill_all, wait_for
from tests.lessons import quick_config

pytestmark = pytest.mark.slow

LEASE_SECONDS = 300
"""After which the server gives a silent run's place away by itself, without changing the run."""
SLACK = 60
"""Seconds that a busy machine may add."""


@contextmanager
def kept_waiting(store: Path, lessons: Path) -> Iterator[None]:
    """Hold the lock of the first artifact that a run in this store makes."""
    shelf = Store(store)
    with shelf.lock("triplets", triplets.plan(shelf, TripletsConfig(conversations=str(lessons))).key):
        yield


def watch(prefect: World, **seconds: float) -> list[str]:
    with temporary_settings({PREFECT_API_URL: prefect.api}):
        return watch_for_zombies(**seconds)


def heartbeats(prefect: World, number: str) -> int:
    wanted = {"resource": {"id": [f"prefect.flow-run.{number}"]}, "event": {"name": ["prefect.flow-run.heartbeat"]}}
    found: dict[str, Any] = prefect.ask("/events/filter", {"filter": wanted})
    return int(found["total"])


@pytest.mark.parametrize("seconds", [{"silence": 59}, {"start": 0}], ids=str)
def test_times_that_would_crash_living_runs_are_refused(seconds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 60 s of silence and a start above 0 s"):
        watch_for_zombies(**seconds)


def test_automations_are_made_once_and_stay_as_people_leave_them(prefect: World) -> None:
    made = watch(prefect)
    assert [name.partition(": ")[0] for name in made] == ["coala", "coala"]
    assert watch(prefect) == []
    found = {each["name"]: each for each in prefect.ask("/automations/filter", {})}
    assert set(found) == set(made)
    silent = found[made[0]]
    assert (silent["trigger"]["within"], silent["enabled"]) == (SILENCE_SECONDS, True)
    prefect.change(f"/automations/{silent['id']}", {"enabled": False})
    assert watch(prefect) == []
    assert watch(prefect, silence=90) == made[:1]
    changed = prefect.ask(f"/automations/{silent['id']}")
    assert (changed["trigger"]["within"], changed["enabled"]) == (90, False)
    prefect.change(f"/automations/{silent['id']}", {"enabled": True})
    assert watch(prefect) == made[:1]


def test_a_silent_run_is_crashed_in_time_and_a_queued_one_starts(
    prefect: World, lessons: Path, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    watch(prefect)

    def config(name: str) -> dict[str, Any]:
        return quick_config(make_store(name), lessons, model).model_dump(mode="json", exclude_unset=True)

    dies, lives, waits = config("dies"), config("lives"), config("waits")
    log = tmp_path / "worker.log"
    with kept_waiting(Path(dies["store"]), lessons), kept_waiting(Path(lives["store"]), lessons):
        with prefect.working(log) as worker:
            dead = prefect.submit(dies)
            wait_for(lambda: heartbeats(prefect, dead), "the run sends a heartbeat")
            queued = prefect.submit(waits)
            wait_for(lambda: prefect.run(queued).state["name"] == "AwaitingConcurrencySlot", "the second run waits")
            kill_all([*flow_processes(worker), *family(worker.pid)])
            killed = time.time()
        with prefect.working(log):
            living = prefect.submit({name: lives[name] for name in ("store", "triplets")}, "coala-data/data")
            wait_for(lambda: heartbeats(prefect, living), "a run beside them sends a heartbeat")
            assert prefect.run(dead).type == "RUNNING", "nobody has said anything yet"
            ended = prefect.ended(dead, SILENCE_SECONDS + SLACK)
            seconds = time.time() - killed
            assert (ended.type, ended.state["message"].partition(":")[0]) == (
                "CRASHED",
                f"No heartbeat for {SILENCE_SECONDS} s",
            )
            assert SILENCE_SECONDS - HEARTBEAT_SECONDS <= seconds + 5 <= SILENCE_SECONDS + SLACK
            assert prefect.ended(queued).type == "COMPLETED", log.read_text()
            begun = datetime.fromisoformat(prefect.ask(f"/flow_runs/{queued}")["start_time"]).timestamp()
            assert begun - killed < LEASE_SECONDS
            wait_for(lambda: heartbeats(prefect, living) > 1, "the living run goes on sending")
            assert prefect.run(living).type == "RUNNING"


def test_a_run_whose_worker_died_before_it_began_is_crashed(
    prefect: World, lessons: Path, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    watch(prefect, start=15)
    config = quick_config(make_store("store"), lessons, model).model_dump(mode="json", exclude_unset=True)
    with prefect.working(tmp_path / "worker.log") as worker:
        number = prefect.submit(config)
        wait_for(lambda: prefect.run(number).type == "PENDING", "a worker takes the run", pause=0.02)
        kill_all([*flow_processes(worker), *family(worker.pid)])
    ended = prefect.ended(number)
    assert (ended.type, ended.state["message"]) == (
        "CRASHED",
        "Not started within 15 s: the worker that took this run went away.",
    )
    assert len(watch(prefect)) == 1
