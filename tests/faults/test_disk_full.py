"""A disk that fills up in the middle: one sentence says where and what to do, and the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coala_core.feature_cache import FeatureCache
from tests.faults.conftest import slow_config, torn
from tests.flows.conftest import Outcome, run_coala
from tests.lessons import digests, write_lessons

pytestmark = pytest.mark.slow

SMALL_MIB = 2


class Disk:
    """A small file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True)

    def grow(self) -> None:
        assert self.mount("remount", "size=256m").returncode == 0

    def fill(self, leave: int) -> Path:
        """Write a file that leaves so many bytes free."""
        path = self.folder / "ballast"
        free = os.statvfs(self.folder)
        path.write_bytes(bytes(free.f_bavail * free.f_frsize - leave))
        return path


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    small = Disk(tmp_path / "disk")
    small.folder.mkdir()
    done = small.mount(f"size={SMALL_MIB}m")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield small
    subprocess.run(["umount", "--lazy", str(small.folder)], check=True)


def refused(outcome: Outcome, folder: Path) -> None:
    """The last line is one sentence in four parts, without a traceback."""
    assert outcome.status == 2, outcome.err
    assert "Traceback" not in outcome.err
    said = outcome.err.strip().splitlines()[-1]
    assert re.fullmatch(
        rf"coala: `{re.escape(str(folder))}\S*` needs room on its disk, got {os.strerror(errno.ENOSPC)} with "
        r"[\d.,]+ \w+ free; make room there and run the same command again, which continues\.",
        said,
    ), said


@pytest.fixture
def words(tmp_path: Path, model: Path) -> Callable[[Path], list[str]]:
    """Settings with which the features of 60 lessons take more room than the small disk has."""

    def give(store: Path) -> list[str]:
        config = slow_config(store, tmp_path / "lessons.jsonl", model, embed={"layers": [1, 2, 3, 4]})
        embed = {name: value for name, value in config["embed"].items() if name != "model"}
        return [w for name, value in embed.items() for w in ("--set", f"embed.{name}={json.dumps(value)}")]

    return give


def test_a_full_disk_stops_embedding_with_a_sentence_and_room_lets_it_go_on(
    disk: Disk, model: Path, tmp_path: Path, words: Callable[[Path], list[str]]
) -> None:
    lessons = write_lessons(tmp_path / "lessons.jsonl", 120)
    elsewhere, store = tmp_path / "elsewhere", disk.folder / "store"

    def stage(name: str, *arguments: object, store: Path) -> Outcome:
        return run_coala(name, *arguments, "--store", store)

    expected_triplets = stage("triplets", "--conversations", lessons, store=elsewhere).out.strip()
    expected = stage("embed", expected_triplets, "--model", model, *words(elsewhere), store=elsewhere)
    assert expected.status == 0, expected.err

    triplets = stage("triplets", "--conversations", lessons, store=store).out.strip()
    command = ("embed", triplets, "--model", model, *words(store))
    refused(stage(*command, store=store), store)
    assert not list(store.glob("embed/*/manifest.json"))
    kept = stamps(store)
    assert kept, "what was finished before the disk was full stays"
    for space in FeatureCache(store / "features").spaces():
        shards = [problem for problem in FeatureCache(store / "features").verify(space.key) if problem.name in kept]
        assert shards == []
    refused(stage(*command, store=store), store)
    disk.grow()
    again = stage(*command, store=store)
    assert again.status == 0, again.err
    assert digests(Path(again.out.strip())) == digests(Path(expected.out.strip()))
    assert {name: stamps(store)[name] for name in kept} == kept
    assert len(kept) < len(stamps(store))
    assert FeatureCache(store / "features").verify() == []
    assert torn(store) == []


def stamps(store: Path) -> dict[str, int]:
    """When each finished shard was written, by name."""
    sidecars = store.glob("features/*/shard-*.json")
    return {path.stem: path.with_suffix(".parquet").stat().st_mtime_ns for path in sidecars if path.stat().st_size}


@pytest.mark.parametrize("leave", [0, 4096, 40_960])
def test_a_full_disk_stops_triplets_with_a_sentence_and_room_lets_them_go_on(
    disk: Disk, tmp_path: Path, leave: int
) -> None:
    lessons = write_lessons(tmp_path / "lessons.jsonl", 2000)
    command = ("triplets", "--conversations", lessons)
    store = disk.folder / "store"
    ballast = disk.fill(leave)
    refused(run_coala(*command, "--store", store), disk.folder)
    assert not list(store.glob("triplets/*/manifest.json"))
    ballast.unlink()
    disk.grow()
    again = run_coala(*command, "--store", store)
    assert again.status == 0, again.err
    elsewhere = run_coala(*command, "--store", tmp_path / "elsewhere")
    assert digests(Path(again.out.strip())) == digests(Path(elsewhere.out.strip()))
    assert torn(store) == []
