"""A recorded pipeline on a real MLflow server: an outage in its middle, its pages in Chromium, its head served."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from coala_core.config import TrackingConfig
from coala_core.heads import read_head
from coala_core.lineage import Lineage, read_scores
from coala_core.storage import Store
from tasks.promotion import Promotion, promote
from tasks.recorded_heads import TEST_PAIRS
from tasks.tracker import Tracker
from tests.tasks import mlflow_reading as reading
from tests.tasks.heads import head_in, models, outputs
from tests.tasks.recorded_pipeline import NAME, Run, config_of, head_chain, record, write_pairs
from tests.tasks.test_tracker import unused_address
from tests.tasks.test_tracking import kill, running_server
from tests.ui.browser import browser_page, needs_chromium, picture

pytestmark = pytest.mark.slow
POINTS = 1200
STAGES = ("triplets", "split", "embed", "solve", "finetune", "evaluate")


def long_stage(tracker: Tracker, stage: str, store: Path) -> None:
    """A stage with a curve of more points than one request holds, and a head where it leaves one."""
    curve = [{"step": step, "loss": 1 / (step + 1), "gap": 2.0**-step} for step in range(POINTS)]
    model = head_in(store, stage, STAGES.index(stage)) if stage in ("solve", "finetune") else None
    tracker.log_stage(
        stage, key=stage, params={"stage": stage}, report_metrics={"end": 1.0}, history=curve, model=model
    )


def check_complete(address: str, tracker: Tracker) -> None:
    """Every run, every point, every model, each once."""
    found = reading.runs(address)  # refuses two runs of one name
    assert sorted(found) == sorted(("parent", *STAGES))
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    for stage in STAGES:
        losses = [(step, value) for step, value, _ in reading.curve(address, found[stage], "loss")]
        assert losses == [(step, 1 / (step + 1)) for step in range(POINTS)], stage
        assert len(reading.curve(address, found[stage], "gap")) == POINTS
        assert found[stage].data.params == {"stage": stage}
        assert found[stage].data.tags["mlflow.parentRunId"] == tracker.remote_id
    heads = models(Path(), address)
    assert sorted(model.name for model in heads) == ["head of finetune", "head of solve"]
    assert {str(model.status) for model in heads} == {"READY"}
    assert len(outputs(address, found["solve"].info.run_id)) == 1
    assert len(outputs(address, found["parent"].info.run_id)) == 2
    assert len(reading.curve(address, found["solve"], "test/accuracy")) == 1


def test_an_outage_in_the_middle_third_leaves_no_gap_and_no_duplicate(
    store: Path, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = tmp_path / "server", unused_address()
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with running_server(folder, address) as server:
        tracker = Tracker.open(store, TrackingConfig(), "parent", {})
        for stage in STAGES[:2]:
            long_stage(tracker, stage, store)
        assert tracker.pending == 0
        kill(server)
        for stage in STAGES[2:4]:
            long_stage(tracker, stage, store)
        assert tracker.pending > 0
    with running_server(folder, address):
        for stage in STAGES[4:]:
            long_stage(tracker, stage, store)
        tracker.log_scores("solve", {"test/accuracy": 0.5}, (TEST_PAIRS, "d" * 64))
        tracker.close()
        assert (tracker.pending, len(tracker.warnings)) == (0, 1)
        check_complete(address, tracker)


class Service(NamedTuple):
    """A server with one recorded and promoted pipeline."""

    address: str
    store: Store
    run: Run
    promotion: Promotion


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, tiny_models: dict[str, Path]) -> Any:
    root, address = tmp_path_factory.mktemp("service"), unused_address()
    shutil.copy(empty_database, root / "mlflow.db")
    config = config_of(root / "store", write_pairs(root / "pairs.jsonl"), tiny_models["llama"])
    made = head_chain(config)
    with pytest.MonkeyPatch.context() as patch, running_server(root, address):
        patch.setenv("MLFLOW_TRACKING_URI", address)
        run, store = record(config, made), Store(config.store)
        assert (run.tracker.pending, run.tracker.warnings) == (0, [])
        yield Service(address, store, run, promote(store, run.evaluation, "coala-head"))


@needs_chromium
def test_the_pages_show_the_run_its_metrics_and_the_champion(service: Service) -> None:
    mode = "?workflowType=machine_learning"
    with browser_page(height=1400) as page:
        page.goto(f"{service.address}/#/experiments/1/runs{mode}")
        expect(page.get_by_text(NAME).first).to_be_visible()
        expect(page.get_by_text("Preference heads by COALA").first).to_be_visible()
        picture(page, "mlflow-runs")

        page.goto(f"{service.address}/#/experiments/1/runs{mode}&compareRunsMode=CHART")
        for metric in ("test/accuracy", "solve/gap"):
            page.get_by_placeholder("Search metric charts").fill(metric)
            expect(page.get_by_text(metric, exact=True).first).to_be_visible()
        page.get_by_placeholder("Search metric charts").fill("test/")
        picture(page, "mlflow-compare")

        page.goto(str(service.run.tracker.url))
        for text in (NAME, "head-phase-2", *STAGES):
            expect(page.get_by_text(text).first).to_be_visible()
        page.get_by_placeholder("Search metrics").fill("test/accuracy")
        expect(page.get_by_role("link", name="test/accuracy", exact=True)).to_be_visible()
        picture(page, "mlflow-run")

        page.goto(f"{service.address}/#/models/coala-head{mode}")
        expect(page.get_by_role("link", name="Version 1")).to_be_visible()
        for alias in ("champion", "candidate"):
            expect(page.get_by_text(alias, exact=False).first).to_be_visible()
        picture(page, "mlflow-model")

        page.get_by_role("link", name="Version 1").click()
        expect(page.get_by_text(service.promotion.reason).first).to_be_visible()
        picture(page, "mlflow-version")


def test_metrics_of_a_head_name_the_pairs_they_were_measured_on(service: Service) -> None:
    by_name = {model.name: model for model in models(Path(), service.address)}
    report = service.run.artifacts["evaluate"].report
    digest = Lineage.of(service.store, service.run.artifacts["evaluate"]).test_digest()
    for name, verdict in (("head-phase-2", report["head"]), ("head-phase-1", report["baselines"]["phase_one_head"])):
        scores = {m.key: (m.value, m.dataset_digest) for m in by_name[name].metrics}
        assert scores["test/accuracy"] == (verdict["accuracy"], digest[:36])


@contextmanager
def serving(model: str, tracking: str, log: Path, store: Path) -> Iterator[str]:
    """A real `mlflow models serve`, gone afterwards with all its children."""
    address = unused_address()
    port = address.rsplit(":", 1)[1]
    scripts = str(Path(sys.executable).parent)  # it starts uvicorn by name
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking, "PATH": f"{scripts}:{os.environ['PATH']}"}
    environment |= {"COALA_STORE": str(store), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", port],
            env=environment,
            cwd=log.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while not answers(f"{address}/ping"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except OSError:
        return False


def ask(address: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    body = json.dumps({"dataframe_records": rows}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        predictions: list[dict[str, Any]] = json.load(answer)["predictions"]
        return predictions


def test_the_served_champion_scores_pairs_as_the_pipeline_did(service: Service, tmp_path: Path) -> None:
    scored = read_scores(service.run.artifacts["evaluate"])
    rows = {row["pair_id"]: row for row in texts(service)}
    asked = [{name: rows[pair][name] for name in ("prompt", "chosen", "rejected")} for pair in scored.pair_ids]
    as_text = [row | {side: row[side][0]["content"] for side in ("chosen", "rejected")} for row in asked]
    model = "models:/coala-head@champion"
    with serving(model, service.address, tmp_path / "serve.log", tmp_path / "store") as address:
        for request in (asked, as_text):
            given = ask(address, request)
            np.testing.assert_allclose([row["chosen_score"] for row in given], scored.chosen, atol=1e-5, rtol=0)
            np.testing.assert_allclose([row["rejected_score"] for row in given], scored.rejected, atol=1e-5, rtol=0)
        sides = np.where(scored.chosen > scored.rejected, "chosen", "rejected")
        assert [row["preferred"] for row in given] == list(sides)
        check_features(address, service)
        with pytest.raises(urllib.error.HTTPError) as refusal:
            ask(address, [{"prompt": "Why?", "chosen": "Because."}])
        answer = refusal.value.read().decode()
        assert refusal.value.code == 400
        assert "needs the columns prompt, chosen, rejected" in answer and "Traceback" not in answer


def texts(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(service.run.artifacts["triplets"].path / "triplets.parquet").to_pylist()
    return found


def check_features(address: str, service: Service) -> None:
    """Features in place of texts give the head's own scores."""
    head = read_head(service.run.artifacts["finetune"].path)
    features = np.random.default_rng(0).normal(size=(2, head.first_weight.shape[1])).astype(np.float32)
    (row,) = ask(address, [{"chosen_features": features[0].tolist(), "rejected_features": features[1].tolist()}])
    np.testing.assert_allclose([row["chosen_score"], row["rejected_score"]], head.score(features), rtol=1e-12)
