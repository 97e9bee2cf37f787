"""Triplets of a few lessons and settings of a tiny model, for tests of the stage ``embed``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coala_core.config import EmbedConfig, TripletsConfig
from coala_core.feature_table import read_features
from coala_core.stages import triplets
from coala_core.storage import Artifact, Store
from tests.lessons import lesson


def tell(folder: Path, numbers: Iterable[int], name: str = "lessons", **settings: Any) -> Artifact:
    """Triplets of the lessons with these numbers, three pairs each, in this order, in a store below the folder."""
    path = folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(lesson(number)) + "\n" for number in numbers), encoding="utf-8")
    return triplets.run(Store(folder / "told"), TripletsConfig(conversations=str(path), **settings))


def settings(model: Path, **more: Any) -> EmbedConfig:
    """One layer of a tiny model, in shards of two lessons."""
    defaults: dict[str, Any] = {"layers": (2,), "shard_rows": 6, "device": "cpu", "dtype": "float32"}
    return EmbedConfig(model=str(model), **defaults | more)


def features(artifact: Artifact, layer: int = 2, pooling: Any = "mean") -> dict[str, NDArray[np.float32]]:
    """Both features of each pair, side by side, by id."""
    ids, chosen, rejected = read_features(artifact.path, layer, pooling)
    return dict(zip(ids, np.concatenate([chosen, rejected], axis=1), strict=True))


def same(one: dict[str, NDArray[np.float32]], other: dict[str, NDArray[np.float32]]) -> bool:
    """Tell whether the pairs of `one` have the same features, to the last bit, in `other`."""
    return all(np.array_equal(values, other[pair]) for pair, values in one.items())


def shards(artifact: Artifact) -> dict[str, str]:
    """SHA-256 of the artifact's shards by file name, as its manifest has them."""
    files = artifact.manifest["files"]
    return {name: file["sha256"] for name, file in files.items() if name.startswith("shard-")}


def pair_ids(numbers: Iterable[int]) -> set[str]:
    """Ids of the pairs of these lessons, which have four replies each."""
    return {f"lesson-{number:05d}#{pair}" for number in numbers for pair in (1, 2, 3)}


def told_ids(artifact: Artifact) -> list[str]:
    """Ids of a triplets artifact."""
    ids: list[str] = pq.read_table(artifact.path / "triplets.parquet")["pair_id"].to_pylist()
    return ids


def flip(path: Path) -> None:
    """Change one byte in the middle of a file, where it lies: hard links to it change with it."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x10]))
