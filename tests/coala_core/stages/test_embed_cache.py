"""What the cache has is not computed again, and what is damaged in it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coala_core.config import EmbedConfig
from coala_core.embed import shard_worker
from coala_core.embed.embed_pairs import embed_pairs
from coala_core.embed.language_model import LanguageModel
from coala_core.feature_cache import FeatureCache
from coala_core.stages import embed
from coala_core.storage import Artifact, Damaged, Store
from tests.embedding import features, flip, pair_ids, same, settings, shards, tell, told_ids

Run = Callable[..., Artifact]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the pairs that a language model embeds from now on."""
    seen: list[str] = []

    def spy(pairs: Sequence[Any], *more: Any) -> Any:
        seen.extend(pair.pair_id for pair in pairs)
        return embed_pairs(pairs, *more)

    monkeypatch.setattr(shard_worker, "embed_pairs", spy)
    monkeypatch.setattr(shard_worker, "matmul_rate", lambda model: 1e9)
    return seen


@pytest.fixture
def config(tmp_path: Path, tiny_models: dict[str, Path]) -> EmbedConfig:
    return settings(tiny_models["llama"], cache=str(tmp_path / "features"))


@pytest.fixture
def run(tmp_path: Path, config: EmbedConfig) -> Run:
    """Embed in a store, by name, with the cache that all stores share, after some changes of the settings."""

    def embedded(store: str, told: Artifact, **changes: Any) -> Artifact:
        return embed.run(Store(tmp_path / store), config.model_copy(update=changes), told)

    return embedded


def shard_files(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("features/*/shard-*.parquet"))


