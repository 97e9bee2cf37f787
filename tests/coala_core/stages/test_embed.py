"""The features' key follows what moves features, and the artifact says what made it and nothing about the machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from coala_core.config import TripletsConfig
from coala_core.embed import shard_worker
from coala_core.embed.embed_pairs import FACTS
from coala_core.feature_table import read_features
from coala_core.stages import embed, triplets
from coala_core.storage import Artifact, Store
from tests.coala_core.stages.conftest import Chain
from tests.embedding import settings, shards, tell
from tests.lessons import lesson


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_worker, "matmul_rate", lambda model: 1e9)


def key(chain: Chain, triplets_artifact: Artifact | None = None, **changes: Any) -> str:
    """Key of the chain's features after some changes."""
    config = chain.config.embed.model_copy(update=changes)
    return embed.plan(chain.store, config, triplets_artifact or chain.triplets).key


def retold(chain: Chain, folder: Path, change: Any = None, **settings: Any) -> Artifact:
    """Triplets of the same lessons in another file, after a change."""
    rows = [lesson(number) for number in range(24)]
    if change is not None:
        change(rows)
    path = folder / "other-name.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = chain.config.triplets.model_copy(update={"conversations": str(path), **settings})
    return triplets.run(Store(folder / "store"), config)


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "auto"},
        {"batch_tokens": 64},
        {"max_tokens": 10**6},
        {"shard_rows": 8},
        {"share_prefixes": False},
        {"workers": 3, "cpus_per_worker": 2.0},
        {"executor": "ray", "ray_address": "auto", "gpus_per_worker": 0.5},
        {"cache": "memory://elsewhere"},
    ],
    ids=str,
)
def test_what_moves_features_by_rounding_only_or_not_at_all_keeps_the_key(
    chain: Chain, changes: dict[str, Any]
) -> None:
    # The tiny model's window is 4096; a longer one is cut to it, a default of 2048 is another setting.
    base = key(chain, max_tokens=4096) if "max_tokens" in changes else chain.embed.key
    assert key(chain, **changes) == base


def test_file_name_and_groups_keep_the_key(chain: Chain, tmp_path: Path) -> None:
    again = retold(chain, tmp_path, group_by="topic")
    assert again.sha256 != chain.triplets.sha256
    assert key(chain, again) == chain.embed.key


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (1,)},
        {"layers": ()},
        {"layers": (2, 1)},
        {"poolings": ("last",)},
        {"poolings": ("mean", "last")},
        {"max_tokens": 64},
        {"dtype": "other"},
    ],
    ids=str,
)
def test_what_moves_features_changes_the_key(chain: Chain, changes: dict[str, Any]) -> None:
    if "dtype" in changes:  # the one that this machine's "auto" does not stand for
        kept = chain.embed.manifest["config"]["dtype"]
        changes = {"dtype": "float32" if kept == "bfloat16" else "bfloat16"}
    assert key(chain, **changes) != chain.embed.key


def test_empty_layers_are_the_layer_that_they_stand_for(chain: Chain) -> None:
    # Two thirds of four blocks, rounded, are three.
    assert key(chain, layers=()) == key(chain, layers=(3,))


def test_another_text_changes_the_key(chain: Chain, tmp_path: Path) -> None:
    def reword(rows: list[dict[str, Any]]) -> None:
        rows[5]["utterances"][1][1] += "!"

    assert key(chain, retold(chain, tmp_path, reword)) != chain.embed.key


def test_another_model_changes_the_key_and_a_copied_one_does_not(
    chain: Chain, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_models["llama"], copy)
    assert key(chain, model=str(copy)) == chain.embed.key
    assert key(chain, model=str(tiny_models["gpt2"])) != chain.embed.key
    template = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(template | {"chat_template": "{{ messages }}"}))
    assert key(chain, model=str(copy)) != chain.embed.key


