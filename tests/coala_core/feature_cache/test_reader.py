"""Reading a feature cache: what sidecars say, what is broken, and shards brought to a stage's folder."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
import pytest

from coala_core.feature_cache import BrokenShard, FeatureCache, Place, ShardNote, Space
from coala_core.feature_cache.reader import StoredSpace
from coala_core.feature_table import feature_table
from coala_core.storage import Damaged, file_digest

SPACE = Space({"model": "tiny", "model_fingerprint": "f", "max_tokens": 64})
KEY = SPACE.key


def write(cache: FeatureCache, name: str, keys: str, columns: tuple[str, ...] = ("layer1_mean",)) -> ShardNote:
    """Write a shard whose keys are one letter each and whose rows count up from the letter."""
    features = {
        f"{side}_{column}": np.array([[ord(key), offset] for key in keys], dtype=np.float32)
        for column in columns
        for offset, side in enumerate(("chosen", "rejected"))
    }
    table = feature_table(list(keys), features)
    return cache.write_shard(KEY, name, table, columns, list(keys), {"pairs": len(keys)})


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    """Local cache with a space and a shard of three pairs."""
    cache = FeatureCache(tmp_path / "cache")
    cache.open_space(SPACE)
    write(cache, "shard-a", "pqr")
    return cache


def parquet(cache: FeatureCache, name: str = "shard-a") -> Path:
    return Path(cache.url) / KEY / f"{name}.parquet"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_cache_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "none")
    assert cache.spaces() == []
    assert list(cache.notes(KEY)) == []
    assert cache.find(KEY, ["layer1_mean"], ["p"]).places == {}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b'{"identity": 3}', b"\xff", None], ids=lambda content: str(content)
)
def test_an_unreadable_identity_is_empty(cache: FeatureCache, content: bytes | None) -> None:
    assert cache.spaces() == [StoredSpace(KEY, SPACE.identity)]
    path = Path(cache.url) / KEY / "space.json"
    path.unlink() if content is None else path.write_bytes(content)
    assert cache.spaces() == [StoredSpace(KEY, {})]
    cache.open_space(SPACE)
    assert cache.spaces() == [StoredSpace(KEY, SPACE.identity)]


def test_other_folders_are_no_spaces(cache: FeatureCache) -> None:
    for name in ("embed", "locks", KEY.upper() + "0"):
        (Path(cache.url) / name).mkdir()
    (Path(cache.url) / ("0" * 16)).write_text("a file")
    assert [space.key for space in cache.spaces()] == [KEY]


def test_notes_come_by_name_and_files_that_are_no_shards_are_passed_over(cache: FeatureCache) -> None:
    second = write(cache, "shard-B", "s")
    folder = Path(cache.url) / KEY
    (folder / "shard-c.parquet").write_bytes(b"no sidecar: interrupted")
    (folder / ".shard-d.json.1.tmp").write_text("{")
    (folder / "shard-e.pairs.parquet").write_bytes(b"")
    (folder / "readme.txt").write_text("hello")
    # "B" sorts before "a".
    assert [note.name for note in cache.notes(KEY)] == ["shard-B", "shard-a"]
    assert next(cache.notes(KEY)) == second


def test_more_notes_than_are_read_at_once_all_come(cache: FeatureCache) -> None:
    text = json.loads((Path(cache.url) / KEY / "shard-a.json").read_text())
    for index in range(130):  # 64 are read at once: three times
        (Path(cache.url) / KEY / f"n{index:03}.json").write_text(json.dumps(text | {"name": f"n{index:03}"}))
        parquet(cache, f"n{index:03}").write_bytes(parquet(cache).read_bytes())
    assert [note.name for note in cache.notes(KEY)] == [f"n{index:03}" for index in range(130)] + ["shard-a"]


BREAKAGES: list[tuple[Callable[[FeatureCache], object], str]] = [
    (lambda cache: parquet(cache).unlink(), "its Parquet file is missing"),
    (lambda cache: os.truncate(parquet(cache), 9), r"its Parquet file should have \d+ bytes and has 9"),
    (lambda cache: parquet(cache).with_suffix(".json").write_text("{"), "its sidecar is no note: its text: "),
    (lambda cache: parquet(cache).with_suffix(".json").write_text("{}"), "its sidecar is no note: name: "),
    (
        lambda cache: parquet(cache).with_suffix(".json").rename(parquet(cache, "shard-b").with_suffix(".json")),
        "its sidecar is that of 'shard-a'",
    ),
]


@pytest.mark.parametrize(("breakage", "reason"), BREAKAGES)
def test_a_broken_shard_says_why_and_is_not_found(cache: FeatureCache, breakage, reason: str) -> None:
    write(cache, "shard-z", "r")
    breakage(cache)
    broken, intact = cache.notes(KEY)
    assert isinstance(broken, BrokenShard) and isinstance(intact, ShardNote)
    assert re.match(reason, broken.reason)
    found = cache.find(KEY, ["layer1_mean"], ["p", "q", "r"])
    assert found.places == {"r": Place("shard-z", 0)}
    assert found.broken == (broken,)


def test_a_shard_that_is_written_or_discarded_while_notes_are_read_is_not_broken(cache: FeatureCache) -> None:
    write(cache, "shard-b", "s")
    stale = dict(cache._folder.list(KEY).files)
    cache.discard(KEY, "shard-a")
    write(cache, "shard-b", "stuv")
    assert [type(note) for note in cache._notes(KEY, stale)] == [ShardNote]
    (note,) = cache._notes(KEY, stale)
    assert note.name == "shard-b" and note.rows == 4


@pytest.mark.parametrize("url", ["folder", "memory"])
def test_a_fetched_shard_is_the_one_that_was_written(url: str, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache" if url == "folder" else f"memory://{uuid4().hex}")
    note = write(cache, "shard-a", "pqr")
    target = tmp_path / "artifact" / "shard-a.parquet"
    for _ in range(2):  # the second replaces the first
        cache.fetch(KEY, note, target)
        assert (file_digest(target), target.stat().st_size) == (note.sha256, note.bytes)
        table = pq.read_table(target)
        assert table["key"].to_pylist() == ["p", "q", "r"]
        # ord("q") is 113; chosen rows end in 0, rejected ones in 1.
        assert table["rejected_layer1_mean"].to_pylist()[1] == [113.0, 1.0]
        assert [path.name for path in target.parent.iterdir()] == ["shard-a.parquet"]


def test_a_local_fetch_shares_the_file_and_outlives_the_cache(cache: FeatureCache, tmp_path: Path) -> None:
    (note,) = cache.notes(KEY)
    target = tmp_path / "artifact" / "shard.parquet"
    cache.fetch(KEY, note, target)
    assert target.stat().st_ino == parquet(cache).stat().st_ino
    assert target.stat().st_nlink == 2
    before = target.read_bytes()
    write(cache, "shard-a", "xyz")  # a new file, not the old one changed
    cache.remove()
    assert target.read_bytes() == before


def test_a_copy_is_made_where_links_are_impossible(cache: FeatureCache, tmp_path: Path, monkeypatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (note,) = cache.notes(KEY)
    cache.fetch(KEY, note, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == parquet(cache).read_bytes()
    assert (tmp_path / "copy").stat().st_nlink == 1


@pytest.mark.parametrize(
    ("damage", "got"),
    [
        (lambda path: flip(path), r"SHA-256 [0-9a-f]{12} instead of [0-9a-f]{12}"),
        (lambda path: os.truncate(path, 100), "100 bytes"),
        (lambda path: path.unlink(), "no file"),
    ],
)
def test_a_damaged_shard_is_not_handed_out(cache: FeatureCache, tmp_path: Path, damage, got: str) -> None:
    (note,) = cache.notes(KEY)
    target = tmp_path / "artifact" / "shard.parquet"
    target.parent.mkdir()
    target.write_text("from before")
    damage(parquet(cache))
    message = rf"`{cache.label}/{KEY}/shard-a.parquet` must hold the {note.bytes} bytes .*, got {got}; run the embed"
    with pytest.raises(Damaged, match=message):
        cache.fetch(KEY, note, target)
    assert list(target.parent.iterdir()) == []


def test_a_shard_written_anew_with_other_bytes_is_noticed(cache: FeatureCache, tmp_path: Path) -> None:
    (note,) = cache.notes(KEY)
    write(cache, "shard-a", "xyz")
    with pytest.raises(Damaged, match="SHA-256|bytes"):
        cache.fetch(KEY, note, tmp_path / "shard")


def test_credentials_are_in_no_message(tmp_path: Path) -> None:
    cache = FeatureCache("memory://ann:hush@box/x")
    note = write(cache, "shard-a", "pqr")
    cache.open_space(SPACE)
    cache.discard(KEY, "shard-a")
    with pytest.raises(Damaged, match=r"`memory://\*\*\*@box/x/") as raised:
        cache.fetch(KEY, note, tmp_path / "shard")
    assert "hush" not in f"{raised.value} {raised.value.__context__} {cache!r}"
    assert "hush" in cache.url  # which another process needs
    assert b"hush" not in cache._folder.read([f"{KEY}/space.json"])[f"{KEY}/space.json"]
    cache.remove()
