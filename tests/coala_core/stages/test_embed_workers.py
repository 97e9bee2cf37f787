"""Whoever embeds the shards, and wherever the cache is, the shards are the same; and memory does not grow with them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.config import EmbedConfig
from coala_core.embed import shard_worker
from coala_core.feature_cache import FeatureCache
from coala_core.stages import embed
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Store, Workspace
from tests.embedding import features, same, settings, shards, tell
from tests.tiny_models import tiny_tokenizer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare this process, if not the workers, the measuring of its speed."""
    monkeypatch.setattr(shard_worker, "matmul_rate", lambda model: 1e9)


@pytest.fixture
def told(tmp_path: Path) -> Artifact:
    return tell(tmp_path, range(8))


@pytest.fixture
def config(tiny_models: dict[str, Path]) -> EmbedConfig:
    """Four shards of six pairs, each computed by one thread."""
    return settings(tiny_models["llama"], cpus_per_worker=1)


@pytest.fixture
def alone(tmp_path: Path, config: EmbedConfig, told: Artifact) -> Artifact:
    """What this process makes without help."""
    return embed.run(Store(tmp_path / "alone"), config, told)


def workers() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.name == "coala-worker"]


def test_a_cache_in_memory_serves_other_stores(
    tmp_path: Path, config: EmbedConfig, told: Artifact, alone: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = config.model_copy(update={"cache": f"memory://{tmp_path.name}/features"})
    made = embed.run(Store(tmp_path / "one"), remote, told)
    assert (made.sha256, shards(made)) == (alone.sha256, shards(alone))
    assert not (tmp_path / "one" / "features").exists()
    monkeypatch.setattr(shard_worker, "embed_pairs", None)  # any computing would fail
    assert embed.run(Store(tmp_path / "two"), remote, told).sha256 == made.sha256
    assert FeatureCache(str(remote.cache)).verify() == []
    assert FeatureCache(str(remote.cache)).remove().shards == 4
    assert same(features(alone), features(made))


@pytest.mark.slow
def test_two_processes_make_the_shards_of_one(
    tmp_path: Path, config: EmbedConfig, told: Artifact, alone: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "far away"
    more = {"workers": 2, "cache": f"file://{folder}", "model": Path(config.model).name}
    monkeypatch.chdir(Path(config.model).parent)  # the model by a path that is relative to this folder
    heard: list[tuple[int, int, str]] = []
    made = embed.run(Store(tmp_path / "two"), config.model_copy(update=more), told, lambda *call: heard.append(call))
    assert shards(made) == shards(alone)
    # One shard of six pairs after another, and nothing in between.
    assert heard == [(6 * done, 24, "pairs") for done in (1, 2, 3, 4)]
    assert not list(folder.rglob("*.pairs.parquet")) and FeatureCache(folder).verify() == []
    assert next(made.path.glob("shard-*")).stat().st_nlink == 2, "a file:// cache is linked to like a folder"
    assert made.timing["performance"]["computed_tokens"] == alone.report["shard_computed_tokens"]
    assert workers() == []


@pytest.mark.slow
def test_workers_that_are_killed_in_the_middle_lose_nothing(
    tmp_path: Path, config: EmbedConfig, told: Artifact, alone: Artifact
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int, what: str) -> None:
        if not killed:  # the first result is there, and both workers are at another shard
            for worker in workers():
                killed.append(worker.pid)
                worker.kill()

    made = embed.run(Store(tmp_path / "two"), config.model_copy(update={"workers": 2}), told, kill)
    assert len(killed) >= 1
    assert shards(made) == shards(alone)
    assert not list(tmp_path.glob("two/features/*/*.pairs.parquet"))


@pytest.mark.slow
def test_ray_makes_the_shards_of_one_process(
    tmp_path: Path, config: EmbedConfig, told: Artifact, alone: Artifact
) -> None:
    pytest.importorskip("ray")
    on_ray = config.model_copy(update={"executor": "ray", "workers": 2})
    made = embed.run(Store(tmp_path / "ray"), on_ray, told)
    assert shards(made) == shards(alone)
    assert not list(tmp_path.glob("ray/features/*/*.pairs.parquet"))


def write_pairs(store: Store, rows: int) -> Artifact:
    """A triplets artifact of short pairs, in row groups as the stage writes them."""

    def message(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    def compute(workspace: Workspace) -> None:
        table = pa.Table.from_pylist(
            [
                {
                    "pair_id": f"p{i}",
                    "prompt": message("user", f"{i}?"),
                    "chosen": message("assistant", "Yes."),
                    "rejected": message("assistant", "No."),
                }
                for i in range(rows)
            ]
        )
        workspace.write("triplets.parquet", lambda path: pq.write_table(table, path, row_group_size=2048))
        workspace.report = {"texts_sha256": f"short pairs, {rows}"}

    return produce(store, Plan("triplets", 0, {}, {}, {"rows": rows}), compute)


PEAK = """
import sys
from pathlib import Path
from coala_core.config import EmbedConfig
from coala_core.stages import embed
from coala_core.storage import Store, open_artifact
config = EmbedConfig.model_validate_json(sys.argv[1])
embed.run(Store(sys.argv[2]), config, open_artifact(sys.argv[3]))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def save_wide_model(folder: Path) -> Path:
    """Two blocks of width 256, so that features weigh more than texts and keys."""
    from transformers import LlamaConfig, LlamaModel

    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 256, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaModel(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_holds_ids_and_keys_and_one_shard(tmp_path: Path) -> None:
    wide = {"layers": (1, 2), "poolings": ("mean", "last"), "shard_rows": 256}
    config = settings(save_wide_model(tmp_path / "model"), **wide).model_dump_json()
    steady = os.environ | {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    peaks = {}
    for rows in (2_500, 10_000):  # both more than a row group, which is held whole
        told = write_pairs(Store(tmp_path / "told"), rows)
        command = [sys.executable, "-c", PEAK, config, str(tmp_path / f"store-{rows}"), str(told.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=steady)
        peaks[rows] = int(done.stdout)
    # Features take 2 layers x 2 poolings x 2 sides x 256 numbers x 4 bytes = 8192 bytes a pair. What may be held of
    # each pair (its id, its keys in the file, the sidecars and the results, its opening's digest, and its place)
    # takes about a thousand; as much again is left to the allocator.
    assert (peaks[10_000] - peaks[2_500]) / 7_500 < 2500
