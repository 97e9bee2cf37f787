"""Stores of small artifacts with a chosen age, and what must hold in every store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coala_core.feature_cache import FeatureCache, Space
from coala_core.feature_table import feature_table
from coala_core.storage import MANIFEST, Artifact, Store

NOW = 1_700_000_000.0
DAY = 86_400.0


def make(
    store: Store, stage: str, key: str, inputs: Sequence[Artifact] = (), *, days: float = 0.0, size: int = 1000
) -> Artifact:
    """Seal an artifact with a file of `size` bytes, last used `days` before `NOW`."""
    workspace = store.workspace(stage, key)
    workspace.write("content.bin", lambda path: path.write_bytes(bytes(size)))
    with store.lock(stage, key):
        artifact = store.seal(workspace, stage, key, {}, {f"input{i}": each for i, each in enumerate(inputs)}, 0.0)
    os.utime(artifact.path / MANIFEST, (NOW - days * DAY,) * 2)
    return artifact


def write_shard(store: Store, name: str, rows: int = 4) -> tuple[str, Path]:
    """Write a shard to the store's feature cache; give its space and its Parquet file."""
    cache, space = FeatureCache(store.root / "features"), Space({"model_fingerprint": "m", "revision": 1})
    cache.open_space(space)
    keys = [f"{name}-{row}" for row in range(rows)]
    values = np.ones((rows, 8), dtype=np.float32)
    columns = {"chosen_layer1_mean": values, "rejected_layer1_mean": values}
    cache.write_shard(space.key, name, feature_table(keys, columns), ["layer1_mean"], keys, {})
    return space.key, store.root / "features" / space.key / f"{name}.parquet"


def artifacts(store: Store) -> dict[str, Mapping[str, dict[str, str]]]:
    """Inputs of every artifact that is there, by "stage/key", read by another way than the inventory's."""
    import json

    found = {}
    for manifest in store.root.glob(f"*/*/{MANIFEST}"):
        if not manifest.parent.name.startswith("."):
            found[f"{manifest.parent.parent.name}/{manifest.parent.name}"] = json.loads(manifest.read_text())["inputs"]
    return found


def lacking(store: Store) -> list[str]:
    """Every artifact that is there without one of its inputs."""
    found = artifacts(store)
    return [
        f"{name} lacks {each['stage']}/{each['key']}"
        for name, inputs in found.items()
        for each in inputs.values()
        if f"{each['stage']}/{each['key']}" not in found
    ]
