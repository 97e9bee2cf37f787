"""`kill -9` of real processes in the middle of real work, and the same command again: the same bytes.

Nothing in the product is slowed down or hooked: stages take long here because their settings ask for much work.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coala_core.storage import open_artifact
from tests.flows.conftest import clean_environment, kill_group, run_coala, start_coala
from tests.lessons import digests, write_lessons

pytestmark = pytest.mark.slow

STAGES = ["triplets", "split", "quality", "embed", "solve", "finetune", "evaluate"]
SETTINGS = {
    "triplets": [],
    "split": ["split.train=0.6", "split.validation=0.2"],
    "quality": [],
    "embed": ["embed.shard_rows=2", "embed.layers=[4]", "embed.batch_tokens=128"],
    "solve": ["solve.gates=40", "solve.tolerance=1e-7", "solve.max_sweeps=200", "solve.check_every=100"],
    "finetune": ["finetune.epochs=300", "finetune.batch_size=4"],
    "evaluate": ["evaluate.resamples=20000"],
}
ATTEMPTS = 5

# All stages in one process, because a process's imports take longer than the stages.
UNDISTURBED = """
import contextlib, io, json, sys
from flows.cli import main

store, settings, few, many, model = json.load(sys.stdin)

def stage(name, *arguments):
    out = io.StringIO()
    chosen = [word for setting in settings[name] for word in ("--set", setting)]
    with contextlib.redirect_stdout(out):
        assert main([name, *arguments, *chosen, "--store", store]) == 0
    return out.getvalue().rstrip("\\n")

