"""The flow on a real Prefect server with a real MLflow database: what is recorded, reused and repaired."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from coala_core.config import PipelineConfig
from tasks.summary import RunSummary
from tests.flows.whole_runs import STAGES, PrefectView, children, last_flow_run, parents, pipeline
from tests.lessons import digests, quick_config
from tests.tasks import mlflow_reading as reading

pytestmark = pytest.mark.usefixtures("prefect_server")


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
