"""A process killed at any rename of any stage leaves no artifact, and the next call makes the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from coala_core.embed import shard_worker
from coala_core.stages import embed, evaluate, finetune, quality, solve, split, triplets
from coala_core.storage import Artifact, Store, file_digest
from tests.coala_core.stages.conftest import Chain
from tests.lessons import digests

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")
STAGES = ["triplets", "split", "quality", "embed", "solve", "finetune", "evaluate"]
FIRST_FILES = {
    "triplets": "triplets.parquet",
    "split": "split.parquet",
    "quality": "quality.json",
    "embed": "rows.parquet",
    "solve": "head.safetensors",
    "finetune": "head.safetensors",
    "evaluate": "evaluation.json",
}


def make(stage: str, chain: Chain, store: Store) -> Artifact:
    """Run one stage of the chain in another store, which holds the stages before it."""
    config = chain.config
    calls: dict[str, Callable[[], Artifact]] = {
        "triplets": lambda: triplets.run(store, config.triplets),
        "split": lambda: split.run(store, config.split, chain.triplets),
        "quality": lambda: quality.run(store, config.quality, chain.triplets, chain.split),
        "embed": lambda: embed.run(store, config.embed, chain.triplets),
        "solve": lambda: solve.run(store, config.solve, chain.embed, chain.split),
        "finetune": lambda: finetune.run(store, config.finetune, chain.solve),
        "evaluate": lambda: evaluate.run(store, config.evaluate, chain.finetune),
    }
    return calls[stage]()


def run_until_killed(stage: str, chain: Chain, store: Store, name: str, time: int = 1) -> None:
    """Die right after the rename that makes `name`, in which * stands for anything, appear for the n-th time."""
    torch.set_num_threads(1)
    replace, left = os.replace, time

    def die(source: Path, target: Path) -> None:
        nonlocal left
        replace(source, target)
        left -= fnmatch(Path(target).name, name)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = die  # type: ignore[assignment]
    make(stage, chain, store)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("point", ["first file", "timing.json", "manifest.json"])
def test_killed_and_run_again_is_as_never_killed(chain: Chain, tmp_path: Path, stage: str, point: str) -> None:
    before = STAGES[: STAGES.index(stage)]
    for name in before:
        shutil.copytree(chain.store.root / name, tmp_path / name)
    store, undisturbed = Store(tmp_path), getattr(chain, stage)
    file = FIRST_FILES[stage] if point == "first file" else point
    process = FORK.Process(target=run_until_killed, args=(stage, chain, store, file))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    # The folder has its final name only when everything in it is finished.
    assert [path.name for path in (tmp_path / stage).iterdir()] == [f"{undisturbed.key}.partial"]
    assert store.find(stage, undisturbed.key) is None
    again = make(stage, chain, store)
    assert digests(again.path) == digests(undisturbed.path)
    assert again.sha256 == undisturbed.sha256
    assert [path.name for path in (tmp_path / stage).iterdir()] == [undisturbed.key]


@pytest.mark.parametrize(
    ("name", "time", "left"),
    [
        ("shard-*.pairs.parquet", 2, 4),  # the second job is written, not begun
        ("shard-????????????????????????.parquet", 2, 4),  # features of the second shard, without its sidecar
        ("shard-*.json", 3, 2),  # the third shard is whole, its job's pairs are still there
        ("shard-*.json", 5, 0),  # all shards are whole, the artifact has none of them yet
    ],
)
def test_an_embedding_that_is_killed_goes_on_where_it_was(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, time: int, left: int
) -> None:
    """The chain's 72 pairs make five shards: four of five lessons, one of the other four."""
    shutil.copytree(chain.store.root / "triplets", tmp_path / "triplets")
    store = Store(tmp_path)
    process = FORK.Process(target=run_until_killed, args=("embed", chain, store, name, time))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    made = []
    embed_pairs = shard_worker.embed_pairs
    monkeypatch.setattr(shard_worker, "embed_pairs", lambda *given: (made.append(given), embed_pairs(*given))[1])
    again = make("embed", chain, store)
    assert len(made) == left
    assert digests(again.path) == digests(chain.embed.path)
    assert cached(tmp_path) == cached(chain.store.root), "the same shards and sidecars, and no pairs of a job"


def cached(store: Path) -> dict[str, str]:
    """SHA-256 of every file in a store's feature cache."""
    folder = store / "features"
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}
