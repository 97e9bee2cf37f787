"""Plan and produce: reuse what is intact, make what is not, and make it once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from coala_core.stages.base import Plan, by_content, produce
from coala_core.storage import Artifact, Store, Workspace

FORK = multiprocessing.get_context("fork")


def plan(**identity: Any) -> Plan:
    return Plan("solve", 1, {"gates": 5}, {}, {"gates": 5, **identity})


class Work:
    """A computation in two files that counts how often it ran and reuses its first file."""

    def __init__(self, fail: bool = False) -> None:
        self.calls = 0
        self.first_file_written = 0
        self.fail = fail

    def __call__(self, workspace: Workspace) -> None:
        self.calls += 1
        if not (workspace.path / "first.json").exists():
            self.first_file_written += 1
            workspace.write_json("first.json", [1])
        if self.fail:
            raise RuntimeError("out of memory")
        workspace.write_json("second.json", [2])
        workspace.report = {"files": 2}


def test_the_second_call_reuses(tmp_path: Path) -> None:
    work, store = Work(), Store(tmp_path)
    first = produce(store, plan(), work)
    second = produce(store, plan(), work)
    assert work.calls == 1
    assert first == second
    assert first.report == {"files": 2}
    assert first.seconds >= 0
    assert first.key == plan().key


def test_another_identity_is_computed_and_the_config_alone_is_not_part_of_the_key(tmp_path: Path) -> None:
    work, store = Work(), Store(tmp_path)
    first = produce(store, plan(), work)
    assert produce(store, plan(seed=1), work).key != first.key
    assert work.calls == 2
    renamed = Plan("solve", 1, {"gates": 5, "device": "cuda"}, {}, {"gates": 5})
    assert produce(store, renamed, work) == first
    assert Plan("solve", 2, {"gates": 5}, {}, {"gates": 5}).key != first.key


def test_a_failed_computation_leaves_no_artifact_and_the_next_one_continues(tmp_path: Path) -> None:
    store, failing, work = Store(tmp_path), Work(fail=True), Work()
    with pytest.raises(RuntimeError, match="out of memory"):
        produce(store, plan(), failing)
    assert store.find("solve", plan().key) is None
    made = produce(store, plan(), work)
    assert (work.calls, work.first_file_written) == (1, 0)
    assert made.sha256 == produce(Store(tmp_path / "other"), plan(), Work()).sha256


def test_damage_is_logged_and_repaired_from_what_is_intact(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    made = produce(store, plan(), Work())
    (made.path / "second.json").write_text("[3]\n")
    work = Work()
    with caplog.at_level(logging.WARNING, logger="coala.stages"):
        again = produce(store, plan(), work)
    assert "second.json" in caplog.text
    assert again.sha256 == made.sha256
    assert (work.calls, work.first_file_written) == (1, 0)
    assert json.loads((again.path / "second.json").read_text()) == [2]


def test_a_broken_manifest_is_repaired(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = produce(store, plan(), Work())
    (made.path / "manifest.json").write_text("{")
    assert produce(store, plan(), Work()).sha256 == made.sha256


def test_inputs_appear_in_the_manifest_and_in_the_identity(tmp_path: Path) -> None:
    store = Store(tmp_path)
    source = produce(store, plan(), Work())
    derived = Plan("finetune", 1, {}, {"solve": source}, by_content({"solve": source}))
    made = produce(store, derived, Work())
    expected = {"stage": "solve", "key": source.key, "sha256": source.sha256}
    assert made.manifest["inputs"] == {"solve": expected}
    assert by_content({"solve": source}) == {"solve": expected}
    changed: Artifact = source.model_copy(update={"sha256": "0" * 64})
    assert Plan("finetune", 1, {}, {"solve": changed}, by_content({"solve": changed})).key != derived.key


def _produce_slowly(root: Path, log: Path, start: Any) -> None:
    def compute(workspace: Workspace) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)  # long enough that the other process arrives meanwhile
        workspace.write_json("first.json", [1])

    start.wait()
    produce(Store(root), plan(), compute)
    os._exit(0)  # a fork must not wait for threads of the session that it left behind


def test_of_two_processes_one_computes_and_both_have_the_artifact(tmp_path: Path) -> None:
    log = tmp_path / "computed.txt"
    start = FORK.Event()
    processes = [FORK.Process(target=_produce_slowly, args=(tmp_path / "store", log, start)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == 1
    assert Store(tmp_path / "store").is_intact("solve", plan().key)


def _die_while_computing(root: Path) -> None:
    def compute(workspace: Workspace) -> None:
        workspace.write_json("first.json", [1])
        os.kill(os.getpid(), signal.SIGKILL)

    produce(Store(root), plan(), compute)


def test_a_killed_process_leaves_neither_artifact_nor_lock(tmp_path: Path) -> None:
    process = FORK.Process(target=_die_while_computing, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    store, work = Store(tmp_path), Work()
    assert store.find("solve", plan().key) is None
    made = produce(store, plan(), work)
    assert (work.calls, work.first_file_written) == (1, 0)
    assert made.sha256 == produce(Store(tmp_path / "other"), plan(), Work()).sha256
