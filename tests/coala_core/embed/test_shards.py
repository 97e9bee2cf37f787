"""Shards hold every missing pair once, keep conversations whole, and stay where they are when work is interrupted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.embed.shards import PlannedShard, TextReader, Texts, plan_shards, scan_texts
from coala_core.feature_cache.notes import pair_key, shard_name

SPACE, COLUMNS = "0" * 16, ["layer2_mean"]

# (opening, text) of each pair: equal ones are pairs of equal texts, and openings may come back later.
FILES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=60)


def texts_of(pairs: list[tuple[int, int]]) -> Texts:
    """What scanning a file of these pairs gives."""
    numbers: dict[int, int] = {}
    openings = [numbers.setdefault(opening, len(numbers)) for opening, _ in pairs]
    return Texts([f"p{i}" for i in range(len(pairs))], [f"{opening}.{text}" for opening, text in pairs], openings)


def plan(texts: Texts, missing: set[str], limit: int) -> list[PlannedShard]:
    return plan_shards(texts, missing, SPACE, COLUMNS, limit)


@given(FILES, st.integers(1, 8), st.data())
def test_every_missing_pair_is_in_one_shard_and_nothing_else_is(
    pairs: list[tuple[int, int]], limit: int, data: st.DataObject
) -> None:
    texts = texts_of(pairs)
    missing = data.draw(st.sets(st.sampled_from(texts.keys)))
    shards = plan(texts, missing, limit)
    assert Counter(key for shard in shards for key in shard.keys) == Counter(missing)
    assert all(1 <= len(shard.keys) <= limit for shard in shards)
    assert all(shard.name == shard_name(SPACE, COLUMNS, shard.keys) for shard in shards)
    # Of pairs with equal texts the first stands for all.
    assert all(shard.rows == tuple(map(texts.keys.index, shard.keys)) for shard in shards)


@given(FILES, st.integers(1, 8), st.data())
def test_pairs_of_one_opening_stay_together_where_a_shard_can_hold_them(
    pairs: list[tuple[int, int]], limit: int, data: st.DataObject
) -> None:
    texts = texts_of(pairs)
    missing = data.draw(st.sets(st.sampled_from(texts.keys)))
    homes = {key: shard.name for shard in plan(texts, missing, limit) for key in shard.keys}
    for opening, size in Counter(key.split(".")[0] for key in set(texts.keys)).items():
        used = {home for key, home in homes.items() if key.split(".")[0] == opening}
        assert len(used) <= 1 or size > limit


@given(FILES, st.integers(1, 8), st.data())
def test_an_interrupted_run_plans_the_shards_that_are_left(
    pairs: list[tuple[int, int]], limit: int, data: st.DataObject
) -> None:
    texts = texts_of(pairs)
    planned = plan(texts, set(texts.keys), limit)
    done = data.draw(st.sets(st.sampled_from(planned)))
    missing = set(texts.keys) - {key for shard in done for key in shard.keys}
    assert plan(texts, missing, limit) == [shard for shard in planned if shard not in done]


@given(FILES, st.integers(1, 8), st.data())
def test_so_does_one_that_continues_an_older_cache_and_works_in_order(
    pairs: list[tuple[int, int]], limit: int, data: st.DataObject
) -> None:
    texts = texts_of(pairs)
    missing = data.draw(st.sets(st.sampled_from(texts.keys)))
    planned = plan(texts, missing, limit)
    done = data.draw(st.integers(0, len(planned)))
    left = missing - {key for shard in planned[:done] for key in shard.keys}
    assert plan(texts, left, limit) == planned[done:]


def test_shards_follow_the_order_in_which_openings_appear() -> None:
    # Openings 7 and 3 hold two and three pairs, 9 one; shards of three take {7, 7}, {3, 3, 3} and {9}.
    texts = texts_of([(7, 0), (3, 0), (7, 1), (3, 1), (9, 0), (3, 2)])
    assert [shard.rows for shard in plan(texts, set(texts.keys), 3)] == [(0, 2), (1, 3, 5), (4,)]
    # An opening of five in shards of two is divided, and what is left of it shares a shard with the next.
    texts = texts_of([(1, i) for i in range(5)] + [(2, 0)])
    assert [shard.rows for shard in plan(texts, set(texts.keys), 2)] == [(0, 1), (2, 3), (4, 5)]


def test_other_columns_or_another_space_give_other_names_to_the_same_shards() -> None:
    texts = texts_of([(1, 0), (2, 0)])
    (one,), (other,), (third,) = (
        plan_shards(texts, set(texts.keys), space, columns, 9)
        for space, columns in [(SPACE, COLUMNS), (SPACE, ["layer3_mean"]), ("1" * 16, COLUMNS)]
    )
    assert one.keys == other.keys == third.keys
    assert len({one.name, other.name, third.name}) == 3


def row(number: int, turns: list[tuple[str, str]], chosen: str = "Yes.", rejected: str = "No.") -> dict[str, Any]:
    return {
        "pair_id": f"p{number}",
        "group": "g",
        "prompt": [{"role": role, "content": content} for role, content in turns],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def write(path: Path, rows: list[dict[str, Any]], row_group_size: int = 4096) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def test_a_scan_gives_ids_keys_and_openings(tmp_path: Path) -> None:
    first = [("system", "Be kind."), ("user", "Why?")]
    rows = [
        row(0, first),
        row(1, [*first, ("assistant", "Because."), ("user", "And?")]),
        row(2, [("user", "Why?")]),
        row(3, first, rejected="Other."),
        row(4, first),
    ]
    texts = scan_texts(write(tmp_path / "t.parquet", rows))
    assert texts.pair_ids == ["p0", "p1", "p2", "p3", "p4"]
    assert texts.keys == [pair_key(r["prompt"], "Yes.", r["rejected"][0]["content"]) for r in rows]
    assert texts.keys[4] == texts.keys[0] and len(set(texts.keys)) == 4
    # The system's turn and the student's first make an opening; without the system's it is another one.
    assert texts.openings == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("row_group_size", [1, 700, 5000])
def test_a_scan_of_several_row_groups_is_that_of_one(tmp_path: Path, row_group_size: int) -> None:
    rows = [
        row(i, [("user", f"Question {i % 3}?")], chosen=f"Answer {i}.")
        for i in range(1500 if row_group_size > 1 else 9)
    ]
    texts = scan_texts(write(tmp_path / "t.parquet", rows, row_group_size))
    assert texts.pair_ids == [r["pair_id"] for r in rows]
    assert texts.openings == [i % 3 for i in range(len(rows))]
    assert len(set(texts.keys)) == len(rows)


@given(rows=st.lists(st.integers(0, 22), min_size=1, max_size=40))
def test_rows_are_read_in_any_order_from_any_row_group(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "twenty-three.parquet"
    if not path.exists():
        write(path, [row(i, [("user", f"{i}?")] * (1 + i % 3)) for i in range(23)], row_group_size=5)
    reader = TextReader(path)
    expected = pq.read_table(path, columns=["pair_id", "prompt", "chosen", "rejected"]).to_pylist()
    for wanted in (rows, rows[::-1]):  # the same reader again, which still holds a row group
        assert reader.take(wanted).to_pylist() == [expected[i] for i in wanted]
    reader.close()


def test_rows_that_go_to_and_fro_read_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = TextReader(write(tmp_path / "t.parquet", [row(i, [("user", "?")]) for i in range(8)], row_group_size=4))
    read: list[int] = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda file, i, **more: (read.append(i), original(file, i, **more))[1]
    )
    assert reader.take([0, 7, 1, 6, 2])["pair_id"].to_pylist() == ["p0", "p7", "p1", "p6", "p2"]
    assert reader.take([5])["pair_id"].to_pylist() == ["p5"]
    assert read == [0, 1]
