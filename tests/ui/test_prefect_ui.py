"""A person opens Prefect's UI, fills the form, runs the pipeline and looks at what it left."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.flows.prefect_server import Server, running_server
from tests.flows.test_serve import serving
from tests.ui.browser import SECONDS, browser_page, form_field, needs_chromium, picture


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


pytestmark = [pytest.mark.slow, needs_chromium]


def test_a_run_from_the_form_shows_its_results(
    tmp_path: Path, lessons: Path, model: Path, make_store: Callable[[str], Path]
) -> None:
    store = make_store("store")
    with running_server(tmp_path, ui=True) as server, serving(server, tmp_path / "serve.log"), browser_page() as page:
        open_form(page, server)
        expect(page.get_by_text("Number P of activation patterns")).to_contain_text("at least 1, at most 4,096")
        picture(page, "prefect-form")
        fill(page, store, lessons, model)
        form_field(page, "config", "Solve", "Gates").fill("0")
        page.get_by_role("button", name="Submit").click()
        expect(
            page.get_by_text(re.compile("minimum of 1|greater than or equal to 1|at least 1$")).first
        ).to_be_visible()
        assert runs(server) == []
        form_field(page, "config", "Solve", "Gates").fill("6")
        page.get_by_role("button", name="Submit").click()
        page.goto(run_page(server, page))
        wait_until_completed(page, server)
        expect(page.get_by_text("lessons.jsonl, llama, seed 0").first).to_be_visible()
        picture(page, "prefect-run")
        page.get_by_text("Artifacts", exact=True).first.click()
        for text in ("results", "stages", "report"):
            expect(page.get_by_text(text, exact=False).first).to_be_visible()
        picture(page, "prefect-artifacts")
        page.get_by_role("link", name=re.compile("results")).click()
        expect(page.get_by_text("held-out accuracy").first).to_be_visible()
        picture(page, "prefect-results")


def test_the_nightly_schedule_is_switched_on_with_one_click(tmp_path: Path) -> None:
    with running_server(tmp_path, ui=True) as server, serving(server, tmp_path / "serve.log"), browser_page() as page:
        page.goto(f"{server.pages}/deployments")
        page.get_by_text("pipeline", exact=True).first.click()
        switch = page.get_by_role("switch")
        expect(switch).to_have_attribute("aria-checked", "false")
        expect(page.get_by_text("nightly", exact=True)).to_be_visible()
        assert runs(server) == []
        switch.click()
        expect(switch).to_have_attribute("aria-checked", "true")
        picture(page, "prefect-schedule")
        for _ in range(360):
            if planned := runs(server):
                break
            page.wait_for_timeout(0.5 * SECONDS)
    starts = {datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC) for run in planned}
    assert starts and {(start.hour, start.minute) for start in starts} == {(3, 0)}
    assert {run["state"]["type"] for run in planned} == {"SCHEDULED"}


def open_form(page: Page, server: Server) -> None:
    """From the list of deployments to the form of the pipeline."""
    page.goto(f"{server.pages}/deployments")
    page.get_by_text("pipeline", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").first.click()
    expect(page.get_by_text("Folder of all artifacts.")).to_be_visible()


def fill(page: Page, store: Path, conversations: Path, model: Path) -> None:
    """Fill in what makes a run quick."""
    entries: dict[tuple[str, ...], Any] = {
        ("Store",): store,
        ("Triplets", "Conversations"): conversations,
        ("Split", "Train"): 0.6,
        ("Split", "Validation"): 0.2,
        ("Embed", "Model"): model,
        ("Solve", "Probe Gates"): 2,
        ("Finetune", "Epochs"): 12,
        ("Evaluate", "Resamples"): 100,
    }
    for labels, value in entries.items():
        form_field(page, "config", *labels).fill(str(value))


def runs(server: Server) -> list[Any]:
    return list(server.ask("/flow_runs/filter", {"flow_runs": {"parent_task_run_id": {"is_null_": True}}}))


def run_page(server: Server, page: Page) -> str:
    """Page of the only run, once the server has it."""
    for _ in range(100):
        if found := runs(server):
            return f"{server.pages}/runs/flow-run/{found[0]['id']}"
        page.wait_for_timeout(0.2 * SECONDS)
    raise AssertionError("the form made no run")


def wait_until_completed(page: Page, server: Server) -> None:
    """Wait for the end of the only run, which the page may show a moment later."""
    for _ in range(360):
        state = runs(server)[0]["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED"):
            break
        page.wait_for_timeout(0.5 * SECONDS)
    assert state["type"] == "COMPLETED", state
    page.reload()