def test_another_store_computes_nothing(
    tmp_path: Path, run: Run, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tell(tmp_path, range(4))
    one = run("one", told)
    assert set(computed) == pair_ids(range(4)) and len(computed) == 12
    monkeypatch.setattr(LanguageModel, "_forward", None)  # any forward pass would fail
    two = run("two", told)
    assert len(computed) == 12
    assert two.sha256 == one.sha256
    assert same(features(one), features(two))
    assert two.timing["performance"] == {"computed_tokens": 0}


def test_shards_are_links_and_take_no_place_twice(tmp_path: Path, run: Run, computed: list[str]) -> None:
    told = tell(tmp_path, range(4))
    folders = [run(name, told).path for name in ("one", "two")]
    for file in shard_files(tmp_path):
        assert file.stat().st_nlink == 3
        assert all((folder / file.name).samefile(file) for folder in folders)


def test_other_groups_names_and_orders_compute_nothing(tmp_path: Path, run: Run, computed: list[str]) -> None:
    one = run("one", tell(tmp_path, range(4)))
    del computed[:]
    assert run("one", tell(tmp_path, range(4), name="renamed", group_by="topic")).sha256 == one.sha256
    turned = tell(tmp_path, [2, 0, 3, 1], name="turned")
    again = run("one", turned)
    assert computed == [] and again.key != one.key
    assert list(features(again)) == told_ids(turned)
    assert same(features(one), features(again))


@pytest.mark.parametrize(
    "numbers", [[0, 1, 2, 3, 10, 11, 12], [10, 11, 12, 0, 1, 2, 3], [0, 10, 1, 2, 11, 12, 3]], ids=str
)
@pytest.mark.parametrize("shard_rows", [64, 6, 2])
def test_only_new_conversations_are_computed(
    tmp_path: Path, run: Run, computed: list[str], numbers: list[int], shard_rows: int
) -> None:
    old = run("one", tell(tmp_path, range(4)), shard_rows=shard_rows)
    alone = run("alone", tell(tmp_path, [10, 11, 12], name="new"), shard_rows=shard_rows, cache=None)
    del computed[:]
    grown = run("one", tell(tmp_path, numbers, name="grown"), shard_rows=shard_rows)
    assert set(computed) == pair_ids([10, 11, 12]) and len(computed) == 9
    assert same(features(old), features(grown))
    work, reference = (artifact.timing["performance"] for artifact in (grown, alone))
    # Tokens that one sequence at a time would compute: those of the new conversations, whatever the shards.
    assert work["computed_tokens"] / work["computed_share"] == pytest.approx(alone.report["shard_tokens"])
    if shard_rows == 64:  # then the new conversations are in one shard, the same as without the old ones
        assert work["computed_tokens"] == reference["computed_tokens"]
        assert same(features(alone), features(grown))


def test_a_conversation_that_goes_on_computes_its_new_pairs_only(
    tmp_path: Path, run: Run, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests import embedding, lessons

    told = tell(tmp_path, [0, 1])
    run("one", told)
    longer = lessons.lesson(1)
    longer["utterances"] += [["agent2", "One more?"], ["agent1", "Of course."]]
    monkeypatch.setattr(embedding, "lesson", lambda number: longer if number else lessons.lesson(0))
    del computed[:]
    run("one", tell(tmp_path, [0, 1], name="longer"))
    # Four replies gave three pairs, five give four.
    assert computed == ["lesson-00001#4"]


def test_layers_and_poolings_are_computed_together_and_fewer_compute_nothing(
    tmp_path: Path, run: Run, computed: list[str]
) -> None:
    told = tell(tmp_path, range(2))
    both = run("one", told, layers=(1, 3), poolings=("mean", "last"))
    assert len(computed) == 6
    del computed[:]
    few = run("one", told, layers=(3,), poolings=("last",))
    assert computed == []
    assert shards(few) == shards(both)
    assert same(features(few, 3, "last"), features(both, 3, "last"))
    assert not same(features(both, 1, "last"), features(both, 3, "last"))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"layers": (1, 3)}, "stored without layer1_mean"),
        ({"layers": (3,), "poolings": ("mean", "last")}, "stored without layer3_last"),
        ({"layers": (3,), "max_tokens": 64}, "stored with max_tokens 2048 in place of 64"),
        ({"layers": (3,), "dtype": "bfloat16"}, "stored with dtype float32 in place of bfloat16"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_more_than_is_stored_is_computed_and_the_reason_is_known(
    tmp_path: Path, run: Run, config: EmbedConfig, computed: list[str], more: dict[str, Any], reason: str
) -> None:
    told = tell(tmp_path, range(2))
    store = Store(tmp_path / "one")
    run("one", told, layers=(3,))
    del computed[:]
    told_first = embed.explain(store, config.model_copy(update=more), told)
    assert (told_first.reasons, told_first.finished, computed) == ({reason: 6}, False, [])
    run("one", told, **more)
    assert len(computed) == 6
    afterwards = embed.explain(store, config.model_copy(update=more), told)
    assert (afterwards.to_embed, afterwards.finished, len(computed)) == (0, True, 6)


def test_another_revision_of_the_code_computes_all_anew(
    tmp_path: Path, run: Run, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tell(tmp_path, range(2))
    run("one", told)
    monkeypatch.setattr(embed, "FEATURES_REVISION", embed.FEATURES_REVISION + 1)
    run("two", told)
    assert len(computed) == 12


def harm(file: Path, how: str) -> None:
    """Damage a shard; where the sidecar is harmed, its Parquet file stays whole."""
    if how == "flipped":
        flip(file)
    elif how == "truncated":
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 5)
    elif how == "deleted":
        file.unlink()
    elif how == "sidecar deleted":
        file.with_suffix(".json").unlink()
    else:
        file.with_suffix(".json").write_text('{"name": 1')


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted", "sidecar deleted", "sidecar broken"])
def test_damage_in_the_cache_is_computed_anew_and_nothing_else_is(
    tmp_path: Path, run: Run, computed: list[str], how: str
) -> None:
    told = tell(tmp_path, range(6))
    whole = run("one", told)
    before, sound = shards(whole), features(whole)
    cache = FeatureCache(tmp_path / "features")
    harm(shard_files(tmp_path)[1], how)
    assert len(cache.verify()) == 1
    del computed[:]
    again = run("two", told)
    # Six lessons make three shards of six pairs.
    assert len(computed) == 6
    assert shards(again) == before and again.sha256 == whole.sha256
    assert same(sound, features(again))
    assert cache.verify() == []
    # The first artifact shares the disk with the cache: damage in place hit it as well, and it is made anew.
    assert Store(tmp_path / "one").is_intact("embed", whole.key) is (how not in ("flipped", "truncated"))
    assert run("one", told).sha256 == whole.sha256
    assert len(computed) == 6


def test_a_broken_shard_that_will_not_be_made_again_leaves_the_cache(
    tmp_path: Path, run: Run, computed: list[str]
) -> None:
    run("one", tell(tmp_path, range(4)))
    harm(shard_files(tmp_path)[0], "truncated")
    # With one of the two lessons of each shard, other shards are made.
    run("two", tell(tmp_path, [0, 2], name="few"))
    assert FeatureCache(tmp_path / "features").verify() == []


def test_damage_that_comes_back_is_a_failure_in_one_sentence(
    tmp_path: Path, run: Run, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FeatureCache.write_shard

    def write_badly(cache: FeatureCache, space: str, name: str, *more: Any) -> Any:
        note = write(cache, space, name, *more)
        flip(tmp_path / "features" / space / f"{name}.parquet")
        return note

    monkeypatch.setattr(FeatureCache, "write_shard", write_badly)
    with pytest.raises(Damaged, match=r"shard-\w+\.parquet` must hold the \d+ bytes that its sidecar describes, got"):
        run("one", tell(tmp_path, range(2)))
    assert len(computed) == 3 * 6, "the first attempt and two repairs"


def test_a_cache_that_is_removed_during_the_run_is_a_failure_in_one_sentence(
    tmp_path: Path, run: Run, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureCache, "drop_pairs", lambda cache, url: FeatureCache(tmp_path / "features").remove())
    with pytest.raises(Damaged, match=r"features` must keep the shards of a run until it ends, got none for 6 texts"):
        run("one", tell(tmp_path, range(2)))


def test_a_damaged_file_of_the_artifact_is_restored_without_the_model(
    tmp_path: Path, run: Run, computed: list[str]
) -> None:
    told = tell(tmp_path, range(4))
    made = run("one", told)
    sha256, shard = made.sha256, next(made.path.glob("shard-*.parquet"))
    del computed[:]
    (made.path / "rows.parquet").write_bytes(b"nothing")
    assert run("one", told).sha256 == sha256
    # Written anew, not in place: the cache keeps the old file.
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.unlink()
    shard.write_bytes(content)
    assert run("one", told).sha256 == sha256
    assert computed == []
    # Changed in place, through the link, it is damaged in the cache too.
    flip(shard)
    assert run("one", told).sha256 == sha256
    assert len(computed) == 6


def test_removing_the_cache_does_not_harm_artifacts(tmp_path: Path, run: Run, computed: list[str]) -> None:
    told = tell(tmp_path, range(4))
    made = run("one", told)
    before = features(made)
    assert FeatureCache(tmp_path / "features").remove().shards == 2
    del computed[:]
    assert run("one", told) == made and computed == []
    assert same(before, features(made))
    other = run("two", told)
    assert len(computed) == 12 and other.sha256 == made.sha256


def test_features_are_those_of_a_plain_run_over_all_pairs(tmp_path: Path, run: Run, config: EmbedConfig) -> None:
    told = tell(tmp_path, range(3))
    from coala_core.embed.language_model import load_language_model
    from coala_core.embed.shard_worker import text_pairs
    from coala_core.embed.shards import TextReader

    pairs = text_pairs(TextReader(told.path / "triplets.parquet").take(range(9)))
    plain = embed_pairs(pairs, load_language_model(Path(config.model), config), config).features
    for row, (pair, values) in enumerate(features(run("one", told)).items()):
        assert pair == pairs[row].pair_id
        expected = np.concatenate([plain["chosen_layer2_mean"][row], plain["rejected_layer2_mean"][row]])
        # Another division into batches rounds differently, by a few units in the last of 24 bits.
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
