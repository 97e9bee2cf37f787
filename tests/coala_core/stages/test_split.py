"""The split as an artifact."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from coala_core.config import SplitConfig
from coala_core.splits import assign_split
from coala_core.stages import split
from coala_core.storage import Store
from tests.coala_core.stages.conftest import Chain


def test_every_pair_lies_where_the_hash_of_its_group_says(chain: Chain) -> None:
    rows = pq.read_table(chain.split.path / "split.parquet").to_pylist()
    triplets = pq.read_table(chain.triplets.path / "triplets.parquet", columns=["pair_id", "group"]).to_pylist()
    assert [(row["pair_id"], row["group"]) for row in rows] == [(row["pair_id"], row["group"]) for row in triplets]
    assert all(row["split"] == assign_split(row["group"], chain.config.split) for row in rows)
    assert sum(chain.split.report["pairs"].values()) == len(rows)


def test_the_key_follows_triplets_shares_and_seed(chain: Chain, tmp_path: Path) -> None:
    store, config = Store(tmp_path), chain.config.split
    other = chain.triplets.model_copy(update={"sha256": "0" * 64})
    plans = [
        split.plan(store, config, chain.triplets),
        split.plan(store, config, other),
        split.plan(store, config.model_copy(update={"seed": 1}), chain.triplets),
        split.plan(store, config.model_copy(update={"train": 0.5}), chain.triplets),
        split.plan(store, config.model_copy(update={"validation": 0.1}), chain.triplets),
    ]
    assert len({plan.key for plan in plans}) == len(plans)
    assert plans[0].key == chain.split.key


def test_an_empty_split_is_refused_and_leaves_no_artifact(chain: Chain, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="needs pairs in every split, got none in .*test from 24 groups"):
        split.run(store, SplitConfig(train=0.999, validation=0.0009), chain.triplets)
    assert list(store.root.glob("split/*/manifest.json")) == []
