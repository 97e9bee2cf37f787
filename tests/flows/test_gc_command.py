"""`coala gc` as it is typed, and the same as a scheduled flow."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from coala_core.housekeeping import HousekeepingConfig
from coala_core.storage import MANIFEST, Store
from flows.gc_command import gc
from tests.coala_core.housekeeping.stores import DAY, artifacts, make


@pytest.fixture
def filled(store: Path) -> Path:
    """An artifact of 40 days and one of today, which was made from another of 40 days."""
    shelf = Store(store)
    old = make(shelf, "triplets", "[red]old")
    needed = make(shelf, "triplets", "needed")
    make(shelf, "split", "new", [needed])
    for artifact, days in ((old, 40), (needed, 40)):
        os.utime(artifact.path / MANIFEST, (time.time() - days * DAY,) * 2)
    os.utime(shelf.directory("split", "new") / MANIFEST)
    return store


def test_a_dry_run_says_what_would_go_and_why_the_rest_stays(
    filled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert gc(older_than="30d", dry_run=True, store=str(filled)) == 0
    text = capsys.readouterr().out
    assert "would be removed" in text
    assert "triplets/[red]old" in text and "not used for 40.0 days" in text
    assert re.search(r"used \d+ s ago", text)
    assert len(artifacts(Store(filled))) == 3


def test_json_has_every_entry_and_the_files_are_gone(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gc(older_than="30d", as_json=True, store=str(filled)) == 0
    report = json.loads(capsys.readouterr().out)
    entries = {entry["name"]: entry["removed"] for entry in report["entries"]}
    assert entries == {"triplets/[red]old": True, "triplets/needed": False, "split/new": False}
    assert sorted(artifacts(Store(filled))) == ["split/new", "triplets/needed"]
    assert report["bytes_freed"] > 1000


def test_a_size_that_cannot_be_reached_is_exit_status_1(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gc(keep_size="1KB", store=str(filled)) == 1
    # MLflow's database, which is no item, is larger than that.
    assert "MB more than asked for are in use; `--dry-run` says by what." in capsys.readouterr().out
    assert artifacts(Store(filled)) == {}


@pytest.mark.parametrize(("option", "value"), [("older_than", "30"), ("keep_size", "much")])
def test_what_is_no_age_or_size_is_refused(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"the command line` is not a valid configuration: {option}: .*got '{value}'"):
        gc(**{option: value})  # type: ignore[arg-type]


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_cleans_and_shows_what_went(filled: Path) -> None:
    from prefect.client.orchestration import get_client

    from flows.housekeeping import coala_gc

    result = coala_gc(HousekeepingConfig(store=str(filled), older_than="30d"))
    assert (result["removed"], result["unmet"], result["dry_run"]) == (1, 0, False)
    assert sorted(artifacts(Store(filled))) == ["split/new", "triplets/needed"]
    with get_client(sync_client=True) as client:
        found = [artifact for artifact in client.read_artifacts() if artifact.key == "housekeeping"]
    assert "not used for 40.0 days" in str(found[-1].data)
