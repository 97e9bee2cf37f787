"""The whole report of a table that is counted by eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from coala_core.config import QualityConfig, SplitConfig
from coala_core.quality import Quality, assess
from coala_core.splits import split_table
from coala_core.triplets import TRIPLET_SCHEMA
from tests.hand_pairs import Pair, table, write_pairs

REPORT: dict[str, Any] = {
    "rows_in": 4, "rows_used": 3, "rows_rejected": 1, "pairs_rejected": 0, "layouts": {"messages": 3},
    "rejected_by_reason": {"empty": 1}, "replies_mean": 3.0,
}  # fmt: skip
REJECT = {"source": "f.jsonl", "row": 2, "fault": "empty", "reason": "no turns", "excerpt": "", "pair_only": False}
LESSON = ["The sum of the angles is 180 degrees.", "Draw the triangle first, then measure.", "It holds in every plane."]
PAIRS = [
    *(Pair("a", turn, ["How?"], LESSON[turn - 1], LESSON[turn], group="geometry") for turn in (1, 2)),
    *(Pair("b", turn, ["How?"], LESSON[turn - 1], LESSON[turn], group="geometry") for turn in (1, 2)),
    Pair("c", 1, ["Who?"], "Nobody knows who it was, really.", "<s> me", group="history"),
]


def files(tmp_path: Path, pairs: list[Pair], rejects: list[dict[str, Any]]) -> tuple[Path, Path]:
    path = tmp_path / "rejects.jsonl"
    path.write_text("".join(json.dumps(reject) + "\n" for reject in rejects))
    return write_pairs(tmp_path / "triplets.parquet", pairs), path


def measure(tmp_path: Path, pairs: list[Pair] = PAIRS, report: dict[str, Any] = REPORT, **more: Any) -> Quality:
    triplets, rejects = files(tmp_path, pairs, [REJECT])
    return assess(triplets, rejects, report, QualityConfig(), **more)


def test_sections_and_their_numbers(tmp_path: Path) -> None:
    report = measure(tmp_path).report
    assert report["rows"]["rejected_share"] == 0.25
    assert (report["size"]["pairs"], report["size"]["conversations"], report["size"]["groups"]) == (5, 3, 2)
    assert report["groups"] == [
        {"group": "geometry", "pairs": 4, "share": 0.8},
        {"group": "history", "pairs": 1, "share": 0.2},
    ]
    assert report["dialogues"]["last_turn"]["max"] == 2
    # Lessons of 37, 38 and 24 characters: shorter, longer, twice; then 32 against 6.
    assert report["length_bias"]["longer_wins"] == 0.6
    assert report["position"]["population"] == "alternating"
    assert [row["chosen_share"] for row in report["position"]["replies"]] == pytest.approx([1, 0.4, 0])
    # Conversations a and b have three replies each in common, c has two of its own.
    near = report["near_duplicates"]
    assert (near["responses"], near["near_duplicates"], near["sampled_pairs"]) == (8, 6, 5)
    assert report["markers"]["share"] == 0.2
    assert report["leaks"] is None
    assert report["languages"]["texts"] == len(report["samples"]) == 5
    assert {limit["measure"] for limit in report["limits"] if limit["kept"] is False} == {
        "rows rejected",
        "near-duplicate responses",
        "pairs with control tokens or active HTML",
    }


def test_ready_pairs_have_no_places(tmp_path: Path) -> None:
    report = measure(tmp_path, report=REPORT | {"replies_mean": None}).report
    assert (report["dialogues"], report["position"]["replies"]) == (None, [])
    assert report["position"]["population"] == "ready pairs"


def test_groups_that_are_conversations_are_not_listed(tmp_path: Path) -> None:
    assert measure(tmp_path, [pair._replace(group="") for pair in PAIRS]).report["groups"] == []


def test_the_report_is_json_and_the_same_twice(tmp_path: Path) -> None:
    first, second = (json.dumps(measure(tmp_path).report, allow_nan=False) for _ in range(2))
    assert first == second


def test_leaks_come_from_the_split(tmp_path: Path) -> None:
    pairs = [Pair(f"c{at}", 1, [f"question {at % 3}"], f"answer {at}", "the same to all") for at in range(30)]
    split = split_table(table(pairs), SplitConfig(train=0.5, validation=0.2))
    path = tmp_path / "split.parquet"
    pq.write_table(split.table, path)
    report = measure(tmp_path, pairs, split=path, split_report=split.report).report
    in_test = {at for at, name in enumerate(split.table["split"].to_pylist()) if name == "test"}
    questions = {at % 3 for at in in_test}
    assert report["leaks"]["prompts"] == {"test": len(questions), "shared": len(questions), "share": 1.0}
    # Each test pair has an answer of its own, and all share one response with training.
    assert report["leaks"]["responses"]["test"] == len(in_test) + 1
    assert report["leaks"]["responses"]["shared"] == 1
    with pytest.raises(ValueError, match=r"must be the split of the triplets given, got 30 rows for 5 triplets"):
        measure(tmp_path, split=path, split_report=split.report)
    with pytest.raises(ValueError, match=r"needs both or neither, got one"):
        measure(tmp_path, pairs, split=path)


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    _, rejects = files(tmp_path, PAIRS, [])
    pq.write_table(TRIPLET_SCHEMA.empty_table(), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"needs at least one triplet, got none; build triplets"):
        assess(tmp_path / "none.parquet", rejects, REPORT, QualityConfig())


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    measure(tmp_path, progress=lambda *told_now: told.append(told_now))
    assert (5, 5, "pairs") in told
    assert told[-1][2] == "texts compared"
