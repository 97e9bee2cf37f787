"""The log of a run: one JSON object a line, each run its own, bounded, and without secrets."""

from __future__ import annotations

import json
import logging
import threading
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import logs
from tasks.logs import LOGGERS, current_run, run_log, without_secrets

log = logging.getLogger("coala.test")


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    for name in LOGGERS:
        caplog.set_level(logging.INFO, name)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_record_is_a_line_with_the_run_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log.info("before")
    with run_log(tmp_path, "20260101T000000-abcd") as path:
        log.info("%d of %d\nfeatures", 1, 2)
        logging.getLogger("elsewhere").error("not of this run")
        assert current_run() == "20260101T000000-abcd"
    log.info("after")
    assert path == tmp_path / "logs" / "20260101T000000-abcd.jsonl"
    (entry,) = lines(path)
    moment = datetime.fromisoformat(entry.pop("time"))
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=60)
    assert entry == {
        "level": "INFO",
        "logger": "coala.test",
        "message": "1 of 2\nfeatures",
        "run_id": "20260101T000000-abcd",
        "stage": None,
        "flow_run_id": None,
        "task_run_id": None,
    }
    # Whoever else listens finds the run id on the record.
    assert [getattr(record, "coala_run", None) for record in caplog.records if record.name == "coala.test"][1:] == [
        "20260101T000000-abcd",
        None,
    ]
    assert current_run() is None


def test_a_failure_is_logged_with_its_traceback(tmp_path: Path) -> None:
    with run_log(tmp_path, "r") as path:
        try:
            raise ZeroDivisionError("nothing to divide by")
        except ZeroDivisionError:
            log.exception("failed")
    (entry,) = lines(path)
    assert entry["exception"].splitlines()[-1] == "ZeroDivisionError: nothing to divide by"


@pytest.mark.parametrize(("kind", "level"), [(ValueError, "ERROR"), (KeyboardInterrupt, "WARNING")])
def test_what_ends_a_run_is_the_last_line(tmp_path: Path, kind: type[BaseException], level: str) -> None:
    with pytest.raises(kind), run_log(tmp_path, "r") as path:
        raise kind("no such token=hush")
    (entry,) = lines(path)
    assert (entry["message"], entry["level"]) == (f"the run ended by {kind.__name__}", level)
    assert entry["exception"].splitlines()[-1] == f"{kind.__name__}: no such token=***"


def test_a_record_whose_arguments_do_not_fit_is_kept_as_it_is(tmp_path: Path) -> None:
    with run_log(tmp_path, "r") as path:
        # Straight to the handler, since pytest's own would fail on it.
        record = logging.LogRecord("coala.test", logging.INFO, "", 0, "%d things", ("many",), None)
        for handler in logging.getLogger("coala").handlers:
            if isinstance(handler, logs._JsonLines):
                handler.handle(record)
    assert lines(path)[0]["message"] == "%d things"


def test_runs_at_the_same_time_get_their_own_records(tmp_path: Path) -> None:
    ready = threading.Barrier(2)

    def run(name: str) -> None:
        with run_log(tmp_path, name):
            ready.wait(10)
            for number in range(20):
                log.info("%s %d", name, number)
            # As Prefect starts a task in a thread.
            thread = threading.Thread(target=copy_context().run, args=(log.info, "%s inside", name))
            thread.start()
            thread.join()
            ready.wait(10)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for name in ("one", "two"):
        messages = [entry["message"] for entry in lines(tmp_path / "logs" / f"{name}.jsonl")]
        assert messages == [*(f"{name} {number}" for number in range(20)), f"{name} inside"]


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    with run_log(tmp_path, "r") as path:
        for number in range(100):
            log.info("record %d", number)
    assert sorted(each.name for each in path.parent.iterdir()) == ["r.jsonl", "r.jsonl.1"]
    assert all(each.stat().st_size <= 2000 for each in path.parent.iterdir())
    assert lines(path)[-1]["message"] == "record 99"


def test_a_log_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_log(tmp_path, "r") as path:
        path.mkdir()  # as where the disk is full: opening the file fails
        log.info("goes on")
    assert "Traceback" not in capsys.readouterr().err


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=6), st.text())
def test_no_secret_of_the_environment_is_logged(secret: str, around: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
        assert secret not in without_secrets(f"{around}{secret}{around}").replace("***", " ") or secret in "***"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("see http://user:hush@host/x", "see http://***@host/x"),
        ("?token=hush&a=1", "?token=***&a=1"),
        ("plain words", "plain words"),
    ],
)
def test_credentials_of_addresses_are_masked(text: str, kept: str) -> None:
    assert without_secrets(text) == kept


@pytest.mark.usefixtures("prefect_server")
def test_records_of_a_prefect_run_name_flow_task_and_stage(tmp_path: Path) -> None:
    from prefect import flow, task
    from prefect.context import FlowRunContext
    from prefect.logging import get_run_logger

    @task(name="embed")
    def work() -> None:
        log.info("from a stage")
        get_run_logger().info("from a task")

    @flow(name="logged")
    def logged() -> str:
        with run_log(tmp_path, "r"):
            get_run_logger().info("from a flow")
            work()
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        return str(context.flow_run.id)

    run = logged()
    entries = {entry["message"]: entry for entry in lines(tmp_path / "logs" / "r.jsonl")}
    assert {entries[f"from a {what}"]["flow_run_id"] for what in ("stage", "task", "flow")} == {run}
    assert (entries["from a stage"]["stage"], entries["from a task"]["stage"]) == ("embed", "embed")
    assert entries["from a flow"]["stage"] is None
    assert entries["from a stage"]["task_run_id"] == entries["from a task"]["task_run_id"] is not None
