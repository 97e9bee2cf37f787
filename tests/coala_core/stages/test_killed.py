"""A process killed at any rename of any stage leaves no artifact, and the next call makes the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coala_core.stages import embed, evaluate, finetune, solve, split, triplets
from coala_core.storage import Artifact, Store
from tests.coala_core.stages.conftest import Chain
from tests.lessons import digests

FORK = multiprocessing.get_context("fork")
STAGES = ["triplets", "split", "embed", "solve", "finetune", "evaluate"]
FIRST_FILES = {
    "triplets": "triplets.parquet",
    "split": "split.parquet",
    "embed": "shard-00000.parquet",
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
        "embed": lambda: embed.run(store, config.embed, chain.triplets),
        "solve": lambda: solve.run(store, config.solve, chain.embed, chain.split),
        "finetune": lambda: finetune.run(store, config.finetune, chain.solve),
        "evaluate": lambda: evaluate.run(store, config.evaluate, chain.finetune),
    }
    return calls[stage]()


def run_until_killed(stage: str, chain: Chain, store: Store, name: str) -> None:
    """Die right after the rename that makes `name` appear."""
    torch.set_num_threads(1)
    replace = os.replace

    def die(source: Path, target: Path) -> None:
        replace(source, target)
        if Path(target).name == name:
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
