import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tasks.journal import Journal
from tasks.tracker import Tracker
from tasks.tracking import Destination, replay, store_uri, tracking_uri
from tests.tasks import mlflow_reading as reading
from tests.tasks.test_tracker import CONFIG, record_a_pipeline, unused_address


@pytest.fixture
def pending_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose pipeline ran while no server was there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", unused_address())
    record_a_pipeline(store).close()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return store


def twin_of(store: Path, make_store: Callable[[str], Path], name: str) -> Path:
    """Another store with the same journals and files, and an empty database."""
    twin = make_store(name)
    shutil.copytree(store / "tracking", twin / "tracking")
    shutil.copytree(store / "solve", twin / "solve")
    return twin


def test_importing_the_seam_does_not_import_mlflow():
    code = "import sys, tasks.tracker, tasks.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_the_address_is_the_argument_then_the_variable_then_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri(tmp_path, "http://here:5000") == "http://here:5000"
    assert tracking_uri(tmp_path) == "http://there:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(Path("store")) == f"sqlite:///{tmp_path}/store/mlflow/mlflow.db"


@pytest.mark.parametrize(
    "uri",
    ["http://user:open-sesame@host:5000", "https://open-sesame@host", "postgresql://host/db?password=open-sesame"],
)
def test_credentials_in_the_address_are_refused_and_not_repeated(tmp_path, monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match="must not hold a password.*MLFLOW_TRACKING_PASSWORD") as error:
        Tracker.open(tmp_path, CONFIG, "parent", {})
    assert "open-sesame" not in str(error.value)
    assert not (tmp_path / "tracking").exists()


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "/tmp/mlruns"])
def test_a_folder_is_no_address(tmp_path, uri):
    with pytest.raises(ValueError, match="must name a server or a database.*leave it unset"):
        tracking_uri(tmp_path, uri)


def test_what_a_dead_server_missed_is_replayed_as_if_it_had_been_alive(pending_store, make_store, tmp_path):
    (run,) = [path.stem for path in (pending_store / "tracking").glob("*.jsonl")]
    dead = replay(pending_store)  # still dead
    assert (dead.delivered, list(dead.pending)) == ((), [run])

    uri = store_uri(pending_store)
    report = replay(pending_store, uri)
    assert (report.delivered, report.pending, report.refused) == ((run,), {}, ())
    journal = Journal.load(pending_store / "tracking" / f"{run}.jsonl")
    starts = {event["name"]: event["time"] for event in journal.events if event["event"] == "open"}
    ends = [event["time"] for event in journal.events if event["event"] == "close"]
    found = reading.snapshot(uri, tmp_path / "once")
    assert {name: state["info"][1] for name, state in found.items()} == starts
    assert [found[name]["info"][2] for name in ("solve", "finetune", "lesson-0")] == ends
    # History points carry the time at which their stage ended.
    assert found["finetune"]["metrics"]["loss"] == [(0, 1.0, ends[1]), (1, 1 / 2, ends[1]), (2, 1 / 3, ends[1])]
    assert found["solve"]["inputs"] == [("builtin", "d" * 36, "train"), ("builtin", "e" * 36, "validation")]


def test_replaying_twice_changes_nothing(pending_store, tmp_path):
    uri = store_uri(pending_store)
    replay(pending_store, uri)
    once = reading.snapshot(uri, tmp_path / "once")
    report = replay(pending_store, uri)
    assert (report.delivered, report.pending) == ((), {})
    assert str(reading.snapshot(uri, tmp_path / "twice")) == str(once)


@pytest.mark.slow
def test_a_replay_killed_after_any_delivery_and_before_its_note_doubles_nothing(
    pending_store, make_store, tmp_path, monkeypatch
):
    plain = twin_of(pending_store, make_store, "plain")
    replay(plain, store_uri(plain))

    acknowledge, struck = Journal.acknowledge, set()

    def strike_once_at_each(journal: Journal, destination: str, position: int, **details: object) -> None:
        if position not in struck:
            struck.add(position)
            raise KeyboardInterrupt
        acknowledge(journal, destination, position, **details)

    monkeypatch.setattr(Journal, "acknowledge", strike_once_at_each)
    report = None
    while report is None:
        try:
            report = replay(pending_store, store_uri(pending_store))
        except KeyboardInterrupt:
            continue
    (path,) = (pending_store / "tracking").glob("*.jsonl")
    assert len(struck) == len(path.read_text().splitlines()) >= 12  # it was struck at every event
    assert str(reading.snapshot(store_uri(pending_store), tmp_path / "a")) == str(
        reading.snapshot(store_uri(plain), tmp_path / "b")
    )


def test_all_events_again_change_nothing(store, tmp_path):
    tracker = record_a_pipeline(store)
    tracker.close()
    uri = store_uri(store)
    once = reading.snapshot(uri, tmp_path / "once")
    (store / "tracking" / f"{tracker.run_id}.sent").unlink()
    report = replay(store)
    assert report.delivered == (tracker.run_id,)
    assert str(reading.snapshot(uri, tmp_path / "again")) == str(once)


