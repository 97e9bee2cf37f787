"""A whole chain of stages on generated lessons and a tiny model, made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from coala_core.config import EmbedConfig, PipelineConfig
from coala_core.feature_table import feature_table, rows_table, write_feature_table, write_rows_table
from coala_core.stages import embed, evaluate, finetune, quality, solve, split, triplets
from coala_core.stages.base import Plan, produce
from coala_core.storage import Artifact, Store, Workspace
from tests.lessons import quick_config


class Chain(NamedTuple):
    """A store with one artifact of every stage."""

    store: Store
    config: PipelineConfig
    triplets: Artifact
    split: Artifact
    quality: Artifact
    embed: Artifact
    solve: Artifact
    finetune: Artifact
    evaluate: Artifact


def make_chain(config: PipelineConfig) -> Chain:
    """Run every stage."""
    store = Store(config.store)
    a = triplets.run(store, config.triplets)
    b = split.run(store, config.split, a)
    c = quality.run(store, config.quality, a, b)
    d = embed.run(store, config.embed, a)
    e = solve.run(store, config.solve, d, b)
    f = finetune.run(store, config.finetune, e)
    return Chain(store, config, a, b, c, d, e, f, evaluate.run(store, config.evaluate, f))


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, lessons: Path, tiny_models: dict[str, Path]) -> Chain:
    """One to read from; tests that write use a store of their own."""
    return make_chain(quick_config(tmp_path_factory.mktemp("chain"), lessons, tiny_models["llama"]))


@pytest.fixture(scope="session")
def second_chain(tmp_path_factory: pytest.TempPathFactory, lessons: Path, tiny_models: dict[str, Path]) -> Chain:
    """The same settings and seeds in another store."""
    return make_chain(quick_config(tmp_path_factory.mktemp("second"), lessons, tiny_models["llama"]))


class Made(NamedTuple):
    """A store with triplets, a split, and features of two layers and two poolings that no model made."""

    store: Store
    config: PipelineConfig
    triplets: Artifact
    split: Artifact
    embed: Artifact


def make_features(store: Store, triplets_artifact: Artifact, **settings: Any) -> Artifact:
    """An ``embed`` artifact by hand: random features whose sides differ, another draw in every column."""
    config = EmbedConfig(model="by hand", max_tokens=99, **settings)
    names = [f"{side}_layer{n}_{p}" for n in config.layers for p in config.poolings for side in ("chosen", "rejected")]
    ids = pq.read_table(triplets_artifact.path / "triplets.parquet")["pair_id"].to_pylist()

    def compute(workspace: Workspace) -> None:
        rng = np.random.default_rng(0)
        shape = (len(ids), 6)
        columns = {name: rng.normal(0.4 * name.startswith("chosen"), 1, shape).astype(np.float32) for name in names}
        order, shards = rng.permutation(len(ids)), rng.integers(3, size=len(ids))
        homes = {}
        for shard in range(3):
            rows = [int(row) for row in order if shards[row] == shard]
            homes |= {ids[row]: (f"s{shard}", place) for place, row in enumerate(rows)}
            table = feature_table([f"of {ids[row]}" for row in rows], {name: columns[name][rows] for name in names})
            workspace.write(f"s{shard}.parquet", lambda path, table=table: write_feature_table(table, path))
        found = rows_table(ids, [homes[pair][0] for pair in ids], [homes[pair][1] for pair in ids])
        workspace.write("rows.parquet", lambda path: write_rows_table(found, path))
        facts = {"model": "by hand", "model_fingerprint": "0f0f", "depth": 9, "hidden_size": 6}
        stored = {"layers": list(config.layers), "poolings": list(config.poolings)}
        workspace.report = {**facts, **stored, "has_chat_template": False}

    inputs = {"triplets": triplets_artifact}
    return produce(store, Plan("embed", 0, config.model_dump(), inputs, config.model_dump()), compute)


@pytest.fixture
def made(tmp_path: Path, lessons: Path) -> Made:
    """A store of its own for every test."""
    config = quick_config(tmp_path / "made", lessons, Path("by hand"))
    store = Store(config.store)
    a = triplets.run(store, config.triplets)
    b = split.run(store, config.split, a)
    return Made(store, config, a, b, make_features(store, a, layers=(3, 5), poolings=("last", "mean")))
