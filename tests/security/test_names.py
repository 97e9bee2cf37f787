"""Hostile names of files, conversations, groups and runs: nothing lands outside the store, nor under a foreign name."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.config import EmbedConfig, PipelineConfig, SplitConfig, TrackingConfig, TripletsConfig
from coala_core.naming import data_name, run_name
from coala_core.stages import quality, split, triplets
from coala_core.storage import MANIFEST, TIMING, Store
from tasks.events import accepted_name
from tasks.tracker import Tracker
from tests.lessons import lesson

HOSTILE = (
    "../../../../outside",
    "/tmp/outside/absolute",
    "..\\..\\outside",
    "line\nbreak\r\n",
    "nul\x00inside",
    "~/home",
    "$(touch outside)",
    "x" * 5000,
    ".",
    "..",
    "\u202egnp.exe",
    "con.\u0000.parquet",
)
FILES = {
    "triplets": {"triplets.parquet", "rejects.jsonl"},
    "split": {"split.parquet"},
    "quality": {"quality.json", "quality.md"},
}
texts = st.text(max_size=300) | st.sampled_from(HOSTILE)


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("field", ["id", "topic"])
def test_hostile_ids_and_groups_become_data_and_never_paths(tmp_path: Path, field: str) -> None:
    rows = [lesson(number) for number in range(24)]
    for number, row in enumerate(rows):
        row[field] = f"{HOSTILE[number % len(HOSTILE)]}{number}"
    source = tmp_path / "lessons.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = everything(tmp_path)
    store = Store(tmp_path / "store")
    config = PipelineConfig(
        triplets=TripletsConfig(conversations=str(source), group_by=field if field == "topic" else "conversation_id"),
        split=SplitConfig(train=0.6, validation=0.2),
    )
    made = triplets.run(store, config.triplets)
    divided = split.run(store, config.split, made)
    report = quality.run(store, config.quality, made, divided)
    assert made.report["rows_used"] + made.report["rows_rejected"] == 24
    new = everything(tmp_path) - before
    assert {path for path in new if not path.is_relative_to(store.root)} == set()
    for artifact in (made, divided, report):
        names = {path.name for path in artifact.path.iterdir()}
        assert names - {path for path in names if path.endswith(".png")} == FILES[artifact.stage] | {MANIFEST, TIMING}
        assert artifact.path == store.root / artifact.stage / artifact.key
        assert set(artifact.key) <= set("0123456789abcdef")
    assert not list(Path("/tmp/outside").parent.glob("outside*"))


@settings(max_examples=30, deadline=None)
@given(texts, texts)
def test_hostile_names_of_runs_and_experiments_stay_in_the_store(name: str, experiment: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens: records wait in the journal
        store = Path(folder) / "store"
        tracker = Tracker.open(store, TrackingConfig(experiment=experiment or "x", run_name=name), name, {name: name})
        tracker.log_stage("solve", key="0" * 24, params={name: name}, report_metrics={name or "x": 1.0})
        tracker.close()
        files = [path.relative_to(folder) for path in everything(Path(folder)) if path.is_file()]
        run = tracker.run_id
        assert sorted(map(str, files)) == [f"store/tracking/{run}.jsonl", f"store/tracking/{run}.sent"]


@settings(deadline=None)
@given(texts)
def test_names_for_mlflow_cannot_climb(name: str) -> None:
    accepted = accepted_name(name)
    parts = accepted.split("/")
    assert accepted and not accepted.startswith("/") and ".." not in parts
    assert len(accepted) <= 250
    assert "\x00" not in accepted and "\n" not in accepted


@settings(deadline=None)
@given(texts, texts)
def test_names_of_runs_are_one_short_printable_line_without_folders(conversations: str, model: str) -> None:
    config = PipelineConfig(
        triplets=TripletsConfig(conversations=f"/secret/folder/{conversations}"),
        embed=EmbedConfig(model=f"/secret/folder/{model}"),
    )
    for name in (run_name(config), data_name(config)):
        assert name.isprintable()
        assert len(name) < 250
        assert "/secret" not in name


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../b"])
def test_files_of_artifacts_that_climb_are_never_listed(tmp_path: Path, name: str) -> None:
    """A manifest from elsewhere cannot make a reader look outside its folder without being caught by the digest."""
    from coala_core.storage import Damaged, open_artifact

    folder = tmp_path / "solve" / "0123"
    folder.mkdir(parents=True)
    manifest = {"format": 1, "stage": "solve", "key": "0123", "config": {}, "inputs": {}, "report": {}}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": {name: {"sha256": "0" * 64, "bytes": 1}}}))
    with pytest.raises(Damaged, match="run the stage again to rebuild it"):
        open_artifact(folder)
