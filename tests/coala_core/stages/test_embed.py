"""The features' key follows what moves features, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from coala_core.embed import read_features
from coala_core.stages import embed, triplets
from coala_core.storage import Artifact, Store
from tests.coala_core.stages.conftest import Chain
from tests.lessons import lesson


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


@pytest.mark.parametrize("changes", [{"device": "auto"}, {"batch_tokens": 64}, {"max_tokens": 10**6}])
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
    [{"layer": 1}, {"layer": None}, {"pooling": "last"}, {"max_tokens": 64}, {"dtype": "bfloat16"}, {"shard_rows": 8}],
    ids=str,
)
def test_what_moves_features_or_shards_changes_the_key(chain: Chain, changes: dict[str, Any]) -> None:
    assert key(chain, **changes) != chain.embed.key


def test_an_empty_layer_is_the_layer_that_it_stands_for(chain: Chain) -> None:
    # Two thirds of four blocks, rounded, are three.
    assert key(chain, layer=None) == key(chain, layer=3)


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
    ids, chosen, rejected = read_features(chain.embed.path)
    wanted = pq.read_table(chain.triplets.path / "triplets.parquet")["pair_id"].to_pylist()
    assert ids == wanted
    assert chosen.shape == rejected.shape == (len(wanted), chain.embed.report["hidden_size"])
    # 24 lessons of four replies give 72 pairs, in shards of 16.
    assert sorted(path.name for path in chain.embed.path.glob("*.parquet"))[-1] == "shard-00004.parquet"
    assert (chain.embed.report["layer"], chain.embed.report["depth"], chain.embed.report["pairs"]) == (2, 4, 72)


def test_pairs_are_read_with_their_last_message(chain: Chain) -> None:
    pairs = embed.read_text_pairs(chain.triplets.path / "triplets.parquet")
    spoken = [text for _, text in lesson(0)["utterances"]]
    assert (pairs[1].pair_id, pairs[1].chosen, pairs[1].rejected) == ("lesson-00000#2", spoken[3], spoken[5])
    assert [message["content"] for message in pairs[1].prompt] == spoken[:3]
