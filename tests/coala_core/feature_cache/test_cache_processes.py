"""The feature cache among several processes: a writer that is killed, and writers of one shard at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coala_core.feature_cache import FeatureCache, ShardNote, Space
from coala_core.feature_table import feature_table
from coala_core.storage import Damaged, file_digest

pytestmark = pytest.mark.slow

SPACE = Space({"model_fingerprint": "f"})
KEY = SPACE.key
ROOT = Path(__file__).parents[3]


def write(cache: FeatureCache, start: int) -> ShardNote:
    """Write the shard that the other processes write."""
    rows = np.arange(start, start + 6, dtype=np.float32).reshape(3, 2)
    table = feature_table(list("pqr"), {"chosen_layer1_mean": rows, "rejected_layer1_mean": rows})
    return cache.write_shard(KEY, "shard-a", table, ["layer1_mean"], list("pqr"), {"pairs": 3})


WRITER = """
import os, sys, time
import numpy as np
from coala_core.feature_cache import FeatureCache, Space
from coala_core.feature_table import feature_table
cache = FeatureCache(sys.argv[1])
space = Space({"model_fingerprint": "f"})
def write(start):
    rows = np.arange(start, start + 6, dtype=np.float32).reshape(3, 2)
    table = feature_table(list("pqr"), {"chosen_layer1_mean": rows, "rejected_layer1_mean": rows})
    return cache.write_shard(space.key, "shard-a", table, ["layer1_mean"], list("pqr"), {"pairs": 3})
"""
STOPS_AT = """
sync, calls = os.fsync, []
def stop(number):
    calls.append(number)
    sync(number)
    if len(calls) == int(sys.argv[2]):
        print("here", flush=True)
        time.sleep(20)
os.fsync = stop
write(0)
"""
WRITES_ALWAYS = """
print("here", flush=True)
for turn in range(25):
    write(turn % 2 if sys.argv[2] == "other" else 0)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("written", [1, 2], ids=["in the Parquet file", "in the sidecar"])
def test_a_reader_sees_nothing_of_a_writer_that_was_killed(tmp_path: Path, written: int) -> None:
    cache = FeatureCache(tmp_path)
    cache.open_space(SPACE)
    with start(STOPS_AT, tmp_path, written) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        assert list(cache.notes(KEY)) == []
        process.kill()
    assert process.returncode == -signal.SIGKILL
    left = [path.name for path in (tmp_path / KEY).iterdir()]
    assert sum(name.endswith(".tmp") for name in left) == 1
    assert ("shard-a.parquet" in left) == (written == 2)
    assert list(cache.notes(KEY)) == []
    assert cache.find(KEY, ["layer1_mean"], ["p"]).places == {}
    assert [problem.name for problem in cache.verify()] == ["shard-a"][: written - 1]
    write(cache, 0)
    assert cache.verify() == []


@pytest.mark.parametrize("content", ["equal", "other"])
def test_writers_of_one_shard_at_the_same_time_leave_old_or_new(tmp_path: Path, content: str) -> None:
    cache = FeatureCache(tmp_path / "cache")
    whole = {write(cache, begin).sha256 for begin in (1, 0)}
    writers = [start(WRITES_ALWAYS, cache.url, content) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "here\n"
    handed_out = refused = 0
    while any(writer.poll() is None for writer in writers):
        for shard in cache.notes(KEY):
            assert isinstance(shard, ShardNote)  # both contents have the same size
            try:
                cache.fetch(KEY, shard, tmp_path / "shard")
                handed_out += 1
                assert file_digest(tmp_path / "shard") == shard.sha256 and shard.sha256 in whole
            except Damaged:
                refused += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert handed_out > 0
    assert not refused or content == "other"
    left = sorted(path.name for path in (tmp_path / "cache" / KEY).iterdir())
    assert left == ["shard-a.json", "shard-a.parquet"]
