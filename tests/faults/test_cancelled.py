"""The UI's Cancel button on a real run of a worker: what is told, what is kept, and who may go on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.faults.conftest import Undisturbed, digests_of, slow_config, stages_of, torn
from tests.faults.world import World, wait_for

pytestmark = pytest.mark.slow


def parents(store: Path) -> list[Run]:
    """MLflow's runs of whole pipelines, the oldest first."""
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    whole = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return sorted(whole, key=lambda run: int(run.info.start_time))


def shards(store: Path) -> dict[str, int]:
    """When each finished shard was written."""
    return {
        path.stem: path.with_suffix(".parquet").stat().st_mtime_ns for path in store.glob("features/*/shard-*.json")
    }


def solving(prefect: World, number: str) -> bool:
    """Whether the run's page shows that some of the path is solved."""
    shown = prefect.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [number]}}})
    texts = [each["description"] or "" for each in shown if each["key"] == "solve-progress"]
    return any(re.match("solve: [1-9] of 10 weights", text) for text in texts)


def test_a_cancelled_run_is_killed_in_mlflow_keeps_its_shards_and_leaves_its_place(
    prefect: World, undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store, log = make_store("store"), tmp_path / "worker.log"
    # No weight of the path reaches its tolerance, and each takes seconds.
    thorough = {"tolerance": 1e-15, "max_sweeps": 4000}
    config = slow_config(store, undisturbed.conversations, model)
    long = slow_config(store, undisturbed.conversations, model, solve=thorough)
    with prefect.working(log):
        first = prefect.submit(config)
        wait_for(lambda: len(shards(store)) > 3, "some shards are finished", pause=0.01)
        answer = prefect.set_state(first, "CANCELLING")
        assert answer["status"] == "ACCEPT"
        assert prefect.ended(first).type == "CANCELLED", log.read_text()
        kept = shards(store)
        assert "embed" not in stages_of(store)

        second = prefect.submit(long)
        wait_for(lambda: solving(prefect, second), "the second run solves")
        assert {name: shards(store)[name] for name in kept} == kept
        assert prefect.set_state(second, "CANCELLING")["status"] == "ACCEPT"
        assert prefect.ended(second).type == "CANCELLED", log.read_text()
        assert len(list(store.glob("solve/*.partial/head.safetensors"))) == 1
        wait_for(lambda: "the best head so far is" in prefect.logs(second), "the run's page names the best head")

        third = prefect.submit(config)
        assert prefect.ended(third).type == "COMPLETED", log.read_text()
    assert [run.info.status for run in parents(store)] == ["KILLED", "KILLED", "FINISHED"]
    assert [run.data.tags["prefect.flow_run_id"] for run in parents(store)] == [first, second, third]
    assert len(kept) < len(shards(store))
    assert digests_of(store) == undisturbed.digests
    assert [name for name in torn(store) if not name.startswith("solve/")] == []
