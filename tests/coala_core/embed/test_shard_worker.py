"""A worker turns a file of pairs into a shard; speeds are derived from what shards took."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.config import EmbedConfig
from coala_core.embed import shard_worker
from coala_core.embed.embed_pairs import FACTS, TextPair, Work, embed_pairs
from coala_core.embed.language_model import load_language_model
from coala_core.embed.model_source import locate_model
from coala_core.embed.shard_worker import (
    ShardJob,
    ShardResult,
    ShardWorker,
    WorkerSettings,
    describe_performance,
    matmul_rate,
    performance,
    shard_table,
    start_worker,
    stored_columns,
    text_pairs,
)
from coala_core.feature_cache import FeatureCache, ShardNote, Space
from coala_core.storage import Damaged, Store
from tests.embedding import settings

SPACE = Space({"model_fingerprint": "0f", "revision": 1})
KEYS = ["k0", "k1", "k2"]
PAIRS = [
    TextPair(f"p{i}", ({"role": "user", "content": f"Why {i}?"},), f"Because of {i}.", "I told you before.")
    for i in range(3)
]


def pairs_table() -> pa.Table:
    rows = [
        {
            "pair_id": pair.pair_id,
            "prompt": list(pair.prompt),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
            "key": key,
        }
        for pair, key in zip(PAIRS, KEYS, strict=True)
    ]
    return pa.Table.from_pylist(rows)


@pytest.fixture
def config(tiny_models: dict[str, Path]) -> EmbedConfig:
    return settings(tiny_models["llama"], layers=(1, 3), poolings=("mean", "last"))


@pytest.fixture
def shared(tmp_path: Path, config: EmbedConfig, monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    """Settings of a run whose model is the right one; the device's rate is not measured."""
    monkeypatch.setattr(shard_worker, "matmul_rate", lambda model: 1e9)
    store = Store(tmp_path / "store")
    return WorkerSettings(config, locate_model(config, store).fingerprint, str(store.root), str(tmp_path / "features"))


def job(shared: WorkerSettings, name: str = "shard-a") -> ShardJob:
    return ShardJob(SPACE.key, name, FeatureCache(shared.cache).put_pairs(SPACE.key, name, pairs_table()))


def test_a_worker_writes_the_shard_that_embedding_here_gives(shared: WorkerSettings, config: EmbedConfig) -> None:
    told: list[tuple[int, int, str]] = []
    worker = start_worker(shared, lambda *progress: told.append(progress))
    result = worker(job(shared))
    embedded = embed_pairs(PAIRS, load_language_model(Path(config.model), config), config)
    file = Path(shared.cache) / SPACE.key / "shard-a.parquet"
    table = pq.read_table(file)
    assert table.column_names == [
        "key",
        *(f"{side}_layer{n}_{p}" for side in ("chosen", "rejected") for n in (1, 3) for p in ("mean", "last")),
        *FACTS,
    ]
    assert table.equals(shard_table(KEYS, embedded))
    (note,) = FeatureCache(shared.cache).notes(SPACE.key)
    assert note == result.note
    assert (note.keys, list(note.columns)) == (tuple(KEYS), stored_columns(config))
    assert note.counts == asdict(embedded.work) == asdict(result.work)
    assert (result.peak, result.unshared) == (1e9, None) and result.seconds > 0
    assert told[-1] == (3, 3, "pairs")


def test_the_same_job_again_leaves_the_same_bytes(shared: WorkerSettings) -> None:
    worker = ShardWorker(shared)
    first, again = worker(job(shared)), worker(job(shared))
    other = ShardWorker(shared)(job(shared))
    assert first.note == again.note == other.note


def test_a_table_s_pairs_are_the_pairs() -> None:
    assert text_pairs(pairs_table()) == PAIRS


def test_columns_go_by_layer_and_then_by_pooling(config: EmbedConfig) -> None:
    assert stored_columns(config) == ["layer1_mean", "layer1_last", "layer3_mean", "layer3_last"]


