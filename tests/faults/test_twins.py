"""The same run twice at the same time: each stage is computed by one of the two and reused by the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.faults.conftest import Undisturbed, digests_of, settings, slow_config, torn
from tests.faults.world import World, wait_for
from tests.flows.conftest import start_coala

pytestmark = pytest.mark.slow


def computed_by(store: Path) -> dict[str, list[str]]:
    """Parent runs in MLflow that say they computed a stage, by stage; reused ones are left out."""
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    made: dict[str, list[str]] = {}
    for run in found:
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent and run.data.tags["coala.reused"] == "false":
            made.setdefault(run.data.tags["coala.stage"], []).append(parent)
    statuses = Counter(run.info.status for run in found if "mlflow.parentRunId" not in run.data.tags)
    assert statuses == {"FINISHED": 2}
    return made


def told_well(store: Path, undisturbed: Undisturbed) -> None:
    assert digests_of(store) == undisturbed.digests
    assert torn(store) == []
    made = computed_by(store)
    assert {stage: len(runs) for stage, runs in made.items()} == dict.fromkeys(undisturbed.digests, 1)


def test_two_commands_at_once_compute_each_stage_once(
    undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store = make_store("store")
    words = ["run", *settings(slow_config(store, undisturbed.conversations, model))]
    twins = [start_coala(words, PREFECT_HOME=str(tmp_path / f"prefect-{number}")) for number in range(2)]
    try:
        ended = [(*twin.communicate(timeout=400), twin.returncode) for twin in twins]
    finally:
        for twin in twins:
            twin.kill()
    for _, err, status in ended:
        assert status == 0, err
    told_well(store, undisturbed)


def test_two_runs_of_a_worker_at_once_compute_each_stage_once(
    prefect: World, undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store, log = make_store("store"), tmp_path / "worker.log"
    config = slow_config(store, undisturbed.conversations, model)
    limit = prefect.ask("/deployments/name/coala/pipeline")
    prefect.change(f"/deployments/{limit['id']}", {"concurrency_limit": 2})
    try:
        runs = [prefect.submit(config) for _ in range(2)]
        with prefect.working(log):
            wait_for(
                lambda: all(prefect.run(number).type == "RUNNING" for number in runs), "both run at once", pause=0.05
            )
            assert [prefect.ended(number).type for number in runs] == ["COMPLETED"] * 2, log.read_text()
    finally:
        prefect.change(f"/deployments/{limit['id']}", {"concurrency_limit": 1})
    told_well(store, undisturbed)
