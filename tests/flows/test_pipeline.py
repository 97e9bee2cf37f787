"""The flow on a real Prefect server with a real MLflow database: what is recorded, reused, repaired and refused."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coala_core.config import PipelineConfig
from tasks.summary import RunSummary
from tests.flows.conftest import free_port, run_coala
from tests.lessons import digests, quick_config, write_lessons
from tests.tasks import mlflow_reading as reading

STAGES = ["triplets", "split", "quality", "embed", "solve", "finetune", "evaluate"]

pytestmark = pytest.mark.usefixtures("prefect_server")


class PrefectView(NamedTuple):
    """A flow run as its page shows it."""

    run: Any
    tasks: dict[str, Any]
    artifacts: dict[str, Any]
    logs: list[str]


def pipeline(config: PipelineConfig) -> RunSummary:
    """Run the flow; imported late, because Prefect takes a second that other tests need not wait for."""
    from flows.pipeline import coala_pipeline

    return coala_pipeline(config)


def last_flow_run() -> PrefectView:
    """Read the newest flow run through the client, as the pages do."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        FlowRunFilter,
        FlowRunFilterId,
        LogFilter,
        LogFilterFlowRunId,
    )
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    by_stage = {task.name.rpartition("-")[0]: task for task in sorted(tasks, key=lambda task: task.created)}
    return PrefectView(run, by_stage, {a.key: a for a in artifacts}, [log.message for log in logs])


def mlflow_runs(store: Path) -> list[Any]:
    """All runs of the store's database, the parents first, each followed by its children in order."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return sorted(found, key=lambda run: run.info.start_time)


def parents(store: Path) -> list[Any]:
    """Parent runs, the oldest first."""
    return [run for run in mlflow_runs(store) if "mlflow.parentRunId" not in run.data.tags]


def children(store: Path, parent: Any) -> dict[str, Any]:
    """A parent's children by name."""
    found = [run for run in mlflow_runs(store) if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


class Finished(NamedTuple):
    """One undisturbed run with what both services have of it."""

    store: Path
    config: PipelineConfig
    summary: RunSummary
    prefect: PrefectView


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, lessons: Path, model: Path, prefect_server: None
) -> Finished:
    """The first run in a store; tests that run again use stores of their own."""
    import shutil

    store = tmp_path_factory.mktemp("store")
    (store / "mlflow").mkdir()
    shutil.copy(empty_database, store / "mlflow" / "mlflow.db")
    config = quick_config(store, lessons, model)
    summary = pipeline(config)
    return Finished(store, config, summary, last_flow_run())


def test_the_summary_tells_every_stage_once(finished: Finished) -> None:
    summary = finished.summary
    assert isinstance(summary, RunSummary)
    assert summary.name == "lessons.jsonl, llama, seed 0"
    assert list(summary.stages) == STAGES
    assert (summary.pending, summary.tracking_url) == (0, None)
    for stage, record in summary.stages.items():
        assert (record.stage, record.reused) == (stage, False)
        assert record.seconds > 0
        assert record.sha256 == digests(record.path)["manifest.json"]


def test_mlflow_has_one_finished_parent_with_six_children(finished: Finished) -> None:
    (parent,) = parents(finished.store)
    assert (parent.info.run_name, parent.info.status) == ("lessons.jsonl, llama, seed 0", "FINISHED")
    assert set(children(finished.store, parent)) == set(STAGES)
    for name, child in children(finished.store, parent).items():
        record = finished.summary.stages[name]
        assert child.info.status == "FINISHED"
        assert child.data.tags["coala.sha256"] == record.sha256
        assert child.data.tags["coala.key"] == record.path.name
        assert child.data.tags["coala.reused"] == "false"
        assert abs((child.info.end_time - child.info.start_time) / 1000 - record.seconds) < 0.1
        assert child.info.start_time >= parent.info.start_time - 1000


