"""What a run leaves in MLflow, from sealed artifacts and without a pipeline around them."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.config import PipelineConfig
from coala_core.storage import Artifact, Store
from tasks.records import numbers, recorded_files, recorded_run
from tasks.tracking import store_uri
from tests.tasks import mlflow_reading as reading
from tests.tasks.heads import models

REPORTS: dict[str, dict[str, Any]] = {
    "triplets": {"triplets": 9, "conversations": 3, "rows_rejected": 0},
    "split": {
        "pairs": {"train": 5, "validation": 2, "test": 2},
        "groups": {"train": 1, "validation": 1, "test": 1},
    },
    "embed": {"equal_feature_share": 0.25, "model": "tiny", "model_fingerprint": "f" * 64, "tokens": 4000},
    "solve": {
        "gap": 2e-4,
        "sweeps": 50,
        "status": "CONVERGED",
        "cone_violation": 1e-5,
        "lasso_weight": 0.5,
        "share": 0.1,
        "neurons": 7,
    },
    "finetune": {"kept_epoch": 2, "relative_gap": 1e-3, "optimum_status": "FOUND", "eval_loss": 0.75},
    "evaluate": {
        "confidence": 0.95,
        "head": {"accuracy": 0.5, "wilson": [0.1, 0.9], "ties": 0},
        "metrics": {"probability_margin": 0.5},
        "margins": {"mean": 0.1, "median": 0.2},
        "baselines": {
            name: {"accuracy": 0.5, "wilson": [0.1, 0.9], "ties": 0}
            for name in ("longer_response", "linear_probe", "phase_one_head")
        },
    },
}
PERFORMANCE: dict[str, dict[str, Any]] = {
    "embed": {
        "computed_tokens": 1000,
        "computed_share": 0.25,
        "tokens_per_s": 2500.0,
        "model_flop_utilisation": 0.375,
        "unshared": None,
    }
}
FILES = {
    "solve": {
        "history.json": [{"sweep": 25, "gap": 0.5}, {"sweep": 50, "gap": 0.25}],
        "path.json": [],
        "head.json": {},
    },
    "finetune": {"history.json": [{"epoch": e, "eval_loss": 1 - e / 8} for e in range(3)], "head.json": {}},
}


INPUTS = {
    "split": ["triplets"],
    "embed": ["triplets"],
    "solve": ["embed", "split"],
    "finetune": ["solve"],
    "evaluate": ["finetune"],
}
CONFIG: dict[str, dict[str, Any]] = {
    "embed": {"model": "builtin", "revision": None, "max_tokens": 64, "dtype": "float32"},
    "solve": {"layer": 2, "pooling": "mean"},
}
PAIRS = ["a#1", "b#1"]


def write_table(stage: str, path: Path) -> None:
    """What of two pairs the digest of the test pairs reads."""
    turn = [{"role": "user", "content": "Why?"}]
    texts = {"prompt": turn, "chosen": turn, "rejected": turn}
    scores = {"group": "g", "chosen_score": 1.0, "rejected_score": 0.5}
    row = texts if stage == "triplets" else scores
    pq.write_table(pa.Table.from_pylist([{"pair_id": pair, **row} for pair in PAIRS]), path)


def seal(store: Path, stage: str) -> Artifact:
    """A stage's artifact with files of the right names, made from those that are there."""
    shelf = Store(store)
    found = {name: shelf.find(name, "0123") for name in INPUTS.get(stage, [])}
    inputs = {name: artifact for name, artifact in found.items() if artifact is not None}
    workspace = shelf.workspace(stage, "0123")
    for name, content in FILES.get(stage, {}).items():
        workspace.write_json(name, content)
    if stage in ("solve", "finetune"):
        workspace.write("head.safetensors", lambda path: path.write_bytes(stage.encode()))
    if stage in ("triplets", "evaluate"):
        name = "triplets.parquet" if stage == "triplets" else "scores.parquet"
        workspace.write(name, lambda path: write_table(stage, path))
    workspace.report = REPORTS[stage]
    workspace.performance = PERFORMANCE.get(stage, {})
    return shelf.seal(workspace, stage, "0123", {"seed": 3, **CONFIG.get(stage, {})}, inputs, 1.5)


def pipeline_config(store: Path) -> PipelineConfig:
    return PipelineConfig(store=str(store))


def test_numbers_keep_their_places_and_nothing_else_is_kept() -> None:
    report = {"a": 1, "b": {"c": 0.5, "d": {"e": -2.0}}, "text": "x", "list": [1], "none": None, "truth": True}
    assert numbers(report) == {"a": 1.0, "b.c": 0.5, "b.d.e": -2.0}
    assert numbers({}) == {}


