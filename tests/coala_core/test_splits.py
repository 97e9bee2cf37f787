import hashlib
import sys
from collections import Counter
from itertools import combinations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.config import SplitConfig
from coala_core.splits import SPLIT_SCHEMA, SPLITS, assign_split, check_leakage, split_file, split_table
from coala_core.triplets import TRIPLET_SCHEMA

groups_of_text = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30)
configs = st.builds(SplitConfig, train=st.sampled_from([0.1, 0.4, 0.7]), seed=st.integers(0, 2**32 - 1))


def triplets(groups, prompts=None, chosen=None, rejected=None):
    def column(role, texts, default):
        texts = texts or [f"{default} {at}" for at in range(len(groups))]
        return [[{"role": role, "content": text}] for text in texts]

    ids = [f"pair {at}" for at in range(len(groups))]
    return pa.table(
        {
            "conversation_id": ids,
            "pair_id": ids,
            "group": groups,
            "turn": [1] * len(groups),
            "prompt": column("user", prompts, "prompt"),
            "chosen": column("assistant", chosen, "chosen"),
            "rejected": column("assistant", rejected, "rejected"),
        },
        schema=TRIPLET_SCHEMA,
    )


def names_in(config, count):
    """One group name of each split, `count` times over."""
    found = {split: [] for split in SPLITS}
    at = 0
    while min(map(len, found.values())) < count:
        found[assign_split(f"g{at}", config)].append(f"g{at}")
        at += 1
    return {split: names[:count] for split, names in found.items()}


@given(st.text(), configs)
def test_assignment_compares_the_hash_with_the_shares(group, config):
    # the exact fraction of the 256-bit hash; rounding moves it by less than 2**-52, far below any chance of a tie
    position = int(hashlib.sha256(f"{config.seed}:{group}".encode()).hexdigest(), 16) / 2**256
    expected = "train" if position < config.train else "test"
    if config.train <= position < config.train + config.validation:
        expected = "validation"
    assert assign_split(group, config) == expected


def test_shares_are_met_on_many_groups():
    config = SplitConfig(train=0.7, validation=0.15)
    counts = Counter(assign_split(f"group {at}", config) for at in range(20_000))
    # binomial standard deviations are at most sqrt(20000 * 0.7 * 0.3) = 65 and sqrt(20000 * 0.15 * 0.85) = 51
    assert abs(counts["train"] - 14_000) < 5 * 65
    assert abs(counts["validation"] - 3_000) < 5 * 51
    assert abs(counts["test"] - 3_000) < 5 * 51


def test_the_seed_moves_groups():
    by_seed = [tuple(assign_split(f"g{at}", SplitConfig(seed=seed)) for at in range(50)) for seed in range(3)]
    assert len(set(by_seed)) == 3


