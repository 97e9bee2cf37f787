"""Flows that are parts or many of the pipeline: data alone, the head alone, a sweep."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coala_core.config import DataConfig, SweepConfig
from tasks.sweep import SweepResult, SweepRow, choice_text, sweep_table
from tests.lessons import quick_config


def row(loss: float | None, **more: object) -> SweepRow:
    return SweepRow.model_validate({"choice": {"solve.gates": 2}, "validation_loss": loss, **more})


def test_rows_are_ranked_by_validation_loss_and_failures_come_last() -> None:
    result = SweepResult(rows=[row(0.5), row(None, failure="ValueError: no"), row(0.25, gap=-3e-4), row(0.75)])
    assert [each.validation_loss for each in result.ranked()] == [0.25, 0.5, 0.75, None]
    table = sweep_table(result)
    assert [each["rank"] for each in table] == ["1", "2", "3", "4"]
    assert (table[0]["validation loss"], table[0]["certified gap"]) == ("0.2500", "3.0e-04")
    assert table[3]["verdict"] == "ValueError: no"
    result.require_one()


def test_a_sweep_of_failures_is_one() -> None:
    with pytest.raises(RuntimeError, match="got 2 failures; mend the first: ValueError: no"):
        SweepResult(rows=[row(None, failure="ValueError: no")] * 2).require_one()


def test_the_grid_gives_every_combination_the_last_setting_fastest() -> None:
    config = SweepConfig(grid={"solve.gates": (20, 50), "finetune.beta": (1.0, 2.5)})
    runs = config.runs()
    assert [choice_text(choice) for choice, _ in runs] == [
        "solve.gates=20, finetune.beta=1.0",
        "solve.gates=20, finetune.beta=2.5",
        "solve.gates=50, finetune.beta=1.0",
        "solve.gates=50, finetune.beta=2.5",
    ]
    assert [(run.solve.gates, run.finetune.beta) for _, run in runs] == [(20, 1.0), (20, 2.5), (50, 1.0), (50, 2.5)]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({}, "got 0 combinations of 0 settings"),
        ({"solve.gates": ()}, "got 0 combinations of 1 settings"),
        ({"solve.seed": tuple(range(65))}, "got 65 combinations"),
        ({"solve.gatez": (1,)}, "solve.gatez: Extra inputs are not permitted"),
        ({"solve.gates": (0,)}, "solve.gates: Input should be greater than or equal to 1"),
        ({"store.x": (0,)}, "`store` must be a section"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused_before_any_run(grid: dict[str, tuple[int, ...]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SweepConfig(grid=grid).runs()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_sweep_computes_common_stages_once_and_survives_a_failing_run(
    lessons: Path, model: Path, make_store: Callable[[str], Path]
) -> None:
    from flows.compare import CompareConfig, coala_compare
    from flows.sweep import coala_sweep

    store = make_store("store")
    pipeline = quick_config(store, lessons, model)
    result = coala_sweep(SweepConfig(pipeline=pipeline, grid={"solve.gates": (4, 6), "solve.layer": (2, 1)}))
    # Layer 1 is not stored, so every second run fails.
    assert [each.failure is None for each in result.rows] == [True, False, True, False]
    assert "layer" in str(result.rows[1].failure)
    assert all(each.folder and each.folder.exists() for each in result.rows if each.failure is None)
    folders = tuple(str(each.folder) for each in result.rows if each.folder)
    first, second = coala_compare(CompareConfig(evaluations=folders, store=str(store)))
    assert [first.accuracy, second.accuracy] == [each.test_accuracy for each in result.rows if each.folder]
    assert second.lead == pytest.approx(second.accuracy - first.accuracy)
    assert coala_compare(CompareConfig(store=str(store))) == [first, second]
    count = {stage: len(list(store.glob(f"{stage}/*/manifest.json"))) for stage in ("triplets", "embed", "solve")}
    assert count == {"triplets": 1, "embed": 1, "solve": 2}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_head_alone_needs_stored_features_and_no_model(
    lessons: Path, model: Path, make_store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.pipeline import coala_data, coala_head, coala_pipeline

    config = quick_config(make_store("store"), lessons, model)
    with pytest.raises(ValueError, match="`coala_head` needs features that are stored"):
        coala_head(config)
    data = coala_data(DataConfig(store=config.store, triplets=config.triplets, split=config.split))
    assert {"triplets", "split"} <= set(data.stages) and "embed" not in data.stages
    whole = coala_pipeline(config)
    changed = config.model_copy(update={"solve": config.solve.model_copy(update={"gates": 5})})
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    head = coala_head(changed)
    assert head.stages["embed"].reused and not head.stages["solve"].reused
    assert head.stages["embed"].sha256 == whole.stages["embed"].sha256
