"""Runs that are refused, interrupted, or left alone by the tracking server; and names that would be markup."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flows.conftest import free_port, run_coala
from tests.flows.whole_runs import STAGES, children, last_flow_run, parents, pipeline
from tests.lessons import quick_config, write_lessons

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.parametrize(
    ("embed", "solve", "message"),
    [
        ({"layers": [2, 3]}, {"layer": 1}, "`solve.layer` must be one of the stored layers 2, 3, got 1"),
        ({"layers": []}, {"layer": 1, "pooling": "last"}, "`solve.pooling` must be made of the stored poolings mean"),
    ],
)
def test_what_embed_will_not_store_is_refused_before_anything_runs(
    tmp_path: Path, lessons: Path, model: Path, embed: dict[str, object], solve: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(quick_config(tmp_path / "store", lessons, model, embed=embed, solve=solve))
    assert not (tmp_path / "store").exists()


def test_a_stage_that_refuses_closes_the_run_as_failed_with_its_sentence(
    make_store: Callable[[str], Path], lessons: Path, model: Path
) -> None:
    store = make_store("store")
    config = quick_config(store, lessons, model, split={"train": 0.99, "validation": 0.009})
    with pytest.raises(ValueError, match="`split_table` needs pairs in every split, got none in .* take another seed"):
        pipeline(config)
    (parent,) = parents(store)
    assert parent.info.status == "FAILED"
    assert {name: run.info.status for name, run in children(store, parent).items()} == {"triplets": "FINISHED"}
    view = last_flow_run()
    assert view.run.state.name == "Failed"
    assert "`split_table` needs pairs in every split" in view.run.state.message
    # What was refused for good is not tried again.
    assert view.tasks["split"].run_count == 1


def test_a_missing_file_closes_the_run_as_failed(make_store: Callable[[str], Path], model: Path) -> None:
    store = make_store("store")
    with pytest.raises(FileNotFoundError, match="must name an existing file, got '/nowhere/lessons.jsonl'"):
        pipeline(quick_config(store, Path("/nowhere/lessons.jsonl"), model))
    (parent,) = parents(store)
    assert (parent.info.status, children(store, parent)) == ("FAILED", {})


@pytest.mark.slow
@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_closes_the_run_as_killed_and_the_next_run_goes_on(
    make_store: Callable[[str], Path], tmp_path: Path, model: Path
) -> None:
    store = make_store("store")
    conversations = write_lessons(tmp_path / "many.jsonl", 60)
    config = quick_config(store, conversations, model, embed={"shard_rows": 4})

    def interrupt() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if len(list(store.glob("features/*/shard-*.json"))) > 3:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.005)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(BaseException) as stopped:
        pipeline(config)
    assert not isinstance(stopped.value, Exception)
    (parent,) = parents(store)
    assert parent.info.status == "KILLED"
    assert set(children(store, parent)) == {"triplets", "split", "quality"}
    assert list(store.glob("embed/*/manifest.json")) == []
    finished = [path.with_suffix(".parquet") for path in store.glob("features/*/shard-*.json")]
    kept = {path.name: path.stat().st_mtime_ns for path in finished}
    summary = pipeline(config)
    assert [name for name, record in summary.stages.items() if record.reused] == ["triplets", "split", "quality"]
    done = {path.name: path.stat().st_mtime_ns for path in summary.stages["embed"].path.glob("shard-*.parquet")}
    assert {name: done[name] for name in kept} == kept
    # Each of 60 lessons opens in its own way and has three pairs; a shard of four has no room for a second lesson.
    assert len(kept) < len(done) == 60


@pytest.mark.slow
def test_a_dead_tracking_server_stops_nothing_and_replay_delivers_later(
    make_store: Callable[[str], Path], lessons: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    summary = pipeline(quick_config(store, lessons, model))
    assert summary.pending > 12
    assert parents(store) == []
    outcome = run_coala("replay", "--store", store, "--uri", f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    assert (outcome.status, outcome.out.strip()) == (0, "1 runs delivered, 0 still waiting.")
    (parent,) = parents(store)
    assert parent.info.status == "FINISHED"
    assert set(children(store, parent)) == set(STAGES)
    assert parent.data.metrics["solve/gap"] == summary.stages["solve"].report["gap"]


@pytest.mark.slow
def test_markdown_and_html_in_a_file_name_stay_text(
    make_store: Callable[[str], Path], tmp_path: Path, model: Path
) -> None:
    name = "<img src=x onerror=alert(1)> **[bold](http:x) | `row` _it_.jsonl"
    store = make_store("store")
    hostile = write_lessons(tmp_path / name, 24)
    summary = pipeline(quick_config(store, hostile, model))
    assert summary.name == f"{name}, llama, seed 0"
    view = last_flow_run()
    report = view.artifacts["report"]
    for text in (report.data, report.description, view.artifacts["results"].description):
        title = text.replace("Report of ", "").splitlines()[0].removeprefix("## ")
        assert not re.search(r"[<>`*\[\]|]", title), title
        assert "&#60;img" in title
    assert view.run.state.name == "Completed"
    (parent,) = parents(store)
    assert parent.info.run_name == f"{name}, llama, seed 0"
