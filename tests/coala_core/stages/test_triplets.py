"""What the key and the texts' digest follow, and what the artifact holds."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coala_core.config import TripletsConfig
from coala_core.stages import triplets
from coala_core.storage import Store
from tests.lessons import lesson, write_lessons


def test_the_key_follows_content_name_and_reading_but_not_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "elsewhere").mkdir()
    original = write_lessons(tmp_path / "a.jsonl", 3)
    moved = write_lessons(tmp_path / "elsewhere" / "a.jsonl", 3)
    renamed = write_lessons(tmp_path / "b.jsonl", 3)
    configs = [
        TripletsConfig(conversations=str(original)),
        TripletsConfig(conversations=str(moved)),
        TripletsConfig(conversations=str(renamed)),
        TripletsConfig(conversations=str(original), group_by="topic"),
        TripletsConfig(conversations=str(original), history="turn"),
    ]
    keys = [triplets.plan(store, config).key for config in configs]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    pairs = [
        TripletsConfig(conversations=str(original), **settings)
        for settings in (
            {"pairs": "all_later"},
            {"pairs": "window"},
            {"pairs": "window", "window": 3},
            {"near_duplicates": 0.8},
            {"identical_pairs": "reject"},
        )
    ]
    keys += [triplets.plan(store, config).key for config in pairs]
    assert len(set(keys)) == 4 + len(pairs)
    # Where every reply is set against the next one, a window changes nothing.
    assert triplets.plan(store, TripletsConfig(conversations=str(original), window=3)).key == keys[0]
    write_lessons(original, 4)
    assert triplets.plan(store, configs[0]).key not in keys


def test_the_texts_digest_ignores_group_and_file_but_no_text_and_no_order(tmp_path: Path) -> None:
    rows = [lesson(number) for number in range(3)]
    reworded = json.loads(json.dumps(rows))
    reworded[2]["utterances"][-1][1] += "!"

    def texts_sha256(name: str, content: list[dict[str, object]], **settings: str) -> str:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
        made = triplets.run(Store(tmp_path / "store"), TripletsConfig(conversations=str(path), **settings))
        return str(made.report["texts_sha256"])

    first = texts_sha256("first", rows)
    assert texts_sha256("second", rows, group_by="topic") == first
    assert texts_sha256("third", reworded) != first
    assert texts_sha256("fourth", rows[::-1]) != first


def test_rejects_are_kept_with_their_line_numbers(tmp_path: Path) -> None:
    lines = [json.dumps(lesson(0)), "not JSON", "", json.dumps({"id": "x", "utterances": []}), json.dumps(lesson(1))]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    made = triplets.run(Store(tmp_path / "store"), TripletsConfig(conversations=str(path)))
    rejects = [json.loads(line) for line in (made.path / "rejects.jsonl").read_text().splitlines()]
    # The blank line 3 holds no row, but counts as a line.
    assert [(reject["row"], reject["fault"]) for reject in rejects] == [(2, "not JSON"), (4, "empty")]
    assert (made.report["rows_in"], made.report["rows_used"], made.report["rows_rejected"]) == (4, 2, 2)
    # Two lessons of four replies.
    assert pq.read_table(made.path / "triplets.parquet").num_rows == made.report["triplets"] == 2 * 3


def test_files_are_read_in_order_and_rejects_name_theirs(tmp_path: Path) -> None:
    for name, number in (("b.jsonl", 0), ("a.jsonl", 1)):
        (tmp_path / name).write_text(json.dumps(lesson(number)) + "\nnot JSON\n")
    made = triplets.run(Store(tmp_path / "store"), TripletsConfig(conversations=str(tmp_path / "*.jsonl")))
    rejects = [json.loads(line) for line in (made.path / "rejects.jsonl").read_text().splitlines()]
    assert [(reject["source"], reject["row"]) for reject in rejects] == [("a.jsonl", 2), ("b.jsonl", 2)]
    ids = pq.read_table(made.path / "triplets.parquet")["conversation_id"].to_pylist()
    assert ids == [lesson(1)["id"]] * 3 + [lesson(0)["id"]] * 3


def test_a_refused_file_leaves_no_artifact(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("not JSON\n")
    store = Store(tmp_path / "store")
    with pytest.raises(ValueError, match="got none of 1 .1 not JSON; first, row 1 of rows.jsonl:"):
        triplets.run(store, TripletsConfig(conversations=str(path)))
    assert list(store.root.glob("triplets/*/manifest.json")) == []