def test_the_parent_leads_to_prefect_and_to_every_artifact(finished: Finished) -> None:
    (parent,) = parents(finished.store)
    tags = parent.data.tags
    assert tags["prefect.flow_run_id"] == str(finished.prefect.run.id)
    assert {stage: tags[f"coala.{stage}"] for stage in STAGES} == {
        stage: record.sha256 for stage, record in finished.summary.stages.items()
    }
    assert tags["version.numpy"] and tags["version.python"] and tags["version.coala"]
    assert parent.data.params["solve.gates"] == "6"
    assert parent.data.params["embed.model"] == finished.config.embed.model


def test_metrics_and_curves_are_on_the_right_runs(finished: Finished) -> None:
    uri = f"sqlite:///{finished.store / 'mlflow' / 'mlflow.db'}"
    (parent,) = parents(finished.store)
    runs = children(finished.store, parent)
    reports = {stage: record.report for stage, record in finished.summary.stages.items()}
    assert parent.data.metrics["test/accuracy"] == reports["evaluate"]["head"]["accuracy"]
    assert parent.data.metrics["solve/gap"] == reports["solve"]["gap"]
    assert runs["triplets"].data.metrics["triplets"] == 72
    assert runs["solve"].data.metrics["validation_accuracy"] == reports["solve"]["validation_accuracy"]
    assert runs["evaluate"].data.metrics["head.accuracy"] == reports["evaluate"]["head"]["accuracy"]
    history = json.loads((finished.summary.stages["finetune"].path / "history.json").read_text())
    losses = [(step, value) for step, value, _ in reading.curve(uri, runs["finetune"], "eval_loss")]
    assert losses == [(row["epoch"], row["eval_loss"]) for row in history]
    sweeps = json.loads((finished.summary.stages["solve"].path / "history.json").read_text())
    gaps = [(step, value) for step, value, _ in reading.curve(uri, runs["solve"], "gap")]
    assert gaps == [(row["sweep"], row["gap"]) for row in sweeps]
    assert runs["finetune"].data.metrics["final/eval_loss"] == reports["finetune"]["eval_loss"]


def test_heads_reports_and_pictures_are_on_the_right_runs(finished: Finished, tmp_path: Path) -> None:
    uri = f"sqlite:///{finished.store / 'mlflow' / 'mlflow.db'}"
    (parent,) = parents(finished.store)
    runs = {"parent": parent} | children(finished.store, parent)
    files = {name: reading.artifacts(uri, run, tmp_path / name) for name, run in runs.items()}
    assert {name: set(content) for name, content in files.items()} == {
        "parent": {"config.json", "head.safetensors", "head.json"},
        "triplets": {"config.json", "rejects.jsonl"},
        "split": {"config.json"},
        "quality": {"config.json", "quality.json", "quality.md", "lengths.png", "turns.png"},
        "embed": {"config.json"},
        "solve": {"config.json", "head.safetensors", "head.json", "path.json", "path.png", "residuals.png"},
        "finetune": {"config.json", "head.safetensors", "head.json", "margins.png"},
        "evaluate": {"config.json", "evaluation.json", "margins.png"},
    }
    tuned = finished.summary.stages["finetune"].path
    assert files["parent"]["head.safetensors"] == (tuned / "head.safetensors").read_bytes()
    assert files["finetune"]["head.safetensors"] == files["parent"]["head.safetensors"]
    assert json.loads(files["parent"]["config.json"]) == finished.config.model_dump(mode="json")
    pictures = [content for run in files.values() for name, content in run.items() if name.endswith(".png")]
    assert all(content.startswith(b"\x89PNG") for content in pictures)


def test_prefect_has_the_tasks_the_tables_the_report_and_the_progress(finished: Finished) -> None:
    view = finished.prefect
    assert (view.run.name, view.run.state.name) == ("lessons.jsonl, llama, seed 0", "Completed")
    assert {stage: task.state.name for stage, task in view.tasks.items()} == dict.fromkeys(STAGES, "Completed")
    accuracy = finished.summary.stages["evaluate"].report["head"]["accuracy"]
    results = {row["result"]: row["value"] for row in json.loads(view.artifacts["results"].data)}
    assert results["held-out accuracy"].startswith(f"{accuracy:.3f}")
    assert results["pairs"].startswith("72 (train ")
    stages = json.loads(view.artifacts["stages"].data)
    assert [row["stage"] for row in stages] == STAGES
    assert [row["folder"] for row in stages] == [str(record.path) for record in finished.summary.stages.values()]
    assert f"| held-out accuracy | {accuracy:.3f}" in view.artifacts["report"].data
    for stage in STAGES:
        progress = view.artifacts[f"{stage}-progress"]
        assert (progress.type, float(progress.data)) == ("progress", 100.0)
        assert progress.description.startswith(f"{stage}: done in ")