found = {"triplets": stage("triplets", "--conversations", many)}
found["split"] = stage("split", found["triplets"])
found["quality"] = stage("quality", found["triplets"], found["split"])
small = stage("triplets", "--conversations", few)
small_split = stage("split", small)
found["embed"] = stage("embed", small, "--model", model)
found["solve"] = stage("solve", found["embed"], small_split)
found["finetune"] = stage("finetune", found["solve"])
found["evaluate"] = stage("evaluate", found["finetune"])
print(json.dumps({"folders": found, "few triplets": small, "few split": small_split}))
"""


class Undisturbed(NamedTuple):
    """What never interrupted stages left in their store; triplets and split are of many conversations."""

    store: Path
    few: Path
    many: Path
    folders: dict[str, Path]
    few_triplets: Path
    few_split: Path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed")
    few, many = write_lessons(root / "few.jsonl", 40), write_lessons(root / "many.jsonl", 8000)
    given = json.dumps([str(root / "store"), SETTINGS, str(few), str(many), str(model)])
    done = subprocess.run(
        [sys.executable, "-c", UNDISTURBED], input=given, env=clean_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    folders = {stage: Path(folder) for stage, folder in found["folders"].items()}
    return Undisturbed(root / "store", few, many, folders, Path(found["few triplets"]), Path(found["few split"]))


def command(stage: str, store: Path, undisturbed: Undisturbed, model: Path) -> list[object]:
    """The stage's command line in another store, on that store's copies of its inputs."""

    def copied(folder: Path) -> Path:
        return store / folder.relative_to(undisturbed.store)

    folders = undisturbed.folders
    arguments: dict[str, list[object]] = {
        "triplets": ["--conversations", undisturbed.many],
        "split": [copied(folders["triplets"])],
        "quality": [copied(folders["triplets"]), copied(folders["split"])],
        "embed": [copied(undisturbed.few_triplets), "--model", model],
        "solve": [copied(folders["embed"]), copied(undisturbed.few_split)],
        "finetune": [copied(folders["solve"])],
        "evaluate": [copied(folders["finetune"])],
    }
    settings = [word for setting in SETTINGS[stage] for word in ("--set", setting)]
    return [stage, *arguments[stage], *settings, "--store", store]


def at_work(store: Path, stage: str, shards: int = 0) -> bool:
    """Whether the stage has begun: its folder is there, or so many shards of it are finished."""
    if stage == "embed":
        return len(list(store.glob("features/*/shard-*.json"))) > shards
    return any(store.glob(f"{stage}/*.partial"))


def kill_at_work(arguments: list[object], working: Callable[[], bool], pause: float, **environment: str) -> int:
    """Start a process, wait until it works, wait a little longer, kill it with SIGKILL, and give its status."""
    process = start_coala(arguments, **environment)
    try:
        deadline = time.monotonic() + 120
        while not working() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(pause)
        process.kill()
        process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode


def sealed(store: Path, stage: str) -> list[Path]:
    """Folders of finished artifacts."""
    return [path.parent for path in store.glob(f"{stage}/*/manifest.json") if path.parent.suffix != ".partial"]


@pytest.mark.parametrize(
    ("stage", "pause"),
    [("triplets", 0.0), ("split", 0.05), ("quality", 0.1), ("solve", 0.1), ("finetune", 0.1), ("evaluate", 0.0)],
)
def test_a_killed_stage_run_again_gives_the_undisturbed_bytes(
    undisturbed: Undisturbed, model: Path, tmp_path: Path, stage: str, pause: float
) -> None:
    for attempt in range(ATTEMPTS):
        store = tmp_path / f"store-{attempt}"
        for before in STAGES[: STAGES.index(stage)]:
            shutil.copytree(undisturbed.store / before, store / before)
        arguments = command(stage, store, undisturbed, model)
        status = kill_at_work(arguments, lambda store=store: at_work(store, stage), pause / 2**attempt)
        if status == -signal.SIGKILL and not sealed(store, stage):
            break
    else:
        pytest.fail(f"{stage} was finished before it could be killed, {ATTEMPTS} times")
    assert any(store.glob(f"{stage}/*.partial"))
    again = run_coala(*arguments)
    assert again.status == 0, again.err
    folder, expected = Path(again.out.removesuffix("\n")), undisturbed.folders[stage]
    assert folder == store / expected.relative_to(undisturbed.store)
    assert digests(folder) == digests(expected)
    assert [path.name for path in (store / stage).iterdir()] == [expected.name]


def test_killed_embedding_keeps_its_shards_and_gives_the_undisturbed_bytes(
    undisturbed: Undisturbed, model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed.store / "triplets", store / "triplets")
    arguments = command("embed", store, undisturbed, model)
    stamps: dict[str, int] = {}
    for _ in range(2):
        reached = len(stamps)
        assert kill_at_work(arguments, lambda n=reached: at_work(store, "embed", n), 0.0) == -signal.SIGKILL
        assert sealed(store, "embed") == []
        finished = {
            path.with_suffix(".parquet").name: path.with_suffix(".parquet").stat().st_mtime_ns
            for path in store.glob("features/*/shard-*.json")
        }
        assert stamps.items() < finished.items(), "what is finished stays as it is, and more comes"
        stamps = finished
    again = run_coala(*arguments)
    assert again.status == 0, again.err
    folder = Path(again.out.strip())
    assert digests(folder) == digests(undisturbed.folders["embed"])
    assert {name: (folder / name).stat().st_mtime_ns for name in stamps} == stamps
    # Each of 40 lessons opens in its own way and has three pairs, which take two shards of two.
    assert len(stamps) < len(list(folder.glob("shard-*.parquet"))) == 80


def test_a_killed_whole_run_goes_on_and_gives_the_undisturbed_bytes(
    undisturbed: Undisturbed, model: Path, make_store: Callable[[str], Path], tmp_path: Path
) -> None:
    store, home = make_store("store"), str(tmp_path / "prefect")
    chosen = [word for settings in SETTINGS.values() for setting in settings for word in ("--set", setting)]
    arguments = ["run", "--store", store, "--conversations", undisturbed.few, "--model", model, *chosen]
    # Only `coala` dies, as `kill -9` would have it; the temporary Prefect server that it started lives on for a while.
    process = start_coala(arguments, PREFECT_HOME=home)
    try:
        deadline = time.monotonic() + 180
        while not at_work(store, "embed", 3) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.wait(60)
        assert process.returncode == -signal.SIGKILL
        assert (sealed(store, "embed"), len(sealed(store, "split"))) == ([], 1)
        again = run_coala(*arguments, PREFECT_HOME=home)
    finally:
        kill_group(process)
    assert again.status == 0, again.err
    for stage in ("embed", "solve", "finetune", "evaluate"):
        (folder,) = sealed(store, stage)
        assert digests(folder) == digests(undisturbed.folders[stage]), stage
        assert open_artifact(folder).key == undisturbed.folders[stage].name
    assert digests(sealed(store, "triplets")[0]) == digests(undisturbed.few_triplets)
    assert re.findall(r"seconds, (\w+)\W+reused", again.out) == ["triplets", "split", "quality"]
    outcome = run_coala("replay", "--store", store)
    assert (outcome.status, outcome.out.strip()) == (0, "1 runs delivered, 0 still waiting.")
    uri = f"sqlite:///{store / 'mlflow' / 'mlflow.db'}"
    assert sorted(status_of_parents(uri)) == ["FINISHED", "KILLED"]


def status_of_parents(uri: str) -> list[str]:
    """How the parent runs ended."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return [run.info.status for run in runs if "mlflow.parentRunId" not in run.data.tags]
