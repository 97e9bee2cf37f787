"""Prefect's server dies in the middle of a run and comes back: the run ends, and nothing that it says is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.faults.conftest import Undisturbed, digests_of, slow_config, torn
from tests.faults.test_cancelled import parents
from tests.faults.world import World, wait_for
from tests.lessons import quick_config

pytestmark = pytest.mark.slow

AWAY_SECONDS = 5.0


def lease_is_renewed(prefect: World, number: str) -> bool:
    """Whether the run's place under the deployment's limit is still its own, asked as the run itself asks."""
    lease = prefect.run(number).state["state_details"]["deployment_concurrency_lease_id"]
    assert lease is not None
    try:
        prefect.order(f"/v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 300})
    except HTTPError as error:
        assert error.code == 410
        return False
    return True


def test_a_run_and_its_worker_outlive_the_server(
    prefect: World, undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store, log = make_store("store"), tmp_path / "worker.log"
    config = slow_config(store, undisturbed.conversations, model)
    with prefect.working(log):
        number = prefect.submit(config)
        wait_for(lambda: list(store.glob("embed/*.partial")), "the run embeds", pause=0.01)
        assert lease_is_renewed(prefect, number)
        prefect.kill()
        assert not prefect.is_up()
        time.sleep(AWAY_SECONDS)
        prefect.start()
        if prefect.run(number).type == "RUNNING":
            assert lease_is_renewed(prefect, number), "else Prefect would end the run within four minutes"
        assert prefect.ended(number).type == "COMPLETED", log.read_text()
        tasks = prefect.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [number]}}})
        assert {task["name"].rpartition("-")[0] for task in tasks} == set(undisturbed.digests)
        shown = prefect.ask("/artifacts/filter", {"flow_runs": {"id": {"any_": [number]}}})
        assert {"report", "results"} <= {artifact["key"] for artifact in shown}
        # The worker goes on taking runs.
        quick = quick_config(make_store("next"), undisturbed.conversations, model)
        then = prefect.submit(quick.model_dump(mode="json", exclude_unset=True))
        assert prefect.ended(then).type == "COMPLETED", log.read_text()
    assert [run.info.status for run in parents(store)] == ["FINISHED"]
    assert digests_of(store) == undisturbed.digests
    assert torn(store) == []