@pytest.mark.slow
def test_a_second_run_takes_every_stage_from_the_cache(
    make_store: Callable[[str], Path], lessons: Path, model: Path
) -> None:
    store = make_store("store")
    config = quick_config(store, lessons, model)
    first, second = pipeline(config), pipeline(config)
    assert [record.reused for record in second.stages.values()] == [True] * len(STAGES)
    assert [record.seconds for record in second.stages.values()] == [0.0] * len(STAGES)
    assert {name: task.state.name for name, task in last_flow_run().tasks.items()} == dict.fromkeys(STAGES, "Cached")
    assert contents(second) == contents(first)
    before, after = (children(store, parent) for parent in parents(store))
    assert {name: run.data.tags["coala.reused"] for name, run in after.items()} == dict.fromkeys(STAGES, "true")
    assert {name: run.data.metrics for name, run in after.items()} == {
        name: run.data.metrics for name, run in before.items()
    }


def contents(summary: RunSummary) -> dict[str, str]:
    """Digest of every stage's manifest."""
    return {name: record.sha256 for name, record in summary.stages.items()}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_or_missing_shard_is_rebuilt_alone(
    make_store: Callable[[str], Path], lessons: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = quick_config(make_store("store"), lessons, model)
    first = pipeline(config)
    shards = sorted(first.stages["embed"].path.glob("shard-*.parquet"))
    for harm in (flip_a_bit, Path.unlink):
        stamps = {path: path.stat().st_mtime_ns for path in shards}
        harm(shards[2])
        caplog.clear()
        again = pipeline(config)
        assert [name for name, record in again.stages.items() if not record.reused] == ["embed"]
        assert contents(again) == contents(first)
        # A lost file is drawn from the feature cache again; a spoilt one, which the cache shares, is computed again.
        computed = [shards[2]] if harm is flip_a_bit else []
        assert [path for path in shards if path.stat().st_mtime_ns != stamps[path]] == computed
        warnings = [r.getMessage() for r in caplog.records if r.name == "coala.stages"]
        assert len(warnings) == 1
        assert str(shards[2]) in warnings[0]
        assert last_flow_run().tasks["embed"].state.name == "Completed"


@pytest.mark.slow
def test_another_seed_keeps_triplets_and_features(
    make_store: Callable[[str], Path], lessons: Path, model: Path, finished: Finished
) -> None:
    store = make_store("store")
    first = pipeline(quick_config(store, lessons, model))
    # Equal settings and seeds in two stores: equal bytes, whichever process and store.
    assert contents(first) == contents(finished.summary)
    other = pipeline(quick_config(store, lessons, model, split={"seed": 5}))
    assert [name for name, record in other.stages.items() if record.reused] == ["triplets", "embed"]
    heads = [digests(summary.stages["finetune"].path)["head.safetensors"] for summary in (first, other)]
    assert heads[0] != heads[1]


@pytest.mark.slow
def test_another_layer_of_the_stored_ones_runs_no_language_model(
    make_store: Callable[[str], Path], lessons: Path, model: Path
) -> None:
    store = make_store("store")
    stored = {"layers": [2, 3], "poolings": ["mean", "last"]}
    pipeline(quick_config(store, lessons, model, embed=stored))
    for solve in ({"layer": 3}, {"layer": 2, "pooling": "mean+last"}):
        summary = pipeline(quick_config(store, lessons, model, embed=stored, solve=solve))
        assert [name for name, record in summary.stages.items() if record.reused] == [
            "triplets",
            "split",
            "quality",
            "embed",
        ]
        card = json.loads((summary.stages["finetune"].path / "head.json").read_text())
        assert (card["embed"]["layer"], card["features"]) == ((3, 32) if solve["layer"] == 3 else (2, 64))


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
