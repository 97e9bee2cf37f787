"""Triplets written by hand, as the file that the stage ``triplets`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from coala_core.quality.batches import PairBatch, read_batches
from coala_core.triplets import TRIPLET_SCHEMA


class Pair(NamedTuple):
    """One row; `prompt` alternates, the student last."""

    conversation: str
    turn: int
    prompt: Sequence[str]
    chosen: str
    rejected: str
    group: str = ""
    pair_id: str = ""


def table(pairs: Sequence[Pair]) -> pa.Table:
    """Of `TRIPLET_SCHEMA`; without a group the conversation is one."""
    return pa.Table.from_pylist([_row(pair) for pair in pairs], schema=TRIPLET_SCHEMA)


def _row(pair: Pair) -> dict[str, Any]:
    roles = ["user" if (len(pair.prompt) - at) % 2 else "assistant" for at in range(len(pair.prompt))]
    return {
        "conversation_id": pair.conversation,
        "pair_id": pair.pair_id or f"{pair.conversation}#{pair.turn}",
        "group": pair.group or pair.conversation,
        "turn": pair.turn,
        "prompt": [{"role": role, "content": text} for role, text in zip(roles, pair.prompt, strict=True)],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def write_pairs(path: Path, pairs: Sequence[Pair]) -> Path:
    """Write small row groups, so that batches and row groups do not agree."""
    pq.write_table(table(pairs), path, row_group_size=3)
    return path


def batches(tmp_path: Path, pairs: Sequence[Pair], rows: int = 2) -> list[PairBatch]:
    """The same pairs as batches."""
    return list(read_batches(write_pairs(tmp_path / "triplets.parquet", pairs), rows))