def test_a_worker_with_another_model_refuses(shared: WorkerSettings) -> None:
    other = WorkerSettings(shared.config, "0f" * 32, shared.store, shared.cache)
    expected = r"must be the same model on every worker, got fingerprint \w{24} in place of (0f){12}; copy the model"
    with pytest.raises(ValueError, match=expected):
        ShardWorker(other)


def test_pairs_that_are_gone_are_damage_unless_another_run_made_the_shard(shared: WorkerSettings) -> None:
    worker = ShardWorker(shared)
    one, two = job(shared, "shard-a"), job(shared, "shard-b")
    made = worker(one)
    for taken in (one, two):
        FeatureCache.drop_pairs(taken.pairs)
    again = worker(one)
    assert (again.note, again.work, again.seconds) == (made.note, Work(), 0.0)
    with pytest.raises(Damaged, match=r"must be the Parquet file with a job's pairs, got no file"):
        worker(two)


def result_of(seconds: float, peak: float, **work: int) -> ShardResult:
    note = ShardNote("s", "0f", 1, 1, ("layer1_mean",), ("k",), {})
    return ShardResult(ShardJob(SPACE.key, "s", "p"), note, Work(**work), seconds, peak, None)


def test_speeds_by_hand() -> None:
    results = [
        result_of(2.0, 1000.0, tokens=100, distinct_tokens=60, computed_tokens=70, padding=10, flops=600),
        result_of(3.0, 2000.0, tokens=300, distinct_tokens=100, computed_tokens=130, padding=40, flops=1400),
    ]
    assert performance(results, 10.0) == {
        "computed_tokens": 200,
        "tokens_per_s": 20.0,  # 200 tokens in 10 s of wall-clock time
        "computed_share": 0.5,  # 200 of 400
        "distinct_share": 0.4,  # 160 of 400
        "padding_share": 0.2,  # 50 of 250 positions
        # 2000 operations, where 2 s of 1000 and 3 s of 2000 a second had room for 8000.
        "model_flop_utilisation": 0.25,
        "peak_flops_per_s": 2000.0,
        "unshared": None,
    }


def test_speeds_in_words_name_a_model_that_cannot_share() -> None:
    slow = dataclasses.replace(result_of(1.0, 8.0, tokens=8, computed_tokens=4, flops=2), unshared="it has sinks")
    said = "4 tokens computed, 50% of their rows' tokens, at 2/s, 25% of the processor's matrix-multiply rate"
    assert describe_performance(performance([slow], 2.0)) == f"{said}; common prefixes were not shared: it has sinks"
    assert describe_performance(performance([result_of(1.0, 8.0, tokens=8, computed_tokens=4, flops=2)], 2.0)) == said
    assert describe_performance(performance([], 0.0)) == "no token computed"


def test_nothing_computed_has_no_speed() -> None:
    assert performance([], 0.0) == {"computed_tokens": 0}
    assert performance([result_of(0.0, 1e9)], 1.0) == {"computed_tokens": 0}


def test_the_device_s_rate_is_that_of_the_quickest_multiplication(
    config: EmbedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_language_model(Path(config.model), config)
    # Four multiplications that take 4, 2, 3 and 8 seconds by this clock, with a second between them.
    ticks = accumulate([0, 4, 1, 2, 1, 3, 1, 8])
    monkeypatch.setattr(shard_worker.time, "perf_counter", lambda: float(next(ticks)))
    # 2 n^3 operations in 2 s.
    assert matmul_rate(model) == 1024**3


def test_features_are_finite_float32_rows(shared: WorkerSettings) -> None:
    ShardWorker(shared)(job(shared))
    column = pq.read_table(Path(shared.cache) / SPACE.key / "shard-a.parquet")["chosen_layer3_last"]
    assert column.type.list_size == 32
    assert np.isfinite(column.combine_chunks().flatten().to_numpy()).all()