def test_heads_reports_and_pictures_are_recorded_and_data_is_not(tmp_path: Path) -> None:
    shelf = Store(tmp_path)
    workspace = shelf.workspace("solve", "k")
    for name in ("head.safetensors", "path.json", "path.png", "history.json", "shard-00000.parquet", "scores.parquet"):
        workspace.write(name, lambda path: path.write_bytes(b"x"))
    made = shelf.seal(workspace, "solve", "k", {}, {}, 0.0)
    assert sorted(path.name for path in recorded_files(made)) == ["head.safetensors", "path.json", "path.png"]


def test_a_whole_run_is_recorded(store: Path, tmp_path: Path) -> None:
    old = seal(store, "triplets")
    time.sleep(0.01)
    with recorded_run(pipeline_config(store), "lessons", {"prefect.flow_run_id": "f"}) as run:
        assert run.add(old) is old
        for stage in list(REPORTS)[1:]:
            run.add(seal(store, stage))
    summary = run.summary()
    assert [record.reused for record in summary.stages.values()] == [True] + [False] * 5
    assert [record.seconds for record in summary.stages.values()] == [0.0] + [1.5] * 5
    assert (summary.pending, summary.tracking_url, summary.tracking_uri) == (0, None, store_uri(store))
    found = reading.runs(store_uri(store))
    assert set(found) == {"lessons", *REPORTS}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["triplets"].data.tags["coala.reused"] == "true"
    assert found["split"].data.tags["coala.reused"] == "false"
    # What it took to compute stays known where it is reused.
    assert found["triplets"].data.metrics["seconds"] == 1.5
    assert found["split"].data.params == {"seed": "3"}
    assert found["split"].data.metrics["pairs.train"] == 5
    assert [i.dataset.name for i in found["embed"].inputs.dataset_inputs] == ["features"]
    assert [(s, v) for s, v, _ in reading.curve(store_uri(store), found["solve"], "gap")] == [(25, 0.5), (50, 0.25)]
    assert found["solve"].data.metrics["final/gap"] == 2e-4
    assert found["finetune"].data.metrics["eval_loss"] == 0.75
    parent = found["lessons"].data
    assert (parent.metrics["test/accuracy"], parent.metrics["solve/gap"]) == (0.5, 2e-4)
    assert parent.tags["coala.solve"] == summary.stages["solve"].sha256
    assert parent.tags["prefect.flow_run_id"] == "f"
    assert parent.params["split.seed"] == "0"
    files = reading.artifacts(store_uri(store), found["lessons"], tmp_path / "files")
    assert files["head.safetensors"] == b"finetune"
    assert json.loads(files["config.json"])["store"] == str(store)


def test_runs_are_comparable_and_heads_are_models(store: Path) -> None:
    with recorded_run(pipeline_config(store), "lessons", {}) as run:
        for stage in REPORTS:
            run.add(seal(store, stage))
    found = reading.runs(store_uri(store))
    parent = found["lessons"].data
    assert (parent.metrics["seconds/triplets"], parent.metrics["seconds/solve"]) == (1.5, 1.5)
    assert parent.tags["coala.settings"] == "defaults"
    assert sorted(i.dataset.name for i in found["lessons"].inputs.dataset_inputs) == ["conversations", "test pairs"]
    assert "Phase I: convex heads" in found["solve"].data.tags["mlflow.note.content"]
    assert (found["solve"].data.metrics["test/accuracy"], found["finetune"].data.metrics["test/accuracy"]) == (0.5, 0.5)
    heads = {model.name: model.source_run_id for model in models(store)}
    assert heads == {f"head-phase-{n}": found[s].info.run_id for n, s in ((1, "solve"), (2, "finetune"))}


@pytest.mark.parametrize(
    ("end", "status"),
    [(RuntimeError("out of memory"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
    ids=lambda value: type(value).__name__,
)
def test_the_parent_ends_as_the_run_ended(store: Path, end: BaseException, status: str) -> None:
    with pytest.raises(type(end)), recorded_run(pipeline_config(store), "ends", {}) as run:
        run.add(seal(store, "triplets"))
        raise end
    found = reading.runs(store_uri(store))
    assert (found["ends"].info.status, found["triplets"].info.status) == (status, "FINISHED")


def test_an_artifact_without_its_timing_counts_as_reused(store: Path) -> None:
    made = seal(store, "split")
    (made.path / "timing.json").unlink()
    with pytest.raises(RuntimeError), recorded_run(pipeline_config(store), "parent", {}) as run:
        run.add(made)
        raise RuntimeError("the next stage failed")
    assert run.stages["split"].reused
    assert math.isnan(reading.runs(store_uri(store))["split"].data.metrics["seconds"])
