"""Read fixtures, each in the layout of its original, and rows written on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coala_core.config import TripletsConfig
from coala_core.sources import Conversation, Preference, Reject, Row, Turn, parse_row, read_conversations

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"

Items = list[Conversation | Preference | Reject]


def read(name: str | Path, **settings: Any) -> Items:
    """All items of a fixture, or of a file elsewhere or a pattern."""
    return list(read_conversations(TripletsConfig(conversations=str(FIXTURES / name), **settings)))


def read_rows_of(folder: Path, *rows: object, name: str = "rows.jsonl", **settings: Any) -> Items:
    """All items of rows, after writing them as JSON lines."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read(path, **settings)


def parse(content: Any, **settings: Any) -> Any:
    """The record of one row."""
    return parse_row(Row(7, content, "some.jsonl"), TripletsConfig(**settings))


def said(letters: str, *texts: str) -> tuple[Turn, ...]:
    """Turns by the first letters of system, user and assistant."""
    roles: dict[str, Any] = {"S": "system", "U": "user", "A": "assistant"}
    return tuple(Turn(roles[letter], text) for letter, text in zip(letters, texts, strict=True))


def split(items: Items) -> tuple[list[Any], dict[int, Reject]]:
    """Records, and rejects by row."""
    rejects = [item for item in items if isinstance(item, Reject)]
    by_row = {reject.row: reject for reject in rejects}
    assert len(by_row) == len(rejects)
    return [item for item in items if not isinstance(item, Reject)], by_row


def rows_of(items: Items) -> int:
    """Rows of the input that items account for."""
    return sum(item.rows if isinstance(item, Preference) else 1 for item in items)
