import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.events import (
    accepted_name,
    batches,
    file_events,
    flatten,
    log_events,
    metric_points,
    shorten,
    stage_points,
)


def test_nested_parameters_get_dotted_names():
    params = {"solve": {"gates": 50, "path": (0.5, 0.25), "cupy": None}, "model": "builtin", "empty": {}}
    assert flatten(params) == {
        "solve.gates": "50",
        "solve.path": "[0.5, 0.25]",
        "solve.cupy": "null",
        "model": "builtin",
        "empty": "{}",
    }


@pytest.mark.parametrize("name", ["rewards/margins", "eval_rewards/accuracies", "gap", "a.b-c d:e"])
def test_names_that_mlflow_takes_stay_themselves(name):
    assert accepted_name(name) == name


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
@example("a" * 249 + "/b")
@example("..")
def test_every_name_becomes_one_that_mlflow_takes(name):
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(accepted_name(name))
    assert len(accepted_name(name)) <= 250


def test_a_long_value_becomes_a_note_that_names_its_artifact():
    short = shorten({"at": "x" * 10, "over": "x" * 11}, 10, "config.json")
    assert short == {"at": "x" * 10, "over": "(11 characters, whole in artifact config.json)"}


def test_long_values_are_whole_in_artifacts():
    events = log_events("r", {"note": "p" * 6001}, {"story": "t" * 8001}, [])
    documents = {event["artifact"]: json.loads(event["text"]) for event in events if event["event"] == "document"}
    assert documents == {"config.json": {"note": "p" * 6001}, "tags.json": {"story": "t" * 8001}}
    assert events[-1]["params"] == [["note", "(6001 characters, whole in artifact config.json)"]]
    assert events[-1]["tags"] == [["story", "(8001 characters, whole in artifact tags.json)"]]


def test_only_numbers_become_points():
    row = {"loss": np.float32(0.5), "epoch": 3, "status": "CONVERGED", "gap": None, "bad": float("nan")}
    assert metric_points(row, time=7, step=2) == [["loss", 0.5, 7, 2], ["epoch", 3.0, 7, 2], ["bad", "nan", 7, 2]]


def test_infinities_are_named_in_a_tag():
    points = metric_points({"gap": math.inf, "bound": -math.inf, "loss": 1.0}, time=7, step=25)
    (event,) = log_events("r", {}, {}, points)
    assert event["metrics"] == [["loss", 1.0, 7, 25]]
    assert event["tags"] == [["coala.infinite", "gap +inf at 25, bound -inf at 25"]]


def test_history_rows_go_to_their_steps_and_reports_keep_off_their_curves():
    history = [{"sweep": 25, "gap": 0.5}, {"sweep": 50, "gap": 0.25}]
    points = stage_points({"gap": 0.25, "neurons": 4}, history, "sweep", time=9)
    assert points == [["gap", 0.5, 9, 25], ["gap", 0.25, 9, 50], ["final/gap", 0.25, 9, 0], ["neurons", 4.0, 9, 0]]


def test_a_history_without_its_step_is_refused():
    with pytest.raises(ValueError, match="needs the column 'epoch' in every row, got .'sweep'.; name the column"):
        stage_points({}, [{"sweep": 1}], "epoch", time=0)


def test_files_are_kept_by_their_place_in_the_store(tmp_path):
    store, outside = tmp_path / "store", tmp_path / "notes.txt"
    events = file_events("r", [store / "solve" / "path.png", outside], store)
    assert [event["path"] for event in events] == ["solve/path.png", str(outside)]


def test_two_files_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="files of different names, got .'a.png', 'a.png'.; rename one"):
        file_events("r", [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"], tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2500), st.integers(0, 250), st.integers(0, 250), st.sampled_from(["v", "\u00e9" * 6000]))
def test_batches_lose_nothing_and_fit_the_limits(metrics, params, tags, value):
    points = [["m", float(i), 0, i] for i in range(metrics)]
    cut = list(batches("r", {f"p{i}": value for i in range(params)}, {f"t{i}": value for i in range(tags)}, points))
    assert [point for batch in cut for point in batch["metrics"]] == points
    assert [name for batch in cut for name, _ in batch["params"]] == [f"p{i}" for i in range(params)]
    assert [name for batch in cut for name, _ in batch["tags"]] == [f"t{i}" for i in range(tags)]
    for batch in cut:
        # MLflow's documented limits of one log-batch request.
        assert len(batch["metrics"]) + len(batch["params"]) + len(batch["tags"]) <= 1000
        assert len(batch["params"]) <= 100 and len(batch["tags"]) <= 100
        assert len(json.dumps(batch)) <= 1_000_000
