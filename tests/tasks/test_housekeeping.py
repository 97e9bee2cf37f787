"""Housekeeping with real journals and a real MLflow: models, living runs and waiting records keep what they need."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from coala_core.config import TrackingConfig
from coala_core.housekeeping import HousekeepingConfig
from coala_core.storage import Artifact, Store
from tasks.housekeeping import Report, clean
from tasks.run_files import journals
from tasks.tracker import Tracker
from tasks.tracking import connect, store_uri
from tests.coala_core.housekeeping.stores import DAY, artifacts, lacking, make

LATER = time.time() + 100 * DAY


def fill(store: Path) -> dict[str, Artifact]:
    """triplets <- split, embed <- solve <- finetune, and a second solve; all made just now."""
    shelf = Store(store)
    key = "{:024x}".format
    triplets = make(shelf, "triplets", key(1), days=0)
    split, embed = (make(shelf, stage, key(number), [triplets]) for stage, number in (("split", 2), ("embed", 3)))
    solve = make(shelf, "solve", key(4), [embed, split])
    other = make(shelf, "solve", key(5), [embed, split])
    finetune = make(shelf, "finetune", key(6), [solve])
    made = {"triplets": triplets, "split": split, "embed": embed, "solve": solve, "finetune": finetune, "other": other}
    for artifact in made.values():
        (artifact.path / "manifest.json").touch()
    return made


def run(store: Path, **choice: object) -> Report:
    return clean(HousekeepingConfig.model_validate({"store": str(store), **choice}), now=LATER)


def names(report: Report) -> set[str]:
    return {entry.name.partition("/")[0] for entry in report.removed}


def register(store: Path, tags: dict[str, str], run_tags: dict[str, str]) -> None:
    """Register a version by hand, as MLflow's pages do."""
    client = connect(store, store_uri(store))
    experiment = client.create_experiment("by hand", (store / "mlflow" / "artifacts").as_uri())
    made = client.create_run(experiment, tags=run_tags)
    client.create_registered_model("head")
    client.create_model_version("head", "file:///nowhere", run_id=made.info.run_id, tags=tags)


@pytest.mark.parametrize("by", ["version", "run", "lineage"])
def test_what_a_registered_version_was_made_from_stays(store: Path, by: str) -> None:
    made = fill(store)
    head = made["finetune"]
    tags = {
        "version": {"coala.key": head.key},
        "run": {"coala.sha256": head.sha256},
        "lineage": {"coala.artifacts": json.dumps({"finetune": head.key, "solve": made["solve"].key})},
    }[by]
    register(store, {} if by == "run" else tags, tags if by == "run" else {})
    dry = run(store, older_than="30d", dry_run=True)
    assert [entry.name for entry in dry.removed] == [f"solve/{made['other'].key}"]
    assert {entry.name: entry.reason for entry in dry.stays}[
        f"finetune/{head.key}"
    ] == "model head, version 1, needs it"
    assert len(artifacts(Store(store))) == 6
    done = run(store, older_than="30d", keep_size="0B")
    assert [entry.name for entry in done.removed] == [entry.name for entry in dry.removed]
    assert len(artifacts(Store(store))) == 5
    assert lacking(Store(store)) == []
    assert done.unmet == done.bytes_before - done.bytes_freed > 0


def test_models_of_others_keep_nothing(store: Path) -> None:
    fill(store)
    register(store, {"team": "x", "coala.reused": "true"}, {"note": "mine"})
    assert names(run(store, older_than="30d")) == {"triplets", "split", "embed", "solve", "finetune"}


def test_without_age_and_size_mlflow_is_not_asked(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run(store).removed == []
    with pytest.raises(
        ConnectionError, match=r"`coala gc` must ask MLflow at http://127.0.0.1:9 .* `--gone http://127"
    ):
        run(store, older_than="30d")
    assert len(artifacts(Store(store))) == 6
    assert len(run(store, older_than="30d", gone=("http://127.0.0.1:9",)).removed) == 6


def test_a_living_run_keeps_what_was_used_since_it_began(store: Path) -> None:
    made = fill(store)
    tracker = Tracker.open(store, TrackingConfig(), "living", {})
    try:
        report = run(store, older_than="30d", keep_size="0B")
        reasons = {entry.name: entry.reason for entry in report.stays}
        assert report.removed == []
        assert reasons[f"solve/{made['other'].key}"] == "used since the oldest run began that is still going"
        assert reasons[f"tracking/{tracker.run_id}"] == "its run is still going"
    finally:
        tracker.close()
    assert names(run(store, older_than="30d")) == {"triplets", "split", "embed", "solve", "finetune", "tracking"}
    assert list((store / "tracking").glob("*.jsonl")) == []


def test_what_mlflow_has_not_got_yet_stays_and_is_delivered_afterwards(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fill(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracker = Tracker.open(store, TrackingConfig(), "offline", {})
    head = made["finetune"]
    tracker.log_stage("finetune", key=head.key, params={}, report_metrics={}, files=[head.path / "content.bin"])
    tracker.close()
    assert tracker.pending > 0
    report = run(store, older_than="30d", gone=("http://127.0.0.1:9",))
    assert [entry.name for entry in report.removed] == [f"solve/{made['other'].key}"]
    reasons = {entry.name: entry.reason for entry in report.stays}
    assert f"MLflow has not got its files of run {tracker.run_id}" in reasons[f"finetune/{head.key}"]
    assert reasons[f"tracking/{tracker.run_id}"] == "MLflow has not got all of it; `coala replay` delivers it"


def test_delivered_journals_go_after_a_day_and_their_mlflow_is_remembered(store: Path) -> None:
    tracker = Tracker.open(store, TrackingConfig(), "done", {"a": "b"})
    (store / "tracking" / tracker.run_id).mkdir()
    (store / "tracking" / tracker.run_id / "config.json").write_text("{}")
    tracker.close()
    config = HousekeepingConfig(store=str(store))
    assert clean(config).removed == []
    (entry,) = clean(config.model_copy(update={"dry_run": True}), now=LATER).removed
    assert (entry.kind, entry.name, entry.reason) == ("journal", f"tracking/{tracker.run_id}", "delivered")
    assert len(journals(store)) == 1
    report = clean(config, now=LATER)
    assert report.bytes_freed == entry.bytes > 100
    assert [path.name for path in (store / "tracking").iterdir()] == ["destinations.json"]
    assert json.loads((store / "tracking" / "destinations.json").read_text()) == [None]


def test_a_journal_that_cannot_be_read_stays_with_the_reason(store: Path) -> None:
    (store / "tracking").mkdir()
    (store / "tracking" / "torn.jsonl").write_text("{\nnot json\n")
    (entry,) = clean(HousekeepingConfig(store=str(store)), now=LATER).stays
    assert "must hold one JSON object a line" in entry.reason


def test_logs_go_by_age_only(store: Path) -> None:
    (store / "logs").mkdir()
    (store / "logs" / "r.jsonl").write_text("{}\n")
    assert clean(HousekeepingConfig(store=str(store)), now=LATER).removed == []
    (entry,) = run(store, older_than="30d").removed
    assert (entry.kind, entry.name, entry.bytes) == ("log", "logs/r.jsonl", 3)
    assert list((store / "logs").iterdir()) == []


def test_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`coala gc` needs the folder of a store, got .*; give --store"):
        clean(HousekeepingConfig(store=str(tmp_path / "none")))
    assert list(tmp_path.iterdir()) == []
