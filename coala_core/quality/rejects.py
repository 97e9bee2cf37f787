"""Which rows were not used, and where to look for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIRST_ROWS = 3


def rows_report(triplets_report: Mapping[str, Any], rejects: Path) -> dict[str, Any]:
    """State rows in, used and rejected, with the first rows of each reason.

    Parameters
    ----------
    triplets_report : mapping
        Report of the stage ``triplets``.
    rejects : Path
        Its ``rejects.jsonl``, read line by line.

    Returns
    -------
    dict
        ``rows_in``, ``rows_used``, ``rows_rejected``, ``rejected_share`` and ``pairs_rejected``; ``layouts``; and
        ``reasons``, the most frequent first: ``fault``, ``count``, and ``first``, up to three of ``file``, ``row``
        and ``reason``.
    """
    first: dict[str, list[dict[str, Any]]] = {}
    with rejects.open(encoding="utf-8") as lines:
        for line in lines:
            reject = json.loads(line)
            examples = first.setdefault(reject["fault"], [])
            if len(examples) < FIRST_ROWS:
                examples.append({"file": reject["source"], "row": reject["row"], "reason": reject["reason"]})
    counts = sorted(triplets_report["rejected_by_reason"].items(), key=lambda item: (-item[1], item[0]))
    kept = ("rows_in", "rows_used", "rows_rejected", "pairs_rejected", "layouts")
    return {
        **{name: triplets_report[name] for name in kept},
        "rejected_share": triplets_report["rows_rejected"] / max(1, triplets_report["rows_in"]),
        "reasons": [{"fault": fault, "count": count, "first": first.get(fault, [])} for fault, count in counts],
    }
