"""Removing from real stores: whole or not at all, never what is in use, and in order after a kill at any moment."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.feature_cache import FeatureCache
from coala_core.housekeeping import (
    Choice,
    Policy,
    busy,
    choose,
    holding,
    last_used,
    mark_used,
    remove,
    take_inventory,
)
from coala_core.storage import MANIFEST, Store, open_artifact
from tests.coala_core.housekeeping.stores import DAY, NOW, artifacts, lacking, make, write_shard

ALL = Policy(NOW, older_than=1.0)


class Killed(Exception):
    """Stands for the process ending at this point."""


def clean(store: Store, policy: Policy = ALL) -> Choice:
    return remove(store, choose(take_inventory(store), policy))


def reasons(choice: Choice) -> dict[str, str]:
    return {verdict.item.name: verdict.reason for verdict in choice.stays}


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    """triplets <- split, embed <- solve, all 40 days old, and a triplets of today."""
    store = Store(tmp_path)
    triplets = make(store, "triplets", "t", days=40)
    split, embed = (make(store, stage, "k", [triplets], days=40) for stage in ("split", "embed"))
    make(store, "solve", "s", [embed, split], days=40)
    make(store, "triplets", "new", days=-1)
    return store


def test_what_is_old_goes_with_every_file(shelf: Store) -> None:
    before = sum(path.stat().st_size for path in shelf.root.rglob("*") if path.is_file())
    choice = clean(shelf, Policy(NOW, older_than=30 * DAY))
    assert {verdict.item.name for verdict in choice.removals} == {"solve/s", "embed/k", "split/k", "triplets/t"}
    assert list(artifacts(shelf)) == ["triplets/new"]
    after = sum(path.stat().st_size for path in shelf.root.rglob("*") if path.is_file())
    assert choice.bytes_before == before
    assert choice.bytes_after == after
    assert open_artifact(shelf.directory("triplets", "new")).stage == "triplets"


def test_using_an_artifact_keeps_it_and_changes_no_byte(shelf: Store) -> None:
    folder = shelf.directory("solve", "s")
    sha256 = open_artifact(folder).sha256
    began = time.time()
    mark_used(folder)
    assert last_used(folder) >= began - 1
    assert {path.stat().st_mtime for path in folder.iterdir() if path.name == MANIFEST} == {NOW - 40 * DAY}
    assert open_artifact(folder).sha256 == sha256
    now = time.time()
    make(shelf, "split", "alone", days=(NOW - now) / DAY + 2)
    choice = clean(shelf, Policy(now, older_than=DAY))
    assert {verdict.item.name for verdict in choice.removals} == {"split/alone", "triplets/new"}
    assert lacking(shelf) == []


def test_a_store_that_may_only_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    mark_used(tmp_path / "nowhere")  # as where rights are missing: an OSError that is of no consequence
    assert list(tmp_path.iterdir()) == []


def test_a_locked_artifact_and_what_its_maker_reads_stay(shelf: Store) -> None:
    embed = open_artifact(shelf.directory("embed", "k"))
    with shelf.lock("solve", "next"), holding(shelf, "solve", "next", [embed]):
        (shelf.root / "solve" / "next.partial").mkdir()
        os.utime(shelf.root / "solve" / "next.partial", (NOW - 9 * DAY,) * 2)
        assert busy(shelf).reading == {"embed/k": "solve-next"}
        choice = clean(shelf)
    assert sorted(artifacts(shelf)) == ["embed/k", "triplets/new", "triplets/t"]
    assert reasons(choice)["solve/next.partial"] == "a run is at work on it"
    assert reasons(choice)["embed/k"] == "a run is making solve-next from it"
    assert reasons(choice)["triplets/t"] == "embed/k was made from it"
    assert busy(shelf).reading == {}
    removed = [verdict.item.name for verdict in clean(shelf).removals]
    assert sorted(removed) == ["embed/k", "solve/next.partial", "triplets/t"]


def test_the_note_of_a_process_that_died_holds_nothing(shelf: Store) -> None:
    note = shelf.root / "locks" / "solve-dead.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text('["embed/k"]')
    (shelf.root / "locks" / "solve-dead.lock").touch()
    assert busy(shelf).reading == {}
    clean(shelf)
    assert list(artifacts(shelf)) == ["triplets/new"]


def test_what_is_locked_or_used_after_the_choice_stays_with_its_inputs(shelf: Store) -> None:
    choice = choose(take_inventory(shelf), ALL)
    with shelf.lock("embed", "k"):
        done = remove(shelf, choice)
    assert sorted(artifacts(shelf)) == ["embed/k", "triplets/new", "triplets/t"]
    assert reasons(done)["embed/k"] == "a run came to use it meanwhile"
    choice = choose(take_inventory(shelf), ALL)
    mark_used(shelf.directory("embed", "k"))
    done = remove(shelf, choice)
    assert sorted(artifacts(shelf)) == ["embed/k", "triplets/new", "triplets/t"]
    assert (done.bytes_freed, done.removals) == (0, ())


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_kill_in_the_middle_leaves_the_store_in_order(
    shelf: Store, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    deleted = []

    def die(folder: Path) -> None:
        deleted.append(folder)
        if len(deleted) == step:
            (folder / MANIFEST).unlink()  # deleting a folder has just begun
            raise Killed
        real(folder)

    real = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", die)
    with pytest.raises(Killed):
        clean(shelf)
    monkeypatch.undo()
    assert lacking(shelf) == []
    assert len(artifacts(shelf)) == 5 - step
    assert [artifact for name in artifacts(shelf) if not (artifact := shelf.find(*name.split("/")))] == []
    done = clean(shelf)
    assert {verdict.item.kind for verdict in done.removals} >= {"trash"}
    assert list(shelf.root.rglob(".trash-*")) == []
    assert list(artifacts(shelf)) == ["triplets/new"]


def test_of_two_at_once_one_is_refused(shelf: Store) -> None:
    choice = choose(take_inventory(shelf), ALL)
    with shelf.lock("gc", "store"), pytest.raises(ValueError, match="must be alone in .*; wait for it to end"):
        remove(shelf, choice)
    assert len(artifacts(shelf)) == 5


def test_features_go_when_their_artifacts_do_and_stay_with_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    space, shard = write_shard(store, "shard-a")
    write_shard(store, "shard-b")
    workspace = store.workspace("embed", "e")
    (workspace.path / "shard-a.parquet").hardlink_to(shard)
    embed = store.seal(workspace, "embed", "e", {}, {}, 0.0)
    # Links say by the time of their making when a shard was used, and that cannot be set: look from the future.
    later = Policy(time.time() + 40 * DAY, older_than=30 * DAY)
    assert FeatureCache(store.root / "features").usage()[0].shards == 2
    os.utime(embed.path / MANIFEST, (time.time() + 20 * DAY,) * 2)
    choice = clean(store, later)
    assert [verdict.item.name for verdict in choice.removals] == [f"features/{space}/shard-b"]
    assert reasons(choice) == {"embed/e": "used 20.0 days ago", f"features/{space}/shard-a": "used 20.0 days ago"}
    assert FeatureCache(store.root / "features").verify() == []
    os.utime(embed.path / MANIFEST, (time.time(),) * 2)
    choice = clean(store, later)
    assert [verdict.item.name for verdict in choice.removals] == ["embed/e", f"features/{space}/shard-a"]
    assert choice.bytes_freed > 0
    assert not shard.exists()
    assert [each.shards for each in FeatureCache(store.root / "features").usage()] == [0]


def test_features_of_a_cache_that_an_embed_stage_is_using_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _, shard = write_shard(store, "shard-a")
    later = Policy(time.time() + 40 * DAY, older_than=DAY)
    choice = choose(take_inventory(store), later)
    with store.lock("embed", "e"):
        assert clean(store, later).removals == ()
        assert remove(store, choice).removals == ()
    assert shard.exists()
    clean(store, later)
    assert not shard.exists()


def test_what_jobs_left_in_the_cache_goes_after_a_day(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _, shard = write_shard(store, "shard-a")
    left = [shard.with_name(name) for name in (".shard-b.parquet.1.tmp", "shard-c.pairs.parquet", "shard-d.parquet")]
    for path in left:
        path.write_bytes(b"x")
    assert clean(store, Policy(time.time())).removals == ()
    assert len(clean(store, Policy(time.time() + 2 * DAY)).removals) == 3
    assert [path for path in left if path.exists()] == []
    assert shard.exists() and shard.with_suffix(".json").exists()


def test_links_to_elsewhere_are_left_alone(tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    kept = make(elsewhere, "solve", "far", days=90)
    store = Store(tmp_path / "store")
    make(store, "solve", "near", days=90)
    (store.root / "solve" / "link").symlink_to(kept.path)
    (store.root / "other").symlink_to(elsewhere.root / "solve")
    assert [verdict.item.name for verdict in clean(store).removals] == ["solve/near"]
    assert kept.path.exists()


def test_foreign_folders_and_services_are_no_items(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("mlflow/artifacts", "prefect/storage", "tracking/run", "models/m", "notes/mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(b"1234")
    (tmp_path / "mlflow" / "artifacts" / MANIFEST).write_text("{}")
    found = take_inventory(store)
    assert found.items == {}
    assert found.bytes == 4 * 5 + 2


def test_a_damaged_artifact_is_removed_like_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    damaged = make(store, "solve", "d", days=90)
    (damaged.path / MANIFEST).write_bytes(b"{no json")
    os.utime(damaged.path / MANIFEST, (NOW - 90 * DAY,) * 2)
    assert [verdict.item.name for verdict in clean(store).removals] == ["solve/d"]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_nothing_that_stays_on_disk_lacks_an_input(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, made = Store(folder), []
        for number in range(data.draw(st.integers(1, 6))):
            inputs = [each for each in made if data.draw(st.booleans())]
            made.append(make(store, "stage", str(number), inputs, days=data.draw(st.integers(0, 9)), size=100))
        keep = data.draw(st.none() | st.integers(0, 6000))
        protected = {made[0].sha256: "a model"} if data.draw(st.booleans()) else {}
        choice = clean(store, Policy(NOW, data.draw(st.integers(1, 9)) * DAY, keep, protected))
        assert lacking(store) == []
        assert sorted(artifacts(store)) == sorted(verdict.item.name for verdict in choice.stays)
        assert not protected or "stage/0" in artifacts(store)
