"""Ctrl-C and SIGTERM of a real `coala solve` in the middle of its sweeps."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from coala_core.heads import read_head
from tests.flows.conftest import run_coala, start_coala
from tests.lessons import write_lessons

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hears_ctrl_c")]

NEVER_DONE = ["solve.gates=20", "solve.lasso_weight=1", "solve.tolerance=1e-15", "solve.max_sweeps=100000000"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, model: Path) -> list[str]:
    """Folders of embeddings and split, and their store."""
    root = tmp_path_factory.mktemp("inputs")
    store = ["--store", str(root / "store")]

    def stage(*arguments: object) -> str:
        done = run_coala(*arguments, *store)
        assert done.status == 0, done.err
        return done.out.strip()

    triplets = stage("triplets", "--conversations", write_lessons(root / "lessons.jsonl", 60))
    return [stage("embed", triplets, "--model", model), stage("split", triplets), *store]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_the_best_head_so_far_is_left_and_named(inputs: list[str], number: signal.Signals, status: int) -> None:
    embed, split, _, store = inputs
    shutil.rmtree(Path(store) / "solve", ignore_errors=True)
    settings = [word for setting in NEVER_DONE for word in ("--set", setting)]
    with start_coala(["solve", embed, split, *settings, "--store", store]) as process:
        deadline = time.monotonic() + 120
        while not list(Path(store).glob("solve/*.partial")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(2.0)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    (folder,) = Path(store).glob("solve/*.partial")
    assert f"solve: interrupted; the best head so far is `{folder}/head.safetensors`" in "".join(err.split("\n"))
    card = json.loads((folder / "head.json").read_text())["solve"]
    assert (card["status"], card["neurons"]) == ("INTERRUPTED", len(read_head(folder).second_weight))
    assert card["sweeps"] > 1
    assert card["lower_bound"] <= card["upper_bound"] * (1 + 1e-3)
