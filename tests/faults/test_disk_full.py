"""A disk that fills up in the middle: one sentence says where and what to do, and the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coala_core.feature_cache import FeatureCache
from tests.faults.conftest import slow_config, torn
from tests.faults.world import wait_for
from tests.flows.conftest import Outcome, run_coala, start_coala
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
        with suppress(OSError), path.open("wb", buffering=0) as file:  # others may write meanwhile
            file.write(bytes(free.f_bavail * free.f_frsize - leave))
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


def refused(outcome: Outcome, sentence: str) -> None:
    """The last line is one sentence in four parts, without a traceback."""
    assert outcome.status == 2, outcome.err
    assert "Traceback" not in outcome.err
    said = outcome.err.strip().splitlines()[-1]
    assert re.fullmatch(f"coala: {sentence}", said), said


def full(folder: Path) -> str:
    """What is said where a write found no room."""
    return (
        rf"`{re.escape(str(folder))}\S*` needs room on its disk, got {os.strerror(errno.ENOSPC)} with "
        r"[\d.,]+ \w+ free; make room there and run the same command again, which continues\."
    )


@pytest.fixture
def words(tmp_path: Path, model: Path) -> Callable[[Path], list[str]]:
    """Settings of `embed` with which features take more room than the small disk has."""

    def give(store: Path) -> list[str]:
        config = slow_config(store, tmp_path / "lessons.jsonl", model, embed={"layers": [1, 2, 3, 4]})
        embed = {name: value for name, value in config["embed"].items() if name != "model"}
        return [w for name, value in embed.items() for w in ("--set", f"embed.{name}={json.dumps(value)}")]

    return give


def test_a_disk_that_is_too_small_is_refused_before_anything_is_embedded(
    disk: Disk, model: Path, tmp_path: Path, words: Callable[[Path], list[str]]
) -> None:
    lessons, store = write_lessons(tmp_path / "lessons.jsonl", 120), disk.folder / "store"
    triplets = run_coala("triplets", "--conversations", lessons, "--store", store).out.strip()
    outcome = run_coala("embed", triplets, "--model", model, *words(store), "--store", store)
    place = re.escape(str(store.resolve()))
    refused(
        outcome,
        rf"`embed` must find room for up to [\d.]+ MB in {place}, got [\d.]+ MB free; make room with `coala gc`, store "
        r"fewer `embed\.layers` or `embed\.poolings`, or give a larger disk with `--store`\.",
    )
    assert stamps(store) == {}


def test_a_disk_that_fills_up_while_shards_are_written_stops_with_a_sentence_and_room_lets_it_go_on(
    disk: Disk, model: Path, tmp_path: Path, words: Callable[[Path], list[str]]
) -> None:
    lessons = write_lessons(tmp_path / "lessons.jsonl", 120)
    elsewhere, store = tmp_path / "elsewhere", disk.folder / "store"
    disk.grow()

    def stage(name: str, *arguments: object, store: Path) -> Outcome:
        return run_coala(name, *arguments, "--store", store)

    expected_triplets = stage("triplets", "--conversations", lessons, store=elsewhere).out.strip()
    expected = stage("embed", expected_triplets, "--model", model, *words(elsewhere), store=elsewhere)
    assert expected.status == 0, expected.err

    triplets = stage("triplets", "--conversations", lessons, store=store).out.strip()
    command = ("embed", triplets, "--model", model, *words(store), "--store", store)
    with start_coala(command) as process:
        wait_for(lambda: len(stamps(store)) >= 3, "three shards", pause=0.01)
        ballast = disk.fill(leave=0)
        out, err = process.communicate(timeout=120)
    refused(Outcome(process.returncode, out, err), full(store))
    assert not list(store.glob("embed/*/manifest.json"))
    kept = stamps(store)
    assert 3 <= len(kept) < len(stamps(elsewhere))
    cache = FeatureCache(store / "features")
    assert [problem for problem in cache.verify() if problem.name in kept] == []
    ballast.unlink()
    again = run_coala(*command)
    assert again.status == 0, again.err
    assert digests(Path(again.out.strip())) == digests(Path(expected.out.strip()))
    assert {name: stamps(store)[name] for name in kept} == kept
    assert cache.verify() == []
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
    refused(run_coala(*command, "--store", store), full(disk.folder))
    assert not list(store.glob("triplets/*/manifest.json"))
    ballast.unlink()
    disk.grow()
    again = run_coala(*command, "--store", store)
    assert again.status == 0, again.err
    elsewhere = run_coala(*command, "--store", tmp_path / "elsewhere")
    assert digests(Path(again.out.strip())) == digests(Path(elsewhere.out.strip()))
    assert torn(store) == []
