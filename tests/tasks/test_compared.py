"""Heads side by side, with numbers that are counted here."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.lineage import Lineage
from coala_core.storage import Artifact, Store
from tasks.compared import compare_evaluations, comparison_table, newest_evaluations

PAIRS = 40
CONFIG = {"confidence": 0.95, "resamples": 500, "seed": 0}


def evaluation(store: Store, name: str, right: int) -> Artifact:
    """An evaluation that puts the first pairs right and the others wrong; every pair is a group."""
    workspace = store.workspace("evaluate", name)
    signs = np.where(np.arange(PAIRS) < right, 1.0, -1.0)
    names = [f"p{number:02d}" for number in range(PAIRS)]
    table = pa.table({"pair_id": names, "group": names, "chosen_score": signs, "rejected_score": np.zeros(PAIRS)})
    workspace.write("scores.parquet", lambda path: pq.write_table(table, path))
    return store.seal(workspace, "evaluate", name, CONFIG, {}, 0.0)


@pytest.fixture
def same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests by the first letter of the key, in place of a whole lineage."""

    class OfKey:
        def __init__(self, evaluate: Artifact) -> None:
            self.evaluate = evaluate

        def test_digest(self) -> str:
            return self.evaluate.key[0]

    monkeypatch.setattr(Lineage, "of", classmethod(lambda _cls, _store, evaluate: OfKey(evaluate)))


@pytest.mark.usefixtures("same_pairs")
def test_leads_are_counted_pair_by_pair_against_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    heads = compare_evaluations(store, [evaluation(store, f"a{right}", right) for right in (20, 36, 10)])
    assert [head.accuracy for head in heads] == [0.5, 0.9, 0.25]
    assert [(head.lead, head.won, head.lost) for head in heads] == [(None, 0, 0), (0.4, 16, 0), (-0.25, 0, 10)]
    _, better, worse = heads
    # 16 of 40 groups are won and none is lost: resamples of so many are far from 0, and on the other side for 10.
    assert better.low is not None and better.low > 0.2
    assert worse.high is not None and worse.high < -0.1
    rows = comparison_table(heads)
    assert [row["lead"] for row in rows] == ["", "+0.400", "-0.250"]
    assert rows[0]["interval"] == "the others are compared with this one"


@pytest.mark.usefixtures("same_pairs")
def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, other = evaluation(store, "a", 20), evaluation(store, "b", 20)
    with pytest.raises(ValueError, match="needs two evaluations of the same test pairs or more, got 1"):
        compare_evaluations(store, [one])
    with pytest.raises(ValueError, match="needs evaluations of the same test pairs, got others in"):
        compare_evaluations(store, [one, other])


def dated(store: Store, name: str, finished_at: float) -> Artifact:
    """An evaluation that ended at a time."""
    made = evaluation(store, name, 20)
    path = made.path / "timing.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished_at": finished_at}))
    return made


@pytest.mark.usefixtures("same_pairs")
def test_the_newest_of_the_same_pairs_are_found_the_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, day in (("a3", 3.0), ("b2", 2.0), ("a1", 1.0), ("a4", 4.0)):
        dated(store, name, day)
    assert [each.key for each in newest_evaluations(store, 5)] == ["a1", "a3", "a4"]
    assert [each.key for each in newest_evaluations(store, 2)] == ["a3", "a4"]
    assert newest_evaluations(Store(tmp_path / "empty"), 5) == []


def test_an_evaluation_whose_inputs_are_gone_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    tuned = store.seal(store.workspace("finetune", "gone"), "finetune", "gone", {}, {}, 0.0)
    orphan = store.seal(store.workspace("evaluate", "orphan"), "evaluate", "orphan", CONFIG, {"finetune": tuned}, 0.0)
    shutil.rmtree(tuned.path)
    with caplog.at_level(logging.WARNING, "coala.compare"):
        assert newest_evaluations(store, 5) == []
    assert f"{orphan.path} is passed over: " in caplog.text


@pytest.mark.usefixtures("same_pairs")
def test_a_damaged_evaluation_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    whole, damaged = dated(store, "a1", 1.0), dated(store, "a2", 2.0)
    (damaged.path / "scores.parquet").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING, "coala.compare"):
        assert newest_evaluations(store, 5) == [whole]
    assert f"{damaged.path} is passed over: " in caplog.text
