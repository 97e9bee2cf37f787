"""`kill -9` of the worker and of its flow in every stage, one after the other: at the end the undisturbed bytes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coala_core.housekeeping import Policy, choose, remove, take_inventory
from coala_core.storage import Store
from tests.faults.conftest import Undisturbed, digests_of, slow_config, stages_of, torn
from tests.faults.world import PATIENCE, World, family, flow_processes, kill_all, wait_for

pytestmark = pytest.mark.slow

ATTEMPTS = 8


def at_work(store: Path, stage: str) -> bool:
    """Whether the stage has begun; of `embed`, whether some shards are finished."""
    if stage == "embed":
        return len(list(store.glob("features/*/shard-*.json"))) > 3
    return any(store.glob(f"{stage}/*.partial"))


def strike(prefect: World, worker: subprocess.Popen[bytes], store: Path, stage: str, config: dict[str, Any]) -> str:
    """Ask for a run, and kill worker and flow as soon as the stage is at work; the run's id."""
    known = set(store.glob("tracking/*.jsonl"))
    number = prefect.submit(config)
    wait_for(lambda: set(store.glob("tracking/*.jsonl")) - known, "the flow opens its journal", pause=0.01)
    victims = [*flow_processes(worker), *family(worker.pid)]
    deadline = time.monotonic() + PATIENCE
    while not at_work(store, stage) and time.monotonic() < deadline and victims[0].is_running():
        time.sleep(0.0005)
    kill_all(victims)
    return number


def test_a_run_killed_in_every_stage_ends_with_the_undisturbed_bytes(
    prefect: World, undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store = make_store("store")
    config = slow_config(store, undisturbed.conversations, model)
    stages = list(undisturbed.digests)
    for stage in stages:
        for _ in range(ATTEMPTS):
            with prefect.working(tmp_path / "worker.log") as worker:
                number = strike(prefect, worker, store, stage, config)
            assert prefect.run(number).type not in ("COMPLETED", "FAILED")
            prefect.bury(number)
            if stage not in stages_of(store):
                break
            # Finished before it could be killed: once more.
            for late in stages[stages.index(stage) :]:
                shutil.rmtree(store / late, ignore_errors=True)
        else:
            pytest.fail(f"{stage} was finished before it could be killed, {ATTEMPTS} times")
        assert list(stages_of(store)) == stages[: stages.index(stage)]
        assert all(digests == undisturbed.digests[name] for name, digests in digests_of(store).items())
    with prefect.working(tmp_path / "worker.log"):
        number = prefect.submit(config)
        ended = prefect.ended(number)
    assert ended.type == "COMPLETED", (tmp_path / "worker.log").read_text()
    assert digests_of(store) == undisturbed.digests
    # Nobody can tell whether a half-written file of the shared cache is still being written: `coala gc` waits a day.
    assert [name for name in torn(store) if not name.startswith("features/")] == []
    shelf, tomorrow = Store(store), time.time() + 2 * 86_400.0
    remove(shelf, choose(take_inventory(shelf), Policy(now=tomorrow)))
    assert torn(store) == []
    assert digests_of(store) == undisturbed.digests
