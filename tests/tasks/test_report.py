"""The rows that people read, from reports whose numbers are written out here."""

from __future__ import annotations

import copy
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.report import markdown, publish, result_rows, stage_rows
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


@given(st.text(max_size=40))
def test_no_name_can_become_markdown_or_html(name: str) -> None:
    title = markdown(summary(name)).splitlines()[0].removeprefix("## ")
    assert not re.search(r"[\\`*_{}\[\]<>|~]", title)
    assert not re.search(r"&(?!#\d+;)", title)
    # A reader sees the name itself, runs of white space aside.
    assert unescape(title) == " ".join(name.split())


def test_the_markdown_holds_both_tables_and_says_what_is_pending() -> None:
    text = markdown(summary(reused=("embed",)).model_copy(update={"pending": 3}))
    assert "| pairs | 9 (train 5, validation 2, test 2) from 3 conversations |" in text
    assert "| embed | reused | `eeeeeeeeeeee` |" in text
    assert text.endswith("Tracked in MLflow at `sqlite:////m.db`, 3 records pending.\n")


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("url", [None, "http://127.0.0.1:5000/#/experiments/1/runs/2"])
def test_a_link_leads_to_mlflow_where_it_has_a_page(url: str | None) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.context import FlowRunContext

    @flow(name="published")
    def published() -> Any:
        publish(summary().model_copy(update={"tracking_url": url}))
        context = FlowRunContext.get()
        assert context is not None and context.flow_run is not None
        return context.flow_run.id

    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[published()]))
    with get_client(sync_client=True) as client:
        found = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=chosen)}
    assert set(found) == {"results", "stages", "report"} | ({"mlflow-run"} if url else set())
    if url:
        assert url in found["mlflow-run"].data
