import json
import shutil
from pathlib import Path

import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from packaging.requirements import Requirement

from coala_core.config import TrackingConfig
from coala_core.heads import read_head
from tasks.logged_model import SERVING, requirements
from tasks.tracker import Tracker
from tasks.tracking import replay, store_uri
from tests.tasks import mlflow_reading as reading
from tests.tasks.heads import EMBEDDING, head_in, models, outputs, small_head
from tests.tasks.test_tracker import unused_address

CONFIG = TrackingConfig()
PAIRS = ("test pairs", "d" * 64)
ROOT = Path(__file__).parents[2]


def record(store: Path, name: str = "parent") -> Tracker:
    """A run that leaves two heads, one of which is scored."""
    tracker = Tracker.open(store, CONFIG, name, {})
    for seed, stage in enumerate(("solve", "finetune")):
        tracker.log_stage(stage, key="k", params={}, report_metrics={}, model=head_in(store, stage, seed))
    tracker.log_scores("finetune", {"test/accuracy": 0.75, "test/ties": 1}, PAIRS)
    tracker.close()
    return tracker


def test_heads_are_models_of_their_runs_with_plain_files_and_scores(store):
    tracker = record(store)
    assert (tracker.pending, tracker.warnings) == (0, [])
    uri = store_uri(store)
    runs, found = reading.runs(uri), {model.name: model for model in models(store)}
    assert sorted(found) == ["head of finetune", "head of solve"]
    tuned = found["head of finetune"]
    assert (str(tuned.status), tuned.source_run_id) == ("READY", runs["finetune"].info.run_id)
    assert tuned.params == {"finetune.beta": "1.5"}
    scores = {(m.key, m.value, m.dataset_name, m.dataset_digest) for m in tuned.metrics}
    assert scores == {("test/accuracy", 0.75, "test pairs", "d" * 36), ("test/ties", 1.0, "test pairs", "d" * 36)}
    assert runs["finetune"].data.metrics["test/accuracy"] == 0.75
    assert outputs(uri, runs["finetune"].info.run_id) == [tuned.model_id]
    assert sorted(outputs(uri, runs["parent"].info.run_id)) == sorted(model.model_id for model in found.values())

    folder = Path(tuned.artifact_location.removeprefix("file://"))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "served_head.py", "artifacts/head/head.json", "artifacts/head/head.safetensors"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]
    assert (read_head(folder / "artifacts/head").first_weight == small_head(1).first_weight).all()
    assert json.loads((folder / "artifacts/head/embedding.json").read_text()) == EMBEDDING
    assert (folder / "requirements.txt").read_text().split() == requirements()
    signature = yaml.safe_load((folder / "MLmodel").read_text())["signature"]
    taken = {column["name"]: column["type"] for column in json.loads(signature["inputs"])}
    texts, features = dict.fromkeys(("prompt", "chosen", "rejected"), "any"), ("chosen_features", "rejected_features")
    assert taken == texts | dict.fromkeys(features, "array")
    assert (folder / "input_example.json").exists()


def test_delivered_twice_they_are_there_once(store):
    tracker = record(store)
    uri = store_uri(store)
    (store / "tracking" / f"{tracker.run_id}.sent").unlink()
    assert replay(store).delivered == (tracker.run_id,)
    assert len(models(store)) == 2
    run = reading.runs(uri)["finetune"]
    assert len(outputs(uri, run.info.run_id)) == 1
    assert len(reading.curve(uri, run, "test/accuracy")) == 1
    (tuned,) = [model for model in models(store) if model.name == "head of finetune"]
    assert len(tuned.metrics) == 2


def test_a_head_that_is_reused_is_one_model_of_both_runs(store):
    record(store, "first")
    known = {model.model_id for model in models(store)}
    shutil.rmtree(store / "finetune")
    shutil.rmtree(store / "solve")
    record(store, "second")  # the same bytes again
    assert {model.model_id for model in models(store)} == known
    client = MlflowClient(tracking_uri=store_uri(store))
    parents = [run for run in client.search_runs(["1"]) if run.info.run_name in ("first", "second")]
    assert [set(outputs(store_uri(store), run.info.run_id)) for run in parents] == [known, known]


def test_a_model_that_was_interrupted_is_finished_and_not_made_again(store, monkeypatch):
    finalize, failures = MlflowClient.finalize_logged_model, [1]

    def fail_once(*arguments: object) -> object:
        if failures:
            failures.pop()
            raise MlflowException("the server went away")
        return finalize(*arguments)

    monkeypatch.setattr(MlflowClient, "finalize_logged_model", fail_once)
    tracker = record(store)
    assert len(tracker.warnings) == 1 and "the server went away" in tracker.warnings[0]
    assert replay(store).pending == {}
    assert sorted((model.name, str(model.status)) for model in models(store)) == [
        ("head of finetune", "READY"),
        ("head of solve", "READY"),
    ]


def test_heads_that_are_gone_when_the_server_comes_back_do_not_hold_up_the_rest(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", unused_address())
    tracker = record(store)
    shutil.rmtree(store / "finetune")
    report = replay(store, store_uri(store))
    assert report.delivered == (tracker.run_id,)
    assert [sentence.split(" event")[0] for sentence in report.refused] == [
        "MLflow refused a 'model'",
        "MLflow refused a 'scores'",
    ]
    assert reading.runs(store_uri(store))["parent"].info.status == "FINISHED"


def test_scores_of_a_stage_without_a_head_are_refused(store):
    tracker = Tracker.open(store, CONFIG, "parent", {})
    with pytest.raises(ValueError, match="must name a stage that left a head, got 'embed' of .*; give `log_stage` its"):
        tracker.log_scores("embed", {"test/accuracy": 1.0}, PAIRS)
    tracker.close()


def test_requirements_are_those_of_the_lock():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    locked = {Requirement(line).name.lower(): str(Requirement(line).specifier) for line in lines if line.strip()}
    pinned = {Requirement(line).name: str(Requirement(line).specifier) for line in requirements()}
    assert sorted(pinned) == sorted(SERVING)
    assert pinned == {name: locked[name].partition("+")[0] for name in SERVING}
    assert "coala" not in pinned  # on the package index that name is another project's
