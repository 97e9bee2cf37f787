"""Digests of values and of files, and JSON that is equal for equal content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def digest(content: Any) -> str:
    """SHA-256, in hex, of a JSON value written with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def stage_key(stage: str, revision: int, content: Mapping[str, Any]) -> str:
    """Key of an artifact: stage, its revision, and everything else that determines the bytes."""
    return digest({"stage": stage, "revision": revision, **content})[:24]


def file_digest(path: Path) -> str:
    """SHA-256, in hex, of a file's bytes."""
    result = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            result.update(block)
    return result.hexdigest()


def dump_json(content: Any) -> str:
    """JSON with sorted keys and a final newline: equal content, equal bytes."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
