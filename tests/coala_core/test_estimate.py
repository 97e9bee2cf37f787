"""Estimates against what tiny runs really write, and the refusal where that does not fit."""

from __future__ import annotations

import errno
import logging
import mmap
import shutil
import weakref
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from coala_core.config import SolveConfig
from coala_core.estimate import (
    NoRoom,
    converted_bytes,
    features_bytes,
    require_room,
    scratch_bytes,
    shown,
    triplets_bytes,
)
from coala_core.scratch import Scratch
from coala_core.stages import embed, solve, split, triplets
from coala_core.storage import Store
from tests.lessons import quick_config, write_lessons

Usage = namedtuple("Usage", "total used free")


def written(folder: Path) -> int:
    """Bytes of all files, each counted once however many names it has."""
    found = {(path.stat().st_ino, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}
    return sum(size for _, size in found)


@pytest.mark.parametrize("layers", [[2], [1, 2, 3]])
@pytest.mark.parametrize("shard_rows", [4, 64])
def test_features_take_between_a_third_of_the_estimate_and_all_of_it(
    tmp_path: Path, lessons: Path, tiny_models: dict[str, Path], layers: list[int], shard_rows: int
) -> None:
    config = quick_config(
        tmp_path,
        lessons,
        tiny_models["llama"],
        embed={"layers": layers, "poolings": ["mean", "last"], "shard_rows": shard_rows},
    )
    store = Store(tmp_path)
    made = triplets.run(store, config.triplets)
    artifact = embed.run(store, config.embed, made)
    width = artifact.report["hidden_size"]
    real = written(tmp_path / "features") + (artifact.path / "rows.parquet").stat().st_size
    bound = features_bytes(artifact.report["pairs"], 2 * len(layers), width, shard_rows)
    assert bound / 3 < real <= bound
    assert features_bytes(72, 2, 32, 16, linked=False) == 2 * features_bytes(72, 2, 32, 16)


def test_wide_features_are_the_floats_and_hardly_more() -> None:
    # 100,000 pairs, two sides, two layers, 2048 wide: 3.2768 GB of float32.
    assert 3_276_800_000 < features_bytes(100_000, 2, 2048, 256) < 1.05 * 3_276_800_000


def test_the_scratch_of_a_solve_on_disk_is_bounded(
    tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    live: dict[int, int] = {}
    peak = 0
    real = Scratch.array

    def watched(self: Scratch, shape: tuple[int, ...], dtype: Any) -> Any:
        nonlocal peak
        array = real(self, shape, dtype)
        base: Any = array
        while not isinstance(base, mmap.mmap):
            base = base.obj if isinstance(base, memoryview) else base.base
        live[id(base)] = len(base)
        weakref.finalize(base, live.pop, id(base))
        peak = max(peak, sum(live.values()))
        return array

    monkeypatch.setattr(Scratch, "array", watched)
    lessons = write_lessons(tmp_path / "lessons.jsonl", conversations=60)
    chosen = {"storage": "disk", "gates": 24, "probe_gates": 2}
    config = quick_config(tmp_path / "store", lessons, tiny_models["llama"], solve=chosen)
    store = Store(config.store)
    made = triplets.run(store, config.triplets)
    divided, features = split.run(store, config.split, made), embed.run(store, config.embed, made)
    solve.run(store, config.solve, features, divided)
    bound = scratch_bytes(features.report["pairs"], features.report["hidden_size"], config.solve)
    assert bound / 4 < peak <= bound


def test_a_solve_in_memory_takes_no_disk() -> None:
    assert scratch_bytes(1000, 64, SolveConfig(storage="memory", backend="numpy")) == 0
    assert scratch_bytes(1000, 64, SolveConfig(storage="auto", backend="numpy", max_memory_gib=1)) == 0
    # 2,000 rows: three copies of 64 floats, one of 65, and 4 + 17 * 2 * 8 bytes for each of 50 gates.
    rows = 2000 * (3 * 4 * 64 + 4 * 65 + 276 * 50)
    assert scratch_bytes(1000, 64, SolveConfig(storage="disk", backend="numpy")) == rows


def test_triplets_of_plain_and_packed_lessons_stay_below_the_estimate(tmp_path: Path, lessons: Path) -> None:
    import gzip

    packed = tmp_path / "lessons.jsonl.gz"
    packed.write_bytes(gzip.compress(lessons.read_bytes()))
    for file in (lessons, packed):
        store = Store(tmp_path / file.suffix)
        config = quick_config(store.root, file, tmp_path)
        artifact = triplets.run(store, config.triplets)
        assert 0 < written(artifact.path) <= triplets_bytes(file.stat().st_size) + 10_000


def test_the_built_in_model_was_measured() -> None:
    assert converted_bytes(98_362_432) > 540_000_000  # 517 MiB


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A disk of 100 GB with 10 GB free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 * 10**9, 90 * 10**9, 10 * 10**9))


@pytest.mark.usefixtures("disk")
def test_what_cannot_fit_is_refused_in_one_sentence_with_remedies(tmp_path: Path) -> None:
    with pytest.raises(NoRoom) as refusal:
        require_room(tmp_path / "not" / "there", 10 * 10**9 + 1, "embed")
    sentence = str(refusal.value)
    assert sentence.startswith("`embed` must find room for up to 10.0 GB in ")
    assert "got 10.0 GB free; make room with `coala gc`" in sentence
    assert "\n" not in sentence
    assert refusal.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("disk")
def test_a_refusal_survives_being_sent_to_another_process(tmp_path: Path) -> None:
    import copy

    with pytest.raises(NoRoom) as refusal:
        require_room(tmp_path, 10**12, "solve")
    copied = copy.copy(refusal.value)  # as pickle does it
    assert (type(copied), str(copied), copied.errno) == (NoRoom, str(refusal.value), errno.ENOSPC)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize(("needed", "warned"), [(4 * 10**9, False), (6 * 10**9, True), (10**10, True)])
def test_little_room_afterwards_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, needed: int, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, "coala.store"):
        require_room(tmp_path, needed, "embed")
    assert bool(caplog.records) is warned
    if warned:
        assert "less than 5 % of the disk" in caplog.text


def test_real_disks_have_room_for_a_byte(tmp_path: Path) -> None:
    require_room(tmp_path, 1, "embed")


@pytest.mark.parametrize(("size", "text"), [(999, "999 B"), (1000, "1.0 kB"), (2_340_000_000_000, "2.3 TB")])
def test_sizes_for_people(size: int, text: str) -> None:
    assert shown(size) == text
