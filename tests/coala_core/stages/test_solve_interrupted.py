"""Ctrl-C or SIGTERM in the middle of Phase I: no artifact, but the best head so far."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from coala_core.config import SolveConfig
from coala_core.features import read_pairs
from coala_core.heads import read_head
from coala_core.metrics import pair_accuracy
from coala_core.stages import solve
from coala_core.storage import Store
from tests.coala_core.stages.conftest import Chain
from tests.lessons import digests

FORK = multiprocessing.get_context("fork")


pytestmark = pytest.mark.usefixtures("hears_ctrl_c")


@pytest.fixture
def store(chain: Chain, tmp_path: Path) -> Store:
    """What the stage reads, and nothing of it yet."""
    shutil.copytree(chain.store.root / "triplets", tmp_path / "triplets")
    return Store(tmp_path)


def run_until_signal(chain: Chain, store: Store, number: int) -> None:
    """Send this process a signal when the second of the two weights begins."""

    def send(done: int, _total: int, _what: str) -> None:
        if done == 1:
            os.kill(os.getpid(), number)

    solve.run(store, chain.config.solve, chain.embed, chain.split, send)


def check_what_is_left(chain: Chain, store: Store) -> None:
    """A head that belongs to its card, and nothing that could be taken for an artifact."""
    key = solve.plan(store, chain.config.solve, chain.embed, chain.split).key
    (folder,) = (store.root / "solve").iterdir()
    assert folder.name == f"{key}.partial"
    assert store.find("solve", key) is None
    card = json.loads((folder / "head.json").read_text())["solve"]
    rows = json.loads((folder / "path.json").read_text())
    assert [row["status"] for row in rows] == ["CONVERGED", "INTERRUPTED"]
    assert [row["sweeps"] for row in rows][1] == 1
    pairs = read_pairs(chain.embed.path, chain.split.path, chain.triplets.path, 2, "mean")["train"]
    head = read_head(folder)
    assert pair_accuracy(head.score(pairs.chosen), head.score(pairs.rejected)).accuracy == card["train_accuracy"]


def test_ctrl_c_leaves_the_best_head_and_no_artifact(
    chain: Chain, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_until_signal(chain, store, signal.SIGINT)
    check_what_is_left(chain, store)
    (folder,) = (store.root / "solve").iterdir()
    assert f"interrupted; the best head so far is `{folder / 'head.safetensors'}`" in caplog.text
    again = solve.run(store, chain.config.solve, chain.embed, chain.split)
    assert digests(again.path) == digests(chain.solve.path)
    assert [path.name for path in (store.root / "solve").iterdir()] == [again.key]


def test_sigterm_leaves_the_best_head_and_ends_the_process(chain: Chain, store: Store) -> None:
    process = FORK.Process(target=run_until_signal, args=(chain, store, signal.SIGTERM))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
    check_what_is_left(chain, store)


def test_a_time_limit_is_an_outcome_and_is_stored(chain: Chain, store: Store) -> None:
    config = SolveConfig.model_validate(chain.config.solve.model_dump() | {"max_seconds": 1e-6})
    stored = solve.run(store, config, chain.embed, chain.split)
    assert stored.report["status"] == "OUT_OF_TIME"
    assert stored.report["sweeps"] == 1
    assert len(stored.report["unsolved"]) == 1
    assert stored.key != chain.solve.key
