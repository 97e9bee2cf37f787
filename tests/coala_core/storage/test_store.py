"""Artifacts: whole or absent, verified, found again, and made once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from coala_core.storage import (
    MANIFEST,
    TIMING,
    Artifact,
    Damaged,
    Stopwatch,
    Store,
    open_artifact,
    reference,
)


def make(store: Store, key: str = "k1", **change: Any) -> Artifact:
    """Write a small artifact of two files."""
    workspace = store.workspace("solve", key)
    workspace.write("weights.bin", lambda path: path.write_bytes(bytes(range(256))))
    workspace.write_json("table.json", change.get("table", {"b": 1, "a": [1, 2]}))
    workspace.report = change.get("report", {"gap": 0.25, "sweeps": 3})
    config = change.get("config", {"gates": 5, "seed": 0})
    return store.seal(workspace, "solve", key, config, change.get("inputs", {}), change.get("seconds", 1.5))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path: Path, position: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x01
    path.write_bytes(bytes(content))


class Killed(Exception):
    """Stands for the process ending at this point."""


def test_a_sealed_artifact_is_found_again_with_report_and_seconds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("solve", "k1") is None
    assert not store.is_intact("solve", "k1")
    made = make(store)
    assert made.path == tmp_path.resolve() / "solve" / "k1"
    assert store.find("solve", "k1") == made == open_artifact(made.path, "solve")
    assert store.is_intact("solve", "k1")
    assert made.report == {"gap": 0.25, "sweeps": 3}
    assert made.seconds == 1.5
    assert sorted(files(made.path)) == [MANIFEST, "table.json", TIMING, "weights.bin"]


def test_the_manifest_holds_the_digest_of_every_file_and_the_artifact_the_manifest_s(tmp_path: Path) -> None:
    made = make(Store(tmp_path))
    listed = made.manifest["files"]
    assert sorted(listed) == ["table.json", "weights.bin"]
    # SHA-256 straight from hashlib, over the bytes that were asked for.
    assert listed["weights.bin"] == {"sha256": hashlib.sha256(bytes(range(256))).hexdigest(), "bytes": 256}
    assert made.sha256 == hashlib.sha256((made.path / MANIFEST).read_bytes()).hexdigest()


def test_the_key_is_kept_apart_from_stores(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "a"), Store(str(tmp_path / "b"))
    one, two = make(first), make(second)
    assert (one.key, one.sha256) == (two.key, two.sha256)
    assert second.find("solve", "k2") is None


def test_equal_content_gives_an_equal_manifest_whatever_the_order_and_the_time(tmp_path: Path) -> None:
    one = make(Store(tmp_path / "a"), config={"gates": 5, "seed": 0}, report={"gap": 1, "x": 2}, seconds=1.0)
    two = make(Store(tmp_path / "b"), config={"seed": 0, "gates": 5}, report={"x": 2, "gap": 1}, seconds=99.0)
    assert one.sha256 == two.sha256
    assert one.seconds != two.seconds
    assert files(one.path)[MANIFEST] == files(two.path)[MANIFEST]


@pytest.mark.parametrize("change", [{"config": {"gates": 6}}, {"report": {"gap": 0.5}}, {"table": {"a": 1}}])
def test_other_content_gives_another_manifest(tmp_path: Path, change: dict[str, Any]) -> None:
    assert make(Store(tmp_path / "a")).sha256 != make(Store(tmp_path / "b"), **change).sha256


def test_seconds_are_unknown_without_a_timing_file(tmp_path: Path) -> None:
    made = make(Store(tmp_path))
    (made.path / TIMING).unlink()
    assert open_artifact(made.path).seconds != made.report["sweeps"]
    assert str(open_artifact(made.path).seconds) == "nan"


def test_performance_is_kept_beside_the_seconds_and_no_digest_covers_it(tmp_path: Path) -> None:
    made = []
    for name, speed in (("a", {"tokens_per_s": 10.5}), ("b", {})):
        store = Store(tmp_path / name)
        workspace = store.workspace("embed", "k1")
        workspace.report, workspace.performance = {"pairs": 3}, speed
        made.append(store.seal(workspace, "embed", "k1", {}, {}, 2.0))
    assert [artifact.timing["performance"] for artifact in made] == [{"tokens_per_s": 10.5}, {}]
    assert made[0].sha256 == made[1].sha256
    assert made[0].timing["seconds"] == made[0].seconds == 2.0
    assert "performance" not in made[0].report
    (made[0].path / TIMING).unlink()
    assert open_artifact(made[0].path).timing == {}


@pytest.mark.parametrize("stop_at", ["weights.bin", "table.json", TIMING, MANIFEST])
def test_an_interruption_before_any_rename_leaves_no_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str
) -> None:
    store = Store(tmp_path)
    replace = os.replace

    def die(source: Path, target: Path) -> None:
        if Path(target).name == stop_at:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            make(store)
    assert store.find("solve", "k1") is None
    assert not store.directory("solve", "k1").exists()
    undisturbed = make(Store(tmp_path / "other"))
    again = make(store)
    assert again.sha256 == undisturbed.sha256
    assert not [name for name in files(again.path) if name.endswith(".tmp")]


def test_an_interruption_inside_a_writer_leaves_the_old_file(tmp_path: Path) -> None:
    workspace = Store(tmp_path).workspace("solve", "k1")
    workspace.write_json("a.json", [1])

    def half(path: Path) -> None:
        path.write_text("[1, 2")
        raise Killed

    with pytest.raises(Killed):
        workspace.write("a.json", half)
    assert json.loads((workspace.path / "a.json").read_text()) == [1]


def test_a_new_workspace_keeps_whole_files_and_drops_temporary_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    workspace = store.workspace("solve", "k1")
    workspace.write_json("a.json", [1])
    (workspace.path / ".b.json.tmp").write_text("half")
    assert sorted(files(store.workspace("solve", "k1").path)) == ["a.json"]
    workspace.clear()
    assert files(workspace.path) == {}


@pytest.mark.parametrize("position", [0, 100, 255])
def test_a_flipped_byte_is_damage_and_the_file_is_named(tmp_path: Path, position: int) -> None:
    store = Store(tmp_path)
    made = make(store)
    flip(made.path / "weights.bin", position)
    with pytest.raises(Damaged, match=r"solve/k1/weights\.bin` must have SHA-256 \w{12}, got \w{12}; run the stage"):
        store.find("solve", "k1")
    with pytest.raises(Damaged, match=r"weights\.bin"):
        open_artifact(made.path)
    assert not store.is_intact("solve", "k1")


def test_a_missing_file_is_damage_and_the_file_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (make(store).path / "table.json").unlink()
    with pytest.raises(Damaged, match=r"table\.json` is listed in its manifest but missing; run the stage again"):
        store.find("solve", "k1")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"stage": "solve", "key": "k1"}', '{"files": {"a": 1}}'])
def test_an_unreadable_manifest_is_damage(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    made = make(store)
    (made.path / MANIFEST).write_text(text)
    with pytest.raises(Damaged, match=r"manifest\.json` must be a manifest, got .*; run the stage again"):
        store.find("solve", "k1")
    assert not store.is_intact("solve", "k1")
    assert files(store.workspace("solve", "k1").path) == {}, "nothing vouches for these files any more"


def test_the_workspace_takes_over_what_is_intact_in_a_damaged_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = make(store)
    flip(made.path / "weights.bin")
    (made.path / "stray.txt").write_text("not listed")
    (made.path / "folder").mkdir()
    workspace = store.workspace("solve", "k1")
    assert sorted(files(workspace.path)) == ["table.json"]
    assert not made.path.exists()
    assert make(store).sha256 == made.sha256


def test_a_damaged_artifact_replaces_an_older_interrupted_attempt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = make(store)
    partial = made.path.with_name("k1.partial")
    partial.mkdir()
    (partial / "old.bin").write_bytes(b"old")
    flip(made.path / "weights.bin")
    assert sorted(files(store.workspace("solve", "k1").path)) == ["table.json"]


def test_opening_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must be the folder of a finished embed artifact, got no manifest"):
        open_artifact(tmp_path / "nowhere", "embed")
    made = make(Store(tmp_path))
    with pytest.raises(ValueError, match=r"must be an? embed artifact, got solve; give the embed folder"):
        open_artifact(made.path, "embed")


def test_an_artifact_opens_from_another_place_and_keeps_its_digest(tmp_path: Path) -> None:
    made = make(Store(tmp_path / "store"))
    shutil.copytree(made.path, tmp_path / "copy")
    copy = open_artifact(str(tmp_path / "copy"), "solve")
    assert (copy.stage, copy.key, copy.sha256) == (made.stage, made.key, made.sha256)


def test_inputs_are_kept_by_reference_and_resolved(tmp_path: Path) -> None:
    store = Store(tmp_path)
    source = make(store)
    derived = make(store, "k2", inputs={"head": source})
    kept = derived.manifest["inputs"]["head"]
    assert kept == reference(source) == {"stage": "solve", "key": "k1", "sha256": source.sha256}
    assert store.resolve(kept) == source


def test_resolving_refuses_what_is_gone_changed_or_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    source = make(store)
    kept = reference(source)
    flip(source.path / "weights.bin")
    with pytest.raises(Damaged, match=r"weights\.bin"):
        store.resolve(kept)
    other = make(store, report={"gap": 9})
    expected = rf"must hold the solve artifact {source.sha256[:12]}, got {other.sha256[:12]}"
    with pytest.raises(ValueError, match=expected):
        store.resolve(kept)
    shutil.rmtree(other.path)
    with pytest.raises(ValueError, match=r"got nothing; run the solve stage again"):
        store.resolve(kept)


def test_a_stopwatch_only_runs_forward() -> None:
    watch = Stopwatch()
    first, second = watch.seconds, watch.seconds
    assert 0 <= first <= second