def test_the_artifact_holds_every_pair_once_and_says_what_made_it(chain: Chain) -> None:
    ids, chosen, rejected = read_features(chain.embed.path, 2, "mean")
    wanted = pq.read_table(chain.triplets.path / "triplets.parquet")["pair_id"].to_pylist()
    report = chain.embed.report
    assert ids == wanted
    assert chosen.shape == rejected.shape == (len(wanted), report["hidden_size"])
    # 24 lessons of four replies give 72 pairs; five lessons of three pairs fit into a shard of 16.
    assert (report["shards"], len(shards(chain.embed)), report["pairs"]) == (5, 5, 72)
    assert (report["layers"], report["poolings"], report["depth"]) == ([2], ["mean"], 4)
    assert report["equal_features"] == np.all(chosen == rejected, axis=1).sum()


def test_the_report_adds_up(chain: Chain) -> None:
    report = chain.embed.report
    assert report["tokens"] == report["shard_tokens"], "the shards hold these pairs and no others"
    assert 0 < report["shard_distinct_tokens"] <= report["shard_computed_tokens"] <= report["shard_tokens"]
    assert report["computed_share"] == report["shard_computed_tokens"] / report["shard_tokens"]
    assert report["distinct_share"] == report["shard_distinct_tokens"] / report["shard_tokens"]
    assert report["padding_share"] == 0 == report["shard_padding"]


def test_a_report_on_few_pairs_of_a_large_cache_counts_those_alone(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    # 64 tokens are too few for the later turns of a lesson.
    config = settings(tiny_models["llama"], max_tokens=64, shard_rows=20, cache=str(tmp_path / "features"))
    embed.run(Store(tmp_path / "all"), config, tell(tmp_path, range(6)))
    few = tell(tmp_path, [4, 1], name="few")
    drawn = embed.run(Store(tmp_path / "few"), config, few)
    alone = embed.run(Store(tmp_path / "alone"), config.model_copy(update={"cache": None}), few)
    assert {name: drawn.report[name] for name in FACTS} == {name: alone.report[name] for name in FACTS}
    assert drawn.report["pairs"] == 6 and drawn.report["turns_cut"] > 0 and drawn.report["prompts_cut"] > 0
    # The one shard that serves them was made of all 18 pairs.
    assert drawn.report["shard_tokens"] > alone.report["shard_tokens"] == alone.report["tokens"]


def test_equal_texts_are_embedded_once_and_counted_as_often_as_they_occur(
    tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    rows = [lesson(3), lesson(3) | {"id": "again"}]
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings(tiny_models["llama"])
    twice = embed.run(
        Store(tmp_path / "twice"), config, triplets.run(Store(tmp_path), TripletsConfig(conversations=str(path)))
    )
    once = embed.run(Store(tmp_path / "once"), config, tell(tmp_path, [3]))
    assert shards(twice) == shards(once)
    assert (twice.report["pairs"], twice.report["tokens"]) == (6, 2 * once.report["tokens"])
    ids, chosen, rejected = read_features(twice.path, 2, "mean")
    assert ids[3:] == ["again#1", "again#2", "again#3"]
    np.testing.assert_array_equal(chosen[:3], chosen[3:])
    np.testing.assert_array_equal(rejected[:3], rejected[3:])


def test_no_digest_covers_speed_or_the_settings_of_the_machine(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    told = tell(tmp_path, range(2))
    config = settings(tiny_models["llama"])
    one = embed.run(Store(tmp_path / "one"), config, told)
    elsewhere = config.model_copy(update={"cache": "memory://ann:secret@machine", "cpus_per_worker": 1.0})
    two = embed.run(Store(tmp_path / "two"), elsewhere, told)
    assert (one.key, one.sha256) == (two.key, two.sha256)
    assert "secret" not in json.dumps(two.manifest)
    assert one.timing["finished_at"] < two.timing["finished_at"]
    speed = two.timing["performance"]
    assert speed["computed_tokens"] == two.report["shard_computed_tokens"]
    # The rate that the fixture gives, and operations that the device had time for.
    assert speed["peak_flops_per_s"] == 1e9 and 0 < speed["model_flop_utilisation"]
    assert speed["tokens_per_s"] >= speed["computed_tokens"] / two.seconds


def test_progress_tells_pairs_of_all_shards(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    heard: list[tuple[int, int, str]] = []
    told = tell(tmp_path, range(4))
    embed.run(Store(tmp_path / "s"), settings(tiny_models["llama"]), told, lambda *call: heard.append(call))
    assert heard[-1] == (12, 12, "pairs")
    assert {total for _, total, _ in heard} == {12}
    assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)
