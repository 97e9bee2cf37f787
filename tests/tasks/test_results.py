"""The rows that people read, from reports whose numbers are written out here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tasks.results import result_rows, stage_rows
from tasks.summary import RunSummary, StageRecord
from tests.tasks.test_records import PERFORMANCE, REPORTS


def summary(name: str = "lessons", reused: tuple[str, ...] = (), **reports: dict[str, Any]) -> RunSummary:
    """A summary of `REPORTS` with changes by stage."""
    content = copy.deepcopy(REPORTS)
    for stage, changes in reports.items():
        content[stage] |= changes
    stages = {
        stage: StageRecord(
            stage=stage,
            path=Path("/store") / stage,
            sha256=stage[0] * 64,
            seconds=0.0 if stage in reused else 1.26,
            reused=stage in reused,
            report=report,
            performance={} if stage in reused else PERFORMANCE.get(stage, {}),
        )
        for stage, report in content.items()
    }
    return RunSummary(
        name=name, stages=stages, tracking_uri="sqlite:////m.db", tracking_page=None, tracking_url=None, pending=0
    )


def test_every_number_is_in_its_row() -> None:
    rows = dict(result_rows(summary()))
    assert rows["pairs"] == "9 (train 5, validation 2, test 2) from 3 conversations"
    assert rows["groups"] == "3 (train 1, validation 1, test 1)"
    assert rows["pairs with equal features"] == "25.0%"
    assert rows["tokens embedded"] == (
        "1,000 tokens computed, 25% of their rows' tokens, at 2,500/s, 38% of the processor's matrix-multiply rate"
    )
    assert dict(result_rows(summary(reused=("embed",))))["tokens embedded"] == "none computed; all 4,000 were stored"
    assert rows["held-out accuracy"] == "0.500  [0.100, 0.900] at 95%"
    assert rows["  linear probe, same features"] == "0.500  [0.100, 0.900] at 95%"
    assert rows["reward margin, test"] == "0.100 mean, 0.200 median"
    assert rows["certified gap, Phase I"] == "2.0e-04 after 50 sweeps (CONVERGED), cone violation 1.0e-05"
    assert rows["group-lasso weight"] == "0.5, 0.1 of the weight that gives the zero head; 7 neurons"
    assert rows["AdamW from the optimum, Phase II"].startswith("1.0e-03 relative after the last epoch; epoch 2 kept")


def test_what_went_wrong_is_said() -> None:
    verdict = REPORTS["evaluate"]["head"] | {"ties": 2}
    changed = summary(
        triplets={"rows_rejected": 4},
        finetune={"relative_gap": None, "optimum_status": "UNBOUNDED"},
        solve={"status": "OUT_OF_SWEEPS"},
        evaluate={"head": verdict},
    )
    rows = dict(result_rows(changed))
    assert rows["pairs"].endswith(", 4 rows rejected")
    assert rows["held-out accuracy"].endswith(", 2 ties")
    assert "(OUT_OF_SWEEPS)" in rows["certified gap, Phase I"]
    assert rows["AdamW from the optimum, Phase II"].startswith("no finite optimum (UNBOUNDED), epoch 2 kept")


def test_stages_tell_seconds_or_that_they_were_reused() -> None:
    rows = stage_rows(summary(reused=("embed",)))
    assert [row["seconds"] for row in rows] == ["1.3", "1.3", "reused", "1.3", "1.3", "1.3"]
    assert (rows[0]["digest"], rows[0]["folder"]) == ("t" * 12, "/store/triplets")


def test_a_run_of_some_stages_has_their_rows_only() -> None:
    whole = summary()
    data = whole.model_copy(update={"stages": {name: whole.stages[name] for name in ("triplets", "split")}})
    assert [name for name, _ in result_rows(data)] == ["pairs", "groups"]
    fit = whole.model_copy(update={"stages": {name: whole.stages[name] for name in ("solve", "finetune")}})
    assert [name for name, _ in result_rows(fit)] == [
        "certified gap, Phase I", "group-lasso weight", "AdamW from the optimum, Phase II"
    ]  # fmt: skip
