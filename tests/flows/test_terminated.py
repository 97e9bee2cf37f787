"""SIGTERM to the process of a flow, which is what cancelling a run in Prefect comes to."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.journal import Journal
from tasks.tracking import store_uri
from tests.flows.conftest import kill_group, start_coala
from tests.lessons import write_lessons
from tests.tasks import mlflow_reading as reading

pytestmark = pytest.mark.slow


def test_a_terminated_run_is_killed_in_mlflow_and_keeps_its_shards(
    model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store, many = make_store("store"), write_lessons(tmp_path / "many.jsonl", 400)
    settings = ["embed.shard_rows=2", "embed.layers=[4]", "embed.batch_tokens=128"]
    chosen = [word for setting in settings for word in ("--set", setting)]
    arguments = ["run", "--store", store, "--conversations", many, "--model", model, *chosen]
    process = start_coala(arguments, PREFECT_HOME=str(tmp_path / "prefect"))
    try:
        deadline = time.monotonic() + 180
        while len(list(store.glob("features/*/shard-*.json"))) < 3 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) != 0
    finally:
        kill_group(process)  # with the temporary Prefect server
        process.communicate()
    (path,) = (store / "tracking").glob("*.jsonl")
    journal = Journal.load(path)  # its lock is free
    assert journal.is_complete()  # delivered by the run itself, not by `coala replay`
    journal.close()
    found = reading.runs(store_uri(store))
    (parent,) = [run for run in found.values() if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "KILLED" and parent.info.end_time is not None
    assert {name for name, run in found.items() if run.info.status == "FINISHED"} >= {"triplets", "split"}
    assert "embed" not in found
    assert len(list(store.glob("features/*/shard-*.json"))) >= 3
    assert not list((store / "embed").glob("*/manifest.json"))
