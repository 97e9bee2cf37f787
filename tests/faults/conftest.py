"""What the tests of faults share: one server, one set of settings, and the digests of a run that nothing disturbed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.world import World, world
from tests.flows.conftest import run_coala
from tests.lessons import digests, write_lessons

SLOW: dict[str, dict[str, Any]] = {
    "split": {"train": 0.6, "validation": 0.2},
    "embed": {"shard_rows": 2, "layers": [4], "batch_tokens": 128, "device": "cpu"},
    "solve": {"gates": 40, "tolerance": 1e-7, "max_sweeps": 200, "check_every": 100, "backend": "numpy"},
    "finetune": {"epochs": 300, "batch_size": 4},
    "evaluate": {"resamples": 20_000},
}
"""Settings that ask for so much work that every stage can be hit."""
IDLE_LESSONS = 6000
"""Lessons of one reply: they make no triplets, and reading them takes a while."""


class Undisturbed(NamedTuple):
    """What an undisturbed run left: files' digests by stage, in the order in which the stages were run."""

    conversations: Path
    digests: dict[str, dict[str, str]]


@pytest.fixture(scope="session")
def model(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 lessons with 180 pairs, and many without any."""
    folder = tmp_path_factory.mktemp("faults")
    lessons = write_lessons(folder / "few.jsonl", 60).read_text()
    idle = write_lessons(folder / "idle.jsonl", IDLE_LESSONS, replies=1).read_text()
    rows = [json.loads(line) | {"id": f"idle-{number}"} for number, line in enumerate(idle.splitlines())]
    path = folder / "lessons.jsonl"
    path.write_text(lessons + "".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def slow_config(store: Path, conversations: Path, model: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """`SLOW` with further settings by section, as the UI's form would send it."""
    merged = {name: SLOW.get(name, {}) | sections.get(name, {}) for name in {**SLOW, **sections}}
    content = {"store": str(store), "triplets": {"conversations": str(conversations)}, **merged}
    content["embed"]["model"] = str(model)
    return content


def settings(config: dict[str, Any]) -> list[str]:
    """The same for a command line."""
    words = ["--store", config["store"]]
    for section, values in config.items():
        if isinstance(values, dict):
            words += [w for name, value in values.items() for w in ("--set", f"{section}.{name}={json.dumps(value)}")]
    return words


def stages_of(store: Path) -> dict[str, Path]:
    """Folder of the finished artifact of each stage, in the order in which they were finished."""
    folders = [path.parent for path in store.glob("*/*/manifest.json") if path.parent.suffix != ".partial"]
    folders.sort(key=lambda folder: json.loads((folder / "timing.json").read_text())["finished_at"])
    assert len({folder.parent.name for folder in folders}) == len(folders), folders
    return {folder.parent.name: folder for folder in folders}


def digests_of(store: Path) -> dict[str, dict[str, str]]:
    return {stage: digests(folder) for stage, folder in stages_of(store).items()}


def torn(store: Path) -> list[str]:
    """What an interruption must not leave behind once a run has ended well."""
    loose = [*store.glob("*/*.partial"), *store.glob("**/.*.tmp"), *store.glob("features/*/*.pairs*")]
    return [str(path.relative_to(store)) for path in loose]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, conversations: Path, model: Path) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    config = slow_config(folder / "store", conversations, model)
    done = run_coala("run", *settings(config), PREFECT_HOME=str(folder / "prefect"))
    assert done.status == 0, done.err
    return Undisturbed(conversations, digests_of(folder / "store"))


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    leases = "prefect.server.concurrency.lease_storage.filesystem"
    with world(tmp_path_factory.mktemp("world"), PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=leases) as server:
        yield server


@pytest.fixture
def prefect(shared_world: World) -> Iterator[World]:
    """The shared server, with nothing left to do afterwards."""
    yield shared_world
    shared_world.tidy()