@given(groups_of_text, st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_no_group_straddles_and_neither_order_nor_other_groups_matter(names, seed, random):
    config = SplitConfig(seed=seed)
    every_split = [name for members in names_in(config, 1).values() for name in members]
    rows = [*names, *every_split, *names]
    shuffled = random.sample(rows, len(rows))
    table, report = split_table(triplets(shuffled), config)
    homes = {}
    for group, split in zip(table["group"].to_pylist(), table["split"].to_pylist(), strict=True):
        homes.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert report["groups_straddling"] == 0
    alone, _ = split_table(triplets(every_split), config)
    assert {(g, s) for g, s in zip(*alone.select(["group", "split"]).to_pydict().values(), strict=True)} <= {
        (group, split) for group, splits in homes.items() for split in splits
    }


def test_the_table_follows_the_triplets_and_the_report_counts_it():
    config = SplitConfig()
    names = names_in(config, 2)
    rows = [names["train"][0], names["test"][0], names["train"][0], names["validation"][0], names["train"][1]]
    table, report = split_table(triplets(rows), config)
    assert table.schema == SPLIT_SCHEMA
    assert table["pair_id"].to_pylist() == [f"pair {at}" for at in range(5)]
    assert table["group"].to_pylist() == rows
    assert table["split"].to_pylist() == ["train", "test", "train", "validation", "train"]
    assert report["pairs"] == {"train": 3, "validation": 1, "test": 1}
    assert report["groups"] == {"train": 2, "validation": 1, "test": 1}


def test_shared_texts_are_counted_after_normalising():
    config = SplitConfig()
    names = names_in(config, 1)
    rows = [names["train"][0], names["validation"][0], names["test"][0]]
    table = triplets(
        rows,
        prompts=["Why  is it?", "why is\nit?", "How?"],  # equal in train and validation but for case and whitespace
        chosen=["STRASSE", "b", "c"],
        rejected=["d", "straße", "D "],  # ß folds to ss: train/validation; d: train/test, across the two sides
    )
    assert split_table(table, config).report["shared_texts"] == {
        "prompts": {"train/validation": 1, "train/test": 0, "validation/test": 0},
        "responses": {"train/validation": 1, "train/test": 1, "validation/test": 0},
    }


blanks = st.sampled_from([" ", "  ", "\t", "\n", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\u200b", ""])
spaced = st.lists(blanks | st.sampled_from(["a", "A", "ß", "ss", "é", "\u0301"]), max_size=5).map("".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(spaced, spaced, spaced), min_size=3, max_size=12), st.integers(0, 2), st.data())
def test_shared_texts_are_those_of_plain_sets(rows, seed, data):
    config = SplitConfig(seed=seed)
    members = [names[0] for names in names_in(config, 1).values()]
    groups = members + data.draw(st.lists(st.sampled_from(members), min_size=len(rows) - 3, max_size=len(rows) - 3))
    first = triplets(["a group of none"])  # cut off again, so that the columns begin inside their buffers
    table = pa.concat_tables([first, triplets(groups, *map(list, zip(*rows, strict=True)))]).combine_chunks().slice(1)
    texts = {kind: {split: set() for split in SPLITS} for kind in ("prompts", "responses")}
    for group, (prompt, *responses) in zip(groups, rows, strict=True):
        home = assign_split(group, config)
        texts["prompts"][home].add(" ".join(prompt.casefold().split()))
        texts["responses"][home].update(" ".join(text.casefold().split()) for text in responses)
    assert split_table(table, config).report["shared_texts"] == {
        kind: {f"{a}/{b}": len(sets[a] & sets[b]) for a, b in combinations(SPLITS, 2)} for kind, sets in texts.items()
    }


def test_printable_text_has_no_whitespace_but_the_space():
    # The comparison of texts relies on it, over all of Unicode.
    letters = filter(str.isprintable, map(chr, range(sys.maxunicode + 1)))
    assert [letter for letter in letters if letter.isspace()] == [" "]


def test_a_file_is_split_as_the_table_in_it(tmp_path):
    config, path, heard = SplitConfig(), tmp_path / "triplets.parquet", []
    rows = [name for names in names_in(config, 30).values() for name in names] * 60  # 5,400 rows, over 4,096
    table = triplets(rows, prompts=[f"{at % 50}" for at in range(len(rows))])
    pq.write_table(table, path, row_group_size=500)
    expected = split_table(table, config)
    found = split_file(path, config, lambda *event: heard.append(event))
    assert found.table.equals(expected.table)
    assert found.report == expected.report
    assert expected.report["shared_texts"]["prompts"] == dict.fromkeys(expected.report["shared_texts"]["prompts"], 50)
    done = [event[0] for event in heard]
    assert done == sorted(done)
    assert heard[-1] == (5400, 5400, "pairs")


def test_a_file_that_cannot_be_split_is_refused_by_name(tmp_path):
    path, whole = tmp_path / "some.parquet", triplets(["a", "b"])
    pq.write_table(whole.drop_columns(["group"]), path)
    with pytest.raises(
        ValueError, match=r"`split_file\('.*some\.parquet'\)` needs the columns .*, got none named group"
    ):
        split_file(path, SplitConfig())
    pq.write_table(whole.slice(0, 0), path)
    with pytest.raises(ValueError, match=r"some\.parquet'\)` needs at least one triplet, got 0 rows"):
        split_file(path, SplitConfig())
    pq.write_table(pa.concat_tables([whole, whole]), path)
    with pytest.raises(ValueError, match=r"some\.parquet'\)` needs distinct pair_id values, got 2 repeated"):
        split_file(path, SplitConfig())


def test_only_the_last_message_of_a_prompt_is_compared():
    config = SplitConfig()
    rows = [names[0] for names in names_in(config, 1).values()]
    table = triplets(rows, prompts=["a", "b", "c"])
    longer = [[{"role": "system", "content": "Be kind."}, *messages] for messages in table["prompt"].to_pylist()]
    table = table.set_column(4, TRIPLET_SCHEMA.field("prompt"), pa.array(longer, TRIPLET_SCHEMA.field("prompt").type))
    assert set(split_table(table, config).report["shared_texts"]["prompts"].values()) == {0}


def test_an_empty_split_is_refused_with_a_remedy():
    with pytest.raises(
        ValueError,
        match=r"needs pairs in every split, got none in .* from 1 groups \(train=0\.7.*seed=0\); take another",
    ):
        split_table(triplets(["one", "one"]), SplitConfig())


def test_tables_that_cannot_be_split_are_refused():
    whole = triplets(["a", "b"])
    with pytest.raises(ValueError, match="needs the columns .*, got none named group, chosen; pass the table"):
        split_table(whole.drop_columns(["group", "chosen"]), SplitConfig())
    with pytest.raises(ValueError, match="needs at least one triplet, got 0 rows; build triplets first"):
        split_table(whole.slice(0, 0), SplitConfig())
    with pytest.raises(ValueError, match="needs distinct pair_id values, got 2 repeated"):
        split_table(pa.concat_tables([whole, whole]), SplitConfig())


def test_check_leakage_finds_a_straddling_group_and_a_repeated_pair():
    def table(pairs, groups, splits):
        return pa.table([pairs, groups, splits], schema=SPLIT_SCHEMA)

    check_leakage(table(["1", "2", "3"], ["a", "a", "b"], ["train", "train", "test"]))
    with pytest.raises(ValueError, match="every group in one split, got 1 in several, first 'a'; split again"):
        check_leakage(table(["1", "2", "3"], ["a", "b", "a"], ["train", "train", "test"]))
    with pytest.raises(ValueError, match=r"`check_leakage\(table\)` needs distinct pair_id values, got 1 repeated"):
        check_leakage(table(["1", "1"], ["a", "a"], ["train", "train"]))
