"""Digests: of every value and of every byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from coala_core.storage import digest, dump_json, file_digest, stage_key


def test_digests_do_not_depend_on_order_but_on_every_value() -> None:
    content = {"a": 1, "b": [1, {"x": None, "y": "ü"}]}
    shuffled = {"b": [1, {"y": "ü", "x": None}], "a": 1}
    assert digest(content) == digest(shuffled)
    assert dump_json(content) == dump_json(shuffled)
    assert json.loads(dump_json(content)) == content
    assert digest(content) != digest({**content, "a": 2})
    assert digest(["a", "b"]) != digest(["b", "a"])


def test_a_stage_key_covers_stage_revision_and_content() -> None:
    key = stage_key("solve", 1, {"a": 1})
    assert len(key) == 24
    others = {stage_key("embed", 1, {"a": 1}), stage_key("solve", 2, {"a": 1}), stage_key("solve", 1, {"a": 2})}
    assert len(others | {key}) == 4


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 * (1 << 20)])
def test_a_file_digest_equals_hashlib_s_around_block_ends(tmp_path: Path, size: int) -> None:
    content = (b"0123456789abcde" * (size // 15 + 1))[:size]
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()