@pytest.mark.slow
def test_a_run_whose_process_died_in_mid_write_is_closed_as_killed(store, tmp_path):
    code = (
        "import os, pathlib, sys; from coala_core.config import TrackingConfig; from tasks.tracker import Tracker\n"
        "tracker = Tracker.open(pathlib.Path(sys.argv[1]), TrackingConfig(), 'parent', {})\n"
        "tracker.log_parent(metrics={'reached': 1.0})\n"
        'tracker._journal._file.write(b\'{"event": "lo\'); tracker._journal._file.flush()\n'
        "os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"MLFLOW_TRACKING_URI": unused_address()}
    died = subprocess.run([sys.executable, "-c", code, str(store)], cwd=Path(__file__).parents[2], env=environment)
    assert died.returncode == -signal.SIGKILL
    (path,) = (store / "tracking").glob("*.jsonl")
    last_sign = path.stat().st_mtime_ns // 1_000_000
    assert replay(store, store_uri(store)).delivered == (path.stem,)
    (run,) = reading.runs(store_uri(store)).values()
    assert (run.info.status, run.info.end_time, run.data.metrics) == ("KILLED", last_sign, {"reached": 1.0})


def test_a_run_in_progress_is_left_alone(store):
    tracker = Tracker.open(store, CONFIG, "parent", {})
    assert replay(store).pending == {tracker.run_id: "the process that writes it is still running"}
    tracker.close()
    assert reading.runs(store_uri(store))["parent"].info.status == "FINISHED"


def test_an_unreadable_journal_does_not_hold_up_the_others(pending_store):
    broken = pending_store / "tracking" / "00000000T000000-broken.jsonl"
    broken.write_text("{broken\n{}\n")
    report = replay(pending_store, store_uri(pending_store))
    assert len(report.delivered) == 1
    assert "must hold one JSON object a line" in report.pending[broken.stem]


def test_a_server_that_lost_its_database_gets_the_whole_run_again(store, empty_database, tmp_path):
    lost, fresh = store_uri(store), tmp_path / "fresh.db"
    shutil.copy(empty_database, fresh)
    tracker = Tracker.open(store, CONFIG, "parent", {})
    tracker.log_stage("solve", key="k", params={}, report_metrics={"neurons": 4.0})
    # The same destination now answers from an empty database.
    tracker._destination._client = MlflowClient(tracking_uri=f"sqlite:///{fresh}")
    tracker.log_parent(metrics={"test/accuracy": 0.75})
    tracker.close()
    found = reading.runs(f"sqlite:///{fresh}")
    assert found["solve"].data.metrics == {"neurons": 4.0}
    assert found["parent"].data.metrics == {"test/accuracy": 0.75}
    assert found["parent"].info.status == "FINISHED"
    assert "test/accuracy" not in reading.runs(lost)["parent"].data.metrics


def test_a_failing_opening_is_never_skipped(pending_store, monkeypatch):
    """Even a refusal leaves the run pending, since without a run there is nothing to record into."""

    def refuse(*_: object) -> None:
        raise MlflowException("no such place", error_code=1000)  # INVALID_PARAMETER_VALUE

    monkeypatch.setattr(Destination, "_open", refuse)
    report = replay(pending_store, store_uri(pending_store))
    assert list(report.pending.values()) == ["MlflowException: no such place"]
    monkeypatch.undo()
    assert len(replay(pending_store, store_uri(pending_store)).delivered) == 1


@contextmanager
def running_server(folder: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real MLflow server over a database in `folder`, killed at the end with all its children."""
    port = address.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_healthy(server, address)
        yield server
    finally:
        kill(server)


def wait_until_healthy(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail("the server did not come up")


def kill(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_real_server_killed_in_the_middle_gets_the_rest_later(store, empty_database, tmp_path, monkeypatch):
    folder, address = tmp_path / "server", unused_address()
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    report = store / "report.json"
    report.write_text("{}")
    history = [{"epoch": e, "loss": 1 / (e + 1)} for e in range(1500)]

    with running_server(folder, address) as server:
        tracker = Tracker.open(store, CONFIG, "parent", {})
        tracker.log_stage("solve", key="a", params={"gates": 4}, report_metrics={"bad": float("nan")}, files=[report])
        assert (tracker.pending, tracker.warnings) == (0, [])
        assert tracker.url == f"{address}/#/experiments/1/runs/{tracker.remote_id}?workflowType=machine_learning"
        kill(server)
        began = time.monotonic()
        tracker.log_stage("finetune", key="b", params={}, report_metrics={}, history=history, step="epoch")
        tracker.close()
        assert time.monotonic() - began < 10
        assert tracker.pending > 0 and len(tracker.warnings) == 1
    assert list(replay(store).pending) == [tracker.run_id]

    events = [json.loads(line) for line in (store / "tracking" / f"{tracker.run_id}.jsonl").read_text().splitlines()]
    ended = [event["time"] for event in events if event["event"] == "close"]
    with running_server(folder, address):
        assert replay(store).delivered == (tracker.run_id,)
        assert replay(store).delivered == ()
        check_the_completed_run(address, tracker, ended, tmp_path / "files")


def check_the_completed_run(address: str, tracker: Tracker, ended: list[int], folder: Path) -> None:
    found = reading.runs(address)
    assert sorted(found) == ["finetune", "parent", "solve"]
    assert [found[name].info.end_time for name in ("solve", "finetune", "parent")] == ended
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["finetune"].data.tags["mlflow.parentRunId"] == tracker.remote_id
    points = reading.curve(address, found["finetune"], "loss")
    assert points == [(e, 1 / (e + 1), ended[1]) for e in range(1500)]
    assert math.isnan(found["solve"].data.metrics["bad"])
    assert reading.artifacts(address, found["solve"], folder)["report.json"] == b"{}"
