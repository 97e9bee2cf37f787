"""Every text that cannot be reused has a reason, from caches whose features no model made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coala_core.embed.reuse import NEW, UNKNOWN, Explanation, ShardReuse, explain_reuse
from coala_core.embed.shards import Texts
from coala_core.feature_cache import FeatureCache
from coala_core.feature_cache.notes import Space
from coala_core.feature_table import feature_table
from tests.embedding import flip

IDENTITY = {"dtype": "float32", "max_tokens": 512, "model": "tiny", "model_fingerprint": "0f", "revision": 1}
SPACE = Space(IDENTITY)
COLUMNS = ["layer2_mean"]


def texts(*keys: str) -> Texts:
    return Texts([f"pair {i}" for i in range(len(keys))], list(keys), list(range(len(keys))))


def keep(
    cache: FeatureCache, name: str, keys: str, columns: tuple[str, ...] = ("layer2_mean",), space: Space = SPACE
) -> None:
    """Store a shard with one letter a key."""
    matrices = {f"{side}_{c}": np.ones((len(keys), 3), np.float32) for c in columns for side in ("chosen", "rejected")}
    cache.open_space(space)
    cache.write_shard(space.key, name, feature_table(list(keys), matrices), columns, list(keys), {})


def explain(cache: FeatureCache, *keys: str, finished: bool = False) -> Explanation:
    return explain_reuse(cache, SPACE, COLUMNS, texts(*keys), finished)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def test_an_empty_cache_has_nothing(cache: FeatureCache) -> None:
    found = explain(cache, "a", "b", "b")
    assert (found.pairs, found.texts, found.to_embed) == (3, 2, 2)
    assert (found.reused, found.reasons, found.damaged) == ((), {NEW: 2}, {})
    assert (found.cache, found.space, found.finished) == (cache.label, SPACE.key, False)
    assert not Path(cache.url).exists(), "looking leaves no trace"


def test_all_is_stored(cache: FeatureCache) -> None:
    keep(cache, "one", "abc")
    keep(cache, "two", "de")
    found = explain(cache, "e", "a", "c", "a", finished=True)
    assert found.reused == (ShardReuse("one", 2, 3), ShardReuse("two", 1, 2))
    assert (found.to_embed, found.reasons, found.finished) == (0, {}, True)


def test_part_is_stored_and_the_rest_has_reasons_that_add_up(cache: FeatureCache) -> None:
    keep(cache, "one", "ab")
    keep(cache, "last", "cd", ("layer2_last",))
    keep(cache, "elsewhere", "e", space=Space(IDENTITY | {"dtype": "bfloat16"}))
    found = explain(cache, *"abcdefgh")
    assert found.reused == (ShardReuse("one", 2, 2),)
    assert found.reasons == {
        NEW: 3,
        "stored without layer2_mean": 2,
        "stored with dtype bfloat16 in place of float32": 1,
    }
    assert found.to_embed == 6
    assert list(found.reasons.values()) == [3, 2, 1], "the commonest reason comes first"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_tokens": 64}, "stored with max_tokens 64 in place of 512"),
        (
            {"max_tokens": 64, "dtype": "bfloat16"},
            "stored with dtype bfloat16 in place of float32, max_tokens 64 in place of 512",
        ),
        ({"model": "large", "model_fingerprint": "1e"}, "stored with model large in place of tiny"),
        ({"model_fingerprint": "1e"}, "stored with model_fingerprint 1e in place of 0f"),
        # A copy of the same model in another folder is no reason.
        ({"model": "copy", "max_tokens": 64}, "stored with max_tokens 64 in place of 512"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_other_settings_are_named(cache: FeatureCache, change: dict[str, str | int], reason: str) -> None:
    keep(cache, "one", "a", space=Space(IDENTITY | change))
    assert explain(cache, "a").reasons == {reason: 1}


def test_a_space_that_does_not_say_what_it_is_still_counts_as_another(cache: FeatureCache) -> None:
    other = Space(IDENTITY | {"revision": 0})
    keep(cache, "one", "a", space=other)
    (Path(cache.url) / other.key / "space.json").unlink()
    (reason,) = explain(cache, "a").reasons
    assert "dtype unknown in place of float32" in reason


def test_columns_of_this_space_are_a_better_reason_than_another_space(cache: FeatureCache) -> None:
    keep(cache, "one", "a", ("layer3_mean",))
    keep(cache, "two", "a", space=Space(IDENTITY | {"max_tokens": 64}))
    assert explain(cache, "a").reasons == {"stored without layer2_mean": 1}


def test_a_shard_of_other_bytes_is_named_and_serves_nothing(cache: FeatureCache) -> None:
    keep(cache, "one", "ab")
    keep(cache, "two", "bc")
    flip(Path(cache.url) / SPACE.key / "one.parquet")
    found = explain(cache, "a", "b", "c")
    assert found.reused == (ShardReuse("two", 2, 2),)
    assert list(found.damaged) == ["one"]
    assert found.reasons == {f"one is damaged: {found.damaged['one']}": 1}
    assert "SHA-256" in found.damaged["one"]


@pytest.mark.parametrize("harm", ["truncated", "deleted", "sidecar"])
def test_a_shard_that_cannot_say_what_it_holds_is_not_mistaken_for_no_shard(cache: FeatureCache, harm: str) -> None:
    keep(cache, "one", "ab")
    file = Path(cache.url) / SPACE.key / "one.parquet"
    if harm == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "deleted":
        file.unlink()
    else:
        file.with_suffix(".json").write_text("{")
    found = explain(cache, "a", "z")
    assert (found.reused, found.reasons, list(found.damaged)) == ((), {UNKNOWN: 2}, ["one"])
