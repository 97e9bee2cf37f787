"""The feature cache: shards written, found, checked, counted and cleared."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.feature_cache import FeatureCache, Place, Problem, Removed, ShardNote, Space, SpaceUsage
from coala_core.feature_table import feature_table
from coala_core.storage import Damaged, dump_json, file_digest

SPACE = Space({"model": "tiny", "model_fingerprint": "f", "max_tokens": 64})
KEY = SPACE.key


def shard_table(keys: str, columns: tuple[str, ...] = ("layer1_mean",), start: float = 0.0) -> pa.Table:
    """Rows whose features count up from `start`, one letter a key."""
    values = start + np.arange(2 * len(keys), dtype=np.float32).reshape(-1, 2)
    return feature_table(list(keys), {f"{side}_{c}": values for c in columns for side in ("chosen", "rejected")})


def write(
    cache: FeatureCache, name: str, keys: str, columns: tuple[str, ...] = ("layer1_mean",), start: float = 0.0
) -> ShardNote:
    return cache.write_shard(KEY, name, shard_table(keys, columns, start), columns, list(keys), {"pairs": len(keys)})


@pytest.fixture(params=["folder", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureCache:
    """Empty space of a cache, here and on an object store."""
    cache = FeatureCache(tmp_path / "cache" if request.param == "folder" else f"memory://{uuid4().hex}/cache")
    cache.open_space(SPACE)
    return cache


def test_a_shard_is_found_again_by_another_process_s_cache(cache: FeatureCache, tmp_path: Path) -> None:
    note = write(cache, "shard-a", "pqr", ("layer1_mean", "layer2_last"))
    other = FeatureCache(cache.url)
    assert list(other.notes(KEY)) == [note]
    assert (note.rows, note.columns, note.counts) == (3, ("layer1_mean", "layer2_last"), {"pairs": 3})
    assert note.keys == ("p", "q", "r")
    found = other.find(KEY, ["layer2_last"], {"q", "z"})
    assert found.places == {"q": Place("shard-a", 1)}
    assert other.find(KEY, ["layer3_mean", "layer2_last"], ["q"]).lacking == {"q": ("layer3_mean",)}
    other.fetch(KEY, found.notes["shard-a"], tmp_path / "shard")
    # Row 1 of "pqr" counts 0 + 2 and 0 + 3.
    assert pq.read_table(tmp_path / "shard")["chosen_layer2_last"].to_pylist()[1] == [2.0, 3.0]
    assert other.verify() == []


def test_the_identity_is_written_once(cache: FeatureCache) -> None:
    cache.open_space(Space(SPACE.identity | {"model": "another name"}))
    assert [(space.key, space.identity) for space in cache.spaces()] == [(KEY, SPACE.identity)]


def test_equal_tables_give_equal_bytes_however_they_are_cut(cache: FeatureCache) -> None:
    whole = shard_table("opqrst")
    one = cache.write_shard(KEY, "one", whole.slice(1, 4), ["layer1_mean"], list("pqrs"), {})
    pieces = pa.concat_tables([whole.slice(1, 1), whole.slice(2, 3)])
    two = cache.write_shard(KEY, "two", pieces, ["layer1_mean"], list("pqrs"), {})
    copy = shard_table("pqrs", start=2.0)  # row 1 of the six begins with 2
    three = cache.write_shard(KEY, "three", copy, ["layer1_mean"], list("pqrs"), {})
    assert one.sha256 == two.sha256 == three.sha256


def test_a_shard_keeps_further_columns(cache: FeatureCache, tmp_path: Path) -> None:
    table = shard_table("pq").append_column("turns_cut", pa.array([0, 3]))
    note = cache.write_shard(KEY, "shard-a", table, ["layer1_mean"], ["p", "q"], {})
    cache.fetch(KEY, note, tmp_path / "shard")
    assert pq.read_table(tmp_path / "shard")["turns_cut"].to_pylist() == [0, 3]
    assert cache.verify() == []


@pytest.mark.parametrize(
    ("table", "columns", "keys", "got"),
    [
        (shard_table("pq"), ["layer1_last"], "pq", "no column chosen_layer1_last, rejected_layer1_last"),
        (shard_table("pq").drop(["key"]), ["layer1_mean"], "pq", "no column key"),
        (shard_table("pq"), [], "pq", "no column of features"),
        (shard_table("pq"), ["layer1_mean"], "qp", "other keys than the 2 described"),
        (shard_table("pp"), ["layer1_mean"], "pp", "1 different keys in 2 rows"),
        (shard_table("pp").slice(2), ["layer1_mean"], "", "0 different keys in 0 rows"),
    ],
)
def test_a_table_that_is_not_as_described_is_refused(cache, table, columns, keys: str, got: str) -> None:
    message = rf"`write_shard\(table=...\)` must hold its columns and keys, got {got}; describe"
    with pytest.raises(ValueError, match=message):
        cache.write_shard(KEY, "shard-a", table, columns, list(keys), {})
    assert list(cache.notes(KEY)) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from("pqrst"), min_size=1), st.booleans()), max_size=4))
def test_every_place_is_a_row_of_a_file_that_holds_the_pair(shards: list[tuple[set[str], bool]]) -> None:
    cache = FeatureCache(f"memory://{uuid4().hex}")
    for index, (keys, wide) in enumerate(shards):
        columns = ("layer1_mean", "layer2_mean") if wide else ("layer1_mean",)
        write(cache, f"n{index}", "".join(sorted(keys)), columns)
    found = cache.find(KEY, ["layer2_mean"], list("pqrst"))
    assert set(found.places) == {key for keys, wide in shards if wide for key in keys}
    for key, place in found.places.items():
        table = pq.read_table(pa.BufferReader(cache._folder.read([f"{KEY}/{place.shard}.parquet"]).popitem()[1]))
        assert table["key"][place.row].as_py() == key
        assert "chosen_layer2_mean" in table.column_names
    cache.discard(KEY, "n0")


def test_verify_names_every_problem_and_nothing_else(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.open_space(SPACE)
    for name in ("bent", "fine", "gone", "lies", "lone", "torn"):
        write(cache, name, "pqr")
    assert cache.verify() == cache.verify(KEY) == []
    folder = tmp_path / KEY
    content = bytearray((folder / "bent.parquet").read_bytes())
    content[50] ^= 1
    (folder / "bent.parquet").write_bytes(content)
    (folder / "gone.parquet").unlink()
    lie = json.loads((folder / "lies.json").read_text()) | {"keys": ["p", "q", "s"]}
    (folder / "lies.json").write_text(dump_json(lie))
    (folder / "lone.json").unlink()
    (folder / "torn.json").write_text("{")
    told: list[tuple[int, int, str]] = []
    problems = cache.verify(KEY, lambda *said: told.append(said))
    reasons = {problem.name: problem.reason for problem in problems}
    assert [problem.name for problem in problems] == ["bent", "gone", "lies", "lone", "torn"]
    assert reasons["bent"].startswith("its Parquet file should match its sidecar and has SHA-256 ")
    assert reasons["gone"] == "its Parquet file is missing"
    assert reasons["lies"].endswith("should hold what its sidecar says and has other keys than the 3 described")
    assert reasons["lone"] == "it has no sidecar: its write was interrupted, or is going on"
    assert reasons["torn"].startswith("its sidecar is no note: ")
    assert told[-1] == (5, 5, "shards") and len(told) == 5  # sidecars: all but that of `lone`
    for name in reasons:
        cache.discard(KEY, name)
    assert cache.verify() == []
    assert [note.name for note in cache.notes(KEY)] == ["fine"]


def test_a_file_that_is_no_parquet_and_one_without_the_columns_are_problems(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.open_space(SPACE)
    for name, content in (("noise", b"x" * 40), ("empty", b""), ("other", None)):
        note = write(cache, name, "pq")
        path = tmp_path / KEY / f"{name}.parquet"
        pq.write_table(pa.table({"key": ["p", "q"]}), path) if content is None else path.write_bytes(content)
        sidecar = dict(vars(note), sha256=file_digest(path), bytes=path.stat().st_size)
        path.with_suffix(".json").write_text(dump_json(sidecar))
    empty, noise, other = cache.verify()
    assert "cannot be read" in empty.reason and "cannot be read" in noise.reason
    assert "no column chosen_layer1_mean, rejected_layer1_mean" in other.reason


def test_verify_lists_leftovers_only_when_they_are_old(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.open_space(SPACE)
    cache.put_pairs(KEY, "shard-a", pa.table({"key": ["p"]}))
    temporary = tmp_path / KEY / ".shard-b.parquet.0.tmp"
    temporary.write_bytes(b"half")
    assert cache.verify() == []
    day = time.time() - 25 * 3600
    for path in (temporary, tmp_path / KEY / "shard-a.pairs.parquet"):
        os.utime(path, (day, day))
    old = "it was left over by a job more than a day ago"
    assert cache.verify() == [Problem(KEY, temporary.name, old), Problem(KEY, "shard-a.pairs.parquet", old)]
    (tmp_path / KEY / "space.json").write_text(dump_json({"identity": {"max_tokens": 65}}))
    assert cache.verify()[-1].name == "space.json"


def test_discard_removes_the_sidecar_first_and_may_be_repeated(cache: FeatureCache, monkeypatch) -> None:
    write(cache, "shard-a", "p")
    deleted: list[str] = []
    delete = cache._folder.delete
    monkeypatch.setattr(cache._folder, "delete", lambda name: (deleted.append(name), delete(name)))
    cache.discard(KEY, "shard-a")
    cache.discard(KEY, "shard-a")
    assert deleted == 2 * [f"{KEY}/shard-a.json", f"{KEY}/shard-a.parquet"]
    assert list(cache._folder.list(KEY).files) == ["space.json"]


def test_remove_takes_sidecars_first_and_the_identity_last(cache: FeatureCache, monkeypatch) -> None:
    write(cache, "shard-a", "p")
    write(cache, "shard-b", "q")
    deleted: list[str] = []
    delete = cache._folder.delete
    monkeypatch.setattr(cache._folder, "delete", lambda name: (deleted.append(name), delete(name)))
    cache.remove(KEY)
    names = ["shard-a.json", "shard-b.json", "shard-a.parquet", "shard-b.parquet", "space.json"]
    assert deleted == [f"{KEY}/{name}" for name in names]


def test_usage_and_remove_count_the_same_bytes(cache: FeatureCache) -> None:
    other = Space({"max_tokens": 1})
    cache.open_space(other)
    one, two = write(cache, "shard-a", "pqr"), write(cache, "shard-b", "rs", ("layer2_last",))
    cache._folder.write(f"{KEY}/shard-c.json", lambda path: path.write_text("{"))
    sizes = {space: sum(cache._folder.list(space).files.values()) for space in (KEY, other.key)}
    assert sizes[KEY] > one.bytes + two.bytes
    expected = SpaceUsage(KEY, SPACE.identity, 2, 5, sizes[KEY], ("layer1_mean", "layer2_last"), 1)
    assert [usage for usage in cache.usage() if usage.key == KEY] == [expected]
    assert {usage.key for usage in cache.usage()} == {KEY, other.key}
    # Sidecars count as shards: a, b and the broken c.
    assert cache.remove(KEY) == Removed(1, 3, sizes[KEY])
    assert [space.key for space in cache.spaces()] == [other.key]
    assert cache.remove() == Removed(1, 0, sizes[other.key])
    assert cache.remove() == Removed(0, 0, 0)


def test_remove_touches_nothing_that_is_not_the_cache_s(tmp_path: Path) -> None:
    (tmp_path / "embed").mkdir()
    (tmp_path / "embed" / "manifest.json").write_text("{}")
    cache = FeatureCache(tmp_path)
    cache.open_space(SPACE)
    cache.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["embed"]
    assert (tmp_path / "embed" / "manifest.json").exists()


@pytest.mark.parametrize("act", ["verify", "remove"])
def test_a_space_that_is_not_there_is_refused(cache: FeatureCache, act: str) -> None:
    with pytest.raises(ValueError, match=rf"must name a space of .*, got '../x'; choose from {KEY}"):
        getattr(cache, act)("../x")


def test_pairs_are_put_taken_and_dropped_beside_the_shards(cache: FeatureCache) -> None:
    prompt = [{"role": "user", "content": "2 + 2?"}]
    table = pa.table({"key": ["p"], "prompt": [prompt], "chosen": [[{"role": "assistant", "content": "4"}]]})
    url = cache.put_pairs(KEY, "shard-a", table)
    assert url == f"{cache.url}/{KEY}/shard-a.pairs.parquet"
    assert FeatureCache.take_pairs(url).to_pylist() == table.to_pylist()
    assert list(cache.notes(KEY)) == []
    for _ in range(2):
        FeatureCache.drop_pairs(url)
    with pytest.raises(Damaged, match="must be the Parquet file with a job's pairs, got no file; run the embed"):
        FeatureCache.take_pairs(url)
    cache._folder.write(f"{KEY}/shard-a.pairs.parquet", lambda path: path.write_text("PAR1 noise PAR1"))
    with pytest.raises(Damaged, match="got something else"):
        FeatureCache.take_pairs(url)
    with pytest.raises(ValueError, match="must be an address that `put_pairs` gave, got '.*/space.json'; pass it on"):
        FeatureCache.drop_pairs(f"{cache.url}/{KEY}/space.json")
