"""Three artifacts joined by pair id: the order of rows anywhere must not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from coala_core.feature_table import feature_table, rows_table, write_feature_table, write_rows_table
from coala_core.features import read_pairs, stack_rows
from coala_core.pairs import PairFeatures
from coala_core.splits import SPLIT_SCHEMA, SPLITS
from coala_core.triplets import TRIPLET_SCHEMA

COUNT, WIDTH = 12, 3
IDS = [f"pair-{i:02d}" for i in range(COUNT)]
HOME = {name: SPLITS[i % 3] for i, name in enumerate(IDS)}
CHOSEN = {name: np.float32([i, i + 0.25, -i]) for i, name in enumerate(IDS)}
REJECTED = {name: np.float32([-100 - i, 0.5, i]) for i, name in enumerate(IDS)}


def write_folders(root: Path, seed: int, embedded: list[str] = IDS, home: dict[str, str] = HOME) -> list[Path]:
    """The artifacts' Parquet files, each in its own shuffled order, the features in shards of five pairs."""
    rng = np.random.default_rng(seed)
    embed, split, triplets = folders = [root / name for name in ("embed", "split", "triplets")]
    for folder in folders:
        folder.mkdir(parents=True)
    order = [str(name) for name in rng.permutation(embedded)]
    for start in range(0, len(order), 5):
        ids = order[start : start + 5]
        sides = {"chosen": np.stack([CHOSEN[i] for i in ids]), "rejected": np.stack([REJECTED[i] for i in ids])}
        columns = {f"{side}_layer{layer}_last": layer * sides[side] for layer in (1, 7) for side in sides}
        write_feature_table(feature_table(ids, columns), embed / f"s{start // 5}.parquet")
    places = [int(place) for place in rng.permutation(len(order))]
    found = rows_table([order[i] for i in places], [f"s{i // 5}" for i in places], [i % 5 for i in places])
    write_rows_table(found, embed / "rows.parquet")
    rows = [{"pair_id": i, "group": f"group of {i}", "split": home[i]} for i in map(str, rng.permutation(list(home)))]
    pq.write_table(pa.Table.from_pylist(rows, schema=SPLIT_SCHEMA), split / "split.parquet")
    triplet_rows = [triplet_row(str(i)) for i in rng.permutation(list(home))]
    pq.write_table(pa.Table.from_pylist(triplet_rows, schema=TRIPLET_SCHEMA), triplets / "triplets.parquet")
    return folders


def triplet_row(name: str) -> dict[str, object]:
    """A triplet whose replies are as long as its number says: chosen n + 1, rejected 2 n + 1 characters."""
    number = int(name.removeprefix("pair-"))
    return {
        "conversation_id": name,
        "pair_id": name,
        "group": f"group of {name}",
        "turn": 1,
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "c" * (number + 1)}],
        "rejected": [{"role": "assistant", "content": "é" * (2 * number + 1)}],
    }


@pytest.mark.parametrize("seed", range(4))
def test_every_id_gets_its_own_features_group_and_lengths_whatever_the_orders(tmp_path: Path, seed: int) -> None:
    pairs = read_pairs(*write_folders(tmp_path, seed), 7, "last")
    assert list(pairs) == ["train", "validation", "test"]
    for name, features in pairs.items():
        assert sorted(features.pair_ids) == [pair for pair in IDS if HOME[pair] == name]
        assert features.groups == [f"group of {pair}" for pair in features.pair_ids]
        for row, pair in enumerate(features.pair_ids):
            number = int(pair.removeprefix("pair-"))
            assert_array_equal(features.chosen[row], 7 * CHOSEN[pair])
            assert_array_equal(features.rejected[row], 7 * REJECTED[pair])
            assert (features.chosen_length[row], features.rejected_length[row]) == (number + 1, 2 * number + 1)


def test_the_rows_to_fit_do_not_depend_on_any_order(tmp_path: Path) -> None:
    folders = [write_folders(tmp_path / str(seed), seed) for seed in (0, 1)]
    first, second = (stack_rows(read_pairs(*three, 1, "last")["train"]) for three in folders)
    assert_array_equal(first[0], second[0])
    assert_array_equal(first[1], second[1])


def test_chosen_responses_come_first_by_id_with_plus_one() -> None:
    pairs = PairFeatures(
        pair_ids=["b", "a"],
        groups=["g", "h"],
        chosen=np.float32([[2], [1]]),
        rejected=np.float32([[20], [10]]),
        chosen_length=np.array([1, 1]),
        rejected_length=np.array([1, 1]),
    )
    features, labels = stack_rows(pairs)
    assert_array_equal(features, [[1], [2], [10], [20]])
    assert_array_equal(labels, [1, 1, -1, -1])
    assert features.dtype == labels.dtype == np.float32


@pytest.mark.parametrize("lacking", ["embed", "split"])
def test_other_pairs_are_refused_with_an_example(tmp_path: Path, lacking: str) -> None:
    if lacking == "embed":
        folders = write_folders(tmp_path, 0, embedded=IDS[:-1])
    else:
        folders = write_folders(tmp_path, 0, home={name: HOME[name] for name in IDS[:-1]})
    counts = "11 and 12" if lacking == "embed" else "12 and 11"
    with pytest.raises(ValueError, match=f"got {counts} pairs that differ in 1, such as 'pair-11'; run both stages"):
        read_pairs(*folders, 1, "last")


def test_a_leaking_split_is_refused(tmp_path: Path) -> None:
    embed, split, triplets = write_folders(tmp_path, 0)
    rows = [{"pair_id": name, "group": "one for all", "split": HOME[name]} for name in IDS]
    pq.write_table(pa.Table.from_pylist(rows, schema=SPLIT_SCHEMA), split / "split.parquet")
    with pytest.raises(ValueError, match="every group in one split, got 1 in several, first 'one for all'"):
        read_pairs(embed, split, triplets, 1, "last")
