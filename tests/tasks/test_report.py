"""What a run leaves on its page, and that no data becomes markup there."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.report import markdown, mlflow_link, publish
from tests.tasks.test_results import summary


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


def test_the_link_is_one_that_people_s_browsers_can_open(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {"tracking_url": "http://mlflow:5000/#/experiments/1/runs/2", "tracking_page": "/#/experiments/1/runs/2"}
    run = summary().model_copy(update=inside)
    assert mlflow_link(run) == inside["tracking_url"]
    monkeypatch.setenv("COALA_MLFLOW_URL", "https://mlflow.example/")
    assert mlflow_link(run) == "https://mlflow.example/#/experiments/1/runs/2"
    assert mlflow_link(summary()) is None


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
