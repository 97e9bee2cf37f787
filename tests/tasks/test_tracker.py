import logging
import math
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coala_core.config import TrackingConfig
from tasks.tracker import Tracker
from tasks.tracking import store_uri
from tests.tasks import mlflow_reading as reading

CONFIG = TrackingConfig(experiment="lessons")
HISTORY = [{"epoch": e, "loss": 1 / (e + 1), "rewards/margins": 0.1 * e, "note": "text"} for e in range(3)]


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def record_a_pipeline(store: Path) -> Tracker:
    """Parent and two stages, with everything that can be recorded."""
    report = store / "solve" / "report.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text('{"neurons": 4}')
    tracker = Tracker.open(store, CONFIG, "lesson-0", {"version.coala": "0.1.0"})
    tracker.log_parent(params={"solve": {"gates": 50}}, tags={"note": "é" * 9000})
    tracker.log_stage(
        "solve",
        key="0123abcd",
        params={"gates": 50, "path": [0.5, 0.25], "prose": "x" * 7000},
        report_metrics={"neurons": 4.0, "bound": float("-inf"), "undefined": float("nan")},
        datasets=[("builtin", "d" * 64, "train"), ("builtin", "e" * 64, "validation")],
        files=[report],
        started=1_700_000_000.5,
    )
    tracker.log_stage("finetune", key="4567", params={}, report_metrics={"loss": 0.25}, history=HISTORY, step="epoch")
    tracker.log_parent(metrics={"test/accuracy": 0.75})
    return tracker


def test_runs_have_their_places_names_and_times(store):
    before = time.time_ns() // 1_000_000
    tracker = record_a_pipeline(store)
    tracker.close("FINISHED")
    found = reading.runs(store_uri(store))
    parent, solve, finetune = found["lesson-0"], found["solve"], found["finetune"]
    assert (tracker.pending, tracker.warnings, tracker.url) == (0, [], None)
    assert tracker.remote_id == parent.info.run_id
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert solve.data.tags["mlflow.parentRunId"] == finetune.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert before <= parent.info.start_time <= solve.info.end_time <= finetune.info.start_time <= parent.info.end_time
    assert solve.info.start_time == 1_700_000_000_500


def test_tags_and_parameters_are_kept_and_long_ones_are_in_artifacts(store):
    tracker = record_a_pipeline(store)
    tracker.close()
    found = reading.runs(store_uri(store))
    parent, solve = found["lesson-0"].data, found["solve"].data
    assert (parent.tags["coala.run"], parent.tags["version.coala"]) == (tracker.run_id, "0.1.0")
    assert parent.tags["note"] == "(9000 characters, whole in artifact tags.json)"
    assert parent.params == {"solve.gates": "50"}
    assert (solve.tags["coala.stage"], solve.tags["coala.key"]) == ("solve", "0123abcd")
    assert solve.params["path"] == "[0.5, 0.25]"
    assert solve.params["prose"] == "(7000 characters, whole in artifact config.json)"


def test_metrics_are_kept_with_their_steps(store):
    record_a_pipeline(store).close()
    uri = store_uri(store)
    found = reading.runs(uri)
    solve, finetune = found["solve"].data, found["finetune"].data
    assert found["lesson-0"].data.metrics == {"test/accuracy": 0.75}
    # MLflow has no infinity, so the tag has it; NaN it has.
    assert set(solve.metrics) == {"neurons", "undefined"}
    assert solve.tags["coala.infinite"] == "bound -inf at 0"
    assert math.isnan(solve.metrics["undefined"])
    losses = [(step, value) for step, value, _ in reading.curve(uri, found["finetune"], "loss")]
    assert losses == [(0, 1.0), (1, 1 / 2), (2, 1 / 3)]
    assert finetune.metrics["final/loss"] == 0.25
    assert "note" not in finetune.metrics


def test_datasets_and_files_are_kept_under_the_store(store, tmp_path, monkeypatch):
    elsewhere = tmp_path / "working-directory"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    record_a_pipeline(store).close()
    uri = store_uri(store)
    solve = reading.runs(uri)["solve"]
    uses = {(use.dataset.digest, use.tags[0].value) for use in solve.inputs.dataset_inputs}
    assert uses == {("d" * 36, "train"), ("e" * 36, "validation")}
    files = reading.artifacts(uri, solve, tmp_path / "downloads")
    assert files["report.json"] == b'{"neurons": 4}'
    assert b'"prose": "' + b"x" * 7000 in files["config.json"]
    assert Path(solve.info.artifact_uri.removeprefix("file://")).is_relative_to(store / "mlflow" / "artifacts")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_the_closing_status_is_kept_and_the_first_close_counts(store, status):
    tracker = Tracker.open(store, CONFIG, "ends", {})
    tracker.close(status)
    tracker.close("FINISHED")
    assert reading.runs(store_uri(store))["ends"].info.status == status
    with pytest.raises(ValueError, match="after `Tracker.close`"):
        tracker.log_parent(metrics={"late": 1.0})


def test_the_configured_name_goes_first(store):
    Tracker.open(store, TrackingConfig(run_name="mine"), "derived", {}).close()
    assert list(reading.runs(store_uri(store))) == ["mine"]


def test_stages_of_several_threads_do_not_mix(store):
    tracker = Tracker.open(store, CONFIG, "parent", {})

    def stage(number: int) -> None:
        tracker.log_stage(f"stage-{number}", key="k", params={}, report_metrics={"number": number})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(stage, range(8)))
    tracker.close()
    found = reading.runs(store_uri(store))
    assert {name: run.data.metrics for name, run in found.items() if name != "parent"} == {
        f"stage-{number}": {"number": float(number)} for number in range(8)
    }


def test_a_server_that_never_existed_costs_seconds_and_one_warning(store, monkeypatch, caplog):
    address = unused_address()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="coala.tracking"):
        tracker = record_a_pipeline(store)
        tracker.close()
    assert time.monotonic() - began < 5
    # Opening, two stages and two records of the parent hold at least this many events.
    assert tracker.pending >= 12
    assert (tracker.remote_id, tracker.url) == (None, None)
    (warning,) = tracker.warnings
    assert address in warning and "`replay` delivers them" in warning
    assert [record.message for record in caplog.records] == [warning]


def test_a_silent_server_is_not_asked_again_at_once(store, monkeypatch):
    asked = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", unused_address())
    tracker = Tracker.open(store, CONFIG, "parent", {})
    monkeypatch.setattr(tracker._destination, "deliver", lambda journal: asked.append(1) or "still dead")
    for _ in range(5):
        tracker.log_parent(metrics={"m": 1.0})
    assert len(asked) == 0  # the failure at opening is fresh
    tracker.close()
    assert len(asked) == 1  # the end is worth one more try


def test_a_refused_record_is_told_and_does_not_hold_up_the_others(store):
    tracker = Tracker.open(store, CONFIG, "parent", {})
    tracker.log_parent(params={"gates": 50})
    tracker.log_parent(params={"gates": 60})  # MLflow never changes a parameter
    tracker.log_parent(files=[store / "vanished.png"], metrics={"later": 1.0})
    tracker.close()
    assert tracker.pending == 0
    assert [w.split(" event")[0] for w in tracker.warnings] == ["MLflow refused a 'log'", "MLflow refused a 'file'"]
    assert reading.runs(store_uri(store))["parent"].data.metrics == {"later": 1.0}


def test_a_settings_choice_of_the_user_stays(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    Tracker.open(store, CONFIG, "parent", {}).close()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"
