"""Rows that were not used, by reason."""

from __future__ import annotations

import json
from pathlib import Path

from coala_core.quality.rejects import rows_report

REPORT = {
    "rows_in": 10, "rows_used": 5, "rows_rejected": 5, "pairs_rejected": 1, "layouts": {"messages": 5},
    "rejected_by_reason": {"empty": 4, "not JSON": 1, "near": 1},
}  # fmt: skip


def test_the_first_rows_of_each_reason_are_named(tmp_path: Path) -> None:
    faults = ["empty", "not JSON", "empty", "empty", "near", "empty"]
    rejects = [
        {"source": "f.jsonl", "row": at, "fault": fault, "reason": f"r{at}", "excerpt": ""}
        for at, fault in enumerate(faults)
    ]
    path = tmp_path / "rejects.jsonl"
    path.write_text("".join(json.dumps(reject) + "\n" for reject in rejects))
    report = rows_report(REPORT, path)
    assert report["rejected_share"] == 0.5
    assert [(row["fault"], row["count"]) for row in report["reasons"]] == [("empty", 4), ("near", 1), ("not JSON", 1)]
    assert report["reasons"][0]["first"] == [{"file": "f.jsonl", "row": at, "reason": f"r{at}"} for at in (0, 2, 3)]


def test_nothing_rejected(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    path.touch()
    report = rows_report(REPORT | {"rows_used": 10, "rows_rejected": 0, "rejected_by_reason": {}}, path)
    assert (report["rejected_share"], report["reasons"]) == (0.0, [])
