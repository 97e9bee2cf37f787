"""From rows on disk to triplets, in memory and on disk."""

import gzip
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from coala_core.config import SplitConfig, TripletsConfig
from coala_core.sources import Fault
from coala_core.splits import SPLITS, assign_split, split_table
from coala_core.triplets import TRIPLET_SCHEMA, TextsDigest, build_triplets, columns, write_triplets
from coala_core.triplets.measures import Measures

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data sets at {SHARED}")


def write(tmp_path, *rows, **changes):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TripletsConfig(conversations=str(path), **changes)


def dialogue(name, *replies):
    turns = [text for number, reply in enumerate(replies, start=1) for text in (f"U{number}", reply)]
    return {"id": name, "history": turns}


IDENTICAL = (dialogue("x", "same", " same\n", "other"), dialogue("y", "same", "same"))


def test_identical_replies_are_kept_and_counted(tmp_path):
    result = build_triplets(write(tmp_path, *IDENTICAL, {"id": "z", "prompt": "p", "chosen": "a", "rejected": "a"}))
    assert result.table["pair_id"].to_pylist() == ["x#1", "x#2", "y#1", "z#1"]
    assert (result.report["identical_pairs"], result.report["pairs_rejected"], len(result.rejects)) == (3, 0, 0)


def test_identical_replies_can_be_rejected_and_the_rest_keep_their_numbers(tmp_path):
    result = build_triplets(write(tmp_path, *IDENTICAL, identical_pairs="reject"))
    assert result.table["pair_id"].to_pylist() == ["x#2"]
    assert [(r.source, r.row, r.fault, r.reason, r.excerpt, r.pair_only) for r in result.rejects] == [
        ("rows.jsonl", 1, Fault.EQUAL_REPLIES, "replies 1 and 2 of row 1 are the same text", "same", True),
        ("rows.jsonl", 2, Fault.EQUAL_REPLIES, "replies 1 and 2 of row 2 are the same text", "same", True),
    ]
    report = result.report
    assert (report["rows_in"], report["rows_used"], report["rows_rejected"], report["pairs_rejected"]) == (2, 1, 1, 2)


NEAR = (dialogue("x", "one two three four", "two three four five", "another text", "Another  text"),)


@pytest.mark.parametrize(
    ("near_duplicates", "kept"),
    [(None, ["x#1", "x#2", "x#3"]), (1.0, ["x#1", "x#2"]), (0.34, ["x#1", "x#2"]), (1 / 3, ["x#2"])],
)
def test_replies_that_are_too_similar_are_rejected(tmp_path, near_duplicates, kept):
    # similarities: one run of three words out of three; no word in common; equal but for case and whitespace
    result = build_triplets(write(tmp_path, *NEAR, near_duplicates=near_duplicates))
    assert result.table["pair_id"].to_pylist() == kept
    left_out = 3 - len(kept)
    assert [reject.fault for reject in result.rejects] == [Fault.NEAR_DUPLICATE] * left_out
    assert all(reject.pair_only for reject in result.rejects)
    assert result.report["near_duplicate_pairs"] == result.report["pairs_rejected"] == left_out
    assert result.report["rejected_by_reason"] == ({"near-duplicate replies": left_out} if left_out else {})
    assert (result.report["rows_used"], result.report["replies_mean"]) == (1, 4)


def test_the_reason_names_replies_similarity_and_limit(tmp_path):
    (reject,) = build_triplets(write(tmp_path, *NEAR, near_duplicates=0.5)).rejects
    assert reject.reason == "replies 3 and 4 of row 1 have similarity 1.000, near_duplicates=0.5 or above"


def test_identical_replies_are_near_duplicates_unless_rejected_before(tmp_path):
    good = dialogue("z", "this", "that")
    kept = build_triplets(write(tmp_path, *IDENTICAL, good, near_duplicates=1.0))
    assert [reject.fault for reject in kept.rejects] == [Fault.NEAR_DUPLICATE] * 2
    both = build_triplets(write(tmp_path, *IDENTICAL, good, near_duplicates=1.0, identical_pairs="reject"))
    assert [reject.fault for reject in both.rejects] == [Fault.EQUAL_REPLIES] * 2
    assert kept.report["identical_pairs"] == both.report["identical_pairs"] == 2


def test_a_ready_pair_can_be_a_near_duplicate(tmp_path):
    rows = [
        {"id": name, "prompt": "p", "chosen": "A b", "rejected": other} for name, other in (("x", "a B"), ("y", "c"))
    ]
    result = build_triplets(write(tmp_path, *rows, near_duplicates=1.0))
    assert result.table["pair_id"].to_pylist() == ["y#1"]
    assert (result.report["rows_used"], result.report["rows_rejected"]) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["x#1", "x#2", "x#3"]),
        ({"pairs": "all_later"}, ["x#1", "x#1-3", "x#1-4", "x#2", "x#2-4", "x#3"]),
        ({"pairs": "window"}, ["x#1", "x#1-3", "x#2", "x#2-4", "x#3"]),
        ({"pairs": "window", "window": 1}, ["x#1", "x#2", "x#3"]),
    ],
)
def test_the_configuration_chooses_the_pairs(tmp_path, settings, expected):
    config = write(tmp_path, dialogue("x", "A1", "A2", "A3", "A4"), dialogue("y", "B1", "B2"), **settings)
    result = build_triplets(config)
    assert result.table["pair_id"].to_pylist() == [*expected, "y#1"]
    assert result.report["replies_mean"] == 3


def test_table_and_report_of_a_small_file(tmp_path):
    config = write(
        tmp_path,
        {"id": "x", "history": ["U1", "longer reply", "U2", "brief", "U3", "longest reply"]},
        {"text": "nothing"},
        {"id": "y", "prompt": "Q?", "chosen": "yes", "rejected": "nay"},
    )
    result = build_triplets(config)
    assert result.table.schema == TRIPLET_SCHEMA
    assert result.table["pair_id"].to_pylist() == ["x#1", "x#2", "y#1"]
    assert result.table["turn"].to_pylist() == [1, 2, 1]
    assert result.table.to_pylist()[1] == {
        "conversation_id": "x",
        "pair_id": "x#2",
        "group": "x",
        "turn": 2,
        "prompt": [
            {"role": "user", "content": "U1"},
            {"role": "assistant", "content": "longer reply"},
            {"role": "user", "content": "U2"},
        ],
        "chosen": [{"role": "assistant", "content": "brief"}],
        "rejected": [{"role": "assistant", "content": "longest reply"}],
    }
    assert result.report == {
        "rows_in": 3,
        "rows_used": 2,
        "rows_rejected": 1,
        "identical_pairs": 0,
        "near_duplicate_pairs": 0,
        "pairs_rejected": 0,
        "rejected_by_reason": {"unknown layout": 1},
        "layouts": {"history": 1, "preference, standard explicit": 1},
        "conversations": 2,
        "triplets": 3,
        "replies_mean": 3.0,  # of the one dialogue
        "chosen_longer_share": pytest.approx(1 / 3),  # 12 > 5, 5 < 13, 3 = 3
        "prompt_characters_mean": pytest.approx((2 + 16 + 2) / 3),
        "chosen_characters_mean": pytest.approx((12 + 5 + 3) / 3),
        "rejected_characters_mean": pytest.approx((5 + 13 + 3) / 3),
    }


def test_many_rows_keep_their_order_over_blocks_and_report_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_ROWS", 700)
    rows = [dialogue(str(at), f"A{at}", f"B{at}") for at in range(2500)]
    heard = []
    result = build_triplets(write(tmp_path, *rows), progress=lambda *event: heard.append(event))
    assert result.table["pair_id"].to_pylist() == [f"{at}#1" for at in range(2500)]
    assert heard == [(1000, 1000, "rows"), (2000, 2000, "rows"), (2500, 2500, "rows")]


def written(config, folder, name="made"):
    """Write to files, and give back the table, the rejects, the report and the paths."""
    triplets, rejects = folder / f"{name}.parquet", folder / f"{name}.jsonl"
    report = write_triplets(config, triplets, rejects)
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    return pq.read_table(triplets), lines, report, (triplets, rejects)


def test_files_hold_what_memory_holds_in_bounded_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_ROWS", 7)
    rows = [dialogue(f"c{at}", *(f"A{at} {n}é" * (1 + at % 3) for n in range(2 + at % 5))) for at in range(40)]
    config = write(tmp_path, *rows, {"text": "nothing"}, *IDENTICAL, "no object", identical_pairs="reject")
    built = build_triplets(config)
    table, lines, report, (path, _) = written(config, tmp_path)
    assert table.equals(built.table)
    assert lines == [asdict(reject) for reject in built.rejects]
    texts = TextsDigest()
    texts.update(built.table.combine_chunks().to_batches()[0])
    assert report == built.report | {"texts_sha256": texts.hexdigest()}
    metadata = pq.ParquetFile(path).metadata
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    full, rest = divmod(table.num_rows, 7)
    assert sizes == [7] * full + [rest] * (rest > 0)


def test_equal_input_gives_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK_ROWS", 16)
    config = write(tmp_path, *(dialogue(f"c{at}", *(f"A{n} {at}" for n in range(5))) for at in range(100)), "no object")
    first, second = (written(config, tmp_path, name)[3] for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("rows", [4, 400])
def test_what_fails_while_writing_reaches_the_caller(tmp_path, monkeypatch, rows):
    class Failing(Measures):
        def add(self, batch):
            raise OSError("no room left")

    monkeypatch.setattr("coala_core.triplets.build.Measures", Failing)
    monkeypatch.setattr(columns, "BLOCK_ROWS", 2)
    config = write(tmp_path, *(dialogue(f"c{at}", "A1", "A2") for at in range(rows)))
    with pytest.raises(OSError, match="no room left"):
        written(config, tmp_path)


def test_a_file_is_repeated_and_read_back(tmp_path):
    config = write(tmp_path, *(dialogue(str(at), "A1", "A2", "A3") for at in range(3)), pairs="all_later")
    first, second = build_triplets(config), build_triplets(config)
    assert first.table.equals(second.table)
    pq.write_table(first.table, tmp_path / "triplets.parquet")
    again = build_triplets(TripletsConfig(conversations=str(tmp_path / "triplets.parquet"))).table
    for name in ("conversation_id", "pair_id", "group", "prompt", "chosen", "rejected"):
        assert again[name].to_pylist() == first.table[name].to_pylist()


@pytest.mark.parametrize("build", [build_triplets, lambda config: written(config, Path(config.conversations).parent)])
def test_input_without_a_pair_is_one_error_with_counts(tmp_path, build):
    config = write(tmp_path, {"text": "a"}, {"text": "b"}, {"history": []})
    with pytest.raises(
        ValueError,
        match=r"rows\.jsonl'\)` needs at least one row that gives a pair, got none of 3 \(2 unknown layout, 1 empty; "
        r"first, row 1 of rows\.jsonl: the fields fit no known layout: `text`\); bring the rows into one of the",
    ):
        build(config)
    with pytest.raises(ValueError, match="got a file without rows; name a file with conversations"):
        build(write(tmp_path))
    with pytest.raises(FileNotFoundError, match="must name an existing file"):
        build(TripletsConfig(conversations=str(tmp_path / "absent.jsonl")))


@pytest.mark.parametrize("build", [build_triplets, lambda config: written(config, Path(config.conversations).parent)])
def test_colliding_pair_ids_are_refused(tmp_path, monkeypatch, build):
    monkeypatch.setattr(columns, "BLOCK_ROWS", 1)
    ready = {"conversation_id": "z", "pair_id": "x#1", "prompt": "p", "chosen": "a", "rejected": "b"}
    config = write(tmp_path, dialogue("x", "A1", "A2"), ready)
    with pytest.raises(ValueError, match="needs a pair_id to name one triplet, got several for 'x#1'; rename"):
        build(config)


@st.composite
def sets_of_conversations(draw):
    """Conversations without a text in common, among them one of each split, in a drawn order."""
    numbers = list(range(draw(st.integers(20, 40))))
    counts = {number: draw(st.integers(2, 6)) for number in numbers}
    rows = [
        {"id": f"c{n}", "history": [f"{side}{n}-{at}" for at in range(counts[n]) for side in "UA"]} for n in numbers
    ]
    return draw(st.permutations(rows))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=sets_of_conversations(),
    pairs=st.sampled_from(["adjacent", "all_later", "window"]),
    history=st.sampled_from(["full", "turn"]),
    seed=st.integers(0, 99),
)
def test_no_text_leaks_across_splits_of_conversations_without_shared_texts(tmp_path, rows, pairs, history, seed):
    config = SplitConfig(train=0.5, validation=0.25, seed=seed)
    assume({assign_split(row["id"], config) for row in rows} == set(SPLITS))
    table = build_triplets(write(tmp_path, *rows, pairs=pairs, history=history)).table
    numbers = {row["id"]: at for at, row in enumerate(rows)}
    places = [numbers[name] for name in table["conversation_id"].to_pylist()]
    assert places == sorted(places), "triplets are in file order"
    split, report = split_table(table, config)
    assert {count for shared in report["shared_texts"].values() for count in shared.values()} == {0}
    homes = {}
    for row, home in zip(table.to_pylist(), split["split"].to_pylist(), strict=True):
        texts = [message["content"] for name in ("prompt", "chosen", "rejected") for message in row[name]]
        assert all(homes.setdefault(text, home) == home for text in texts)


@needs_shared_data
@pytest.mark.slow
def test_book2dial_gives_4440_windows_over_889_conversations():
    result = build_triplets(TripletsConfig(conversations=str(SHARED / "book2dial" / "*.jsonl.gz"), group_by="title"))
    report = result.report
    assert (report["conversations"], report["rows_rejected"], result.rejects) == (889, 0, ())
    # 5,329 replies in 889 conversations; a plain comparison of neighbours finds one answer twice 92 times
    assert report["triplets"] == 5329 - 889 == 4440
    assert report["identical_pairs"] == 92
    assert len(result.table["group"].unique()) == 240  # chapter titles


@needs_shared_data
@pytest.mark.slow
@pytest.mark.parametrize("pairs", ["all_later", "window"])
def test_the_variants_of_book2dial_follow_the_formula(pairs):
    replies = []
    for path in sorted((SHARED / "book2dial").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            replies += [len(json.loads(line)["history"]) // 2 for line in lines]
    expected = sum(
        r * (r - 1) // 2 if pairs == "all_later" else sum(min(2, r - i) for i in range(1, r)) for r in replies
    )
    config = TripletsConfig(conversations=str(SHARED / "book2dial" / "*.jsonl.gz"), pairs=pairs)
    assert build_triplets(config).report["triplets"] == expected


@needs_shared_data
@pytest.mark.slow
def test_near_duplicates_of_book2dial_hold_every_identical_pair():
    config = TripletsConfig(conversations=str(SHARED / "book2dial" / "*.jsonl.gz"), near_duplicates=0.8)
    report = build_triplets(config).report
    assert report["near_duplicate_pairs"] >= report["identical_pairs"] == 92
    assert report["triplets"] == 4440 - report["near_duplicate_pairs"]
    assert report["rejected_by_reason"] == {"near-duplicate replies": report["near_duplicate_pairs"]}


@needs_shared_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "rows", "pairs", "identical"),
    [
        ("ultrafeedback_subset/*_clean.jsonl.gz", 1000 + 200, 1200, 4 + 1),
        ("bridge/*.json.gz", 700, 700, 0),
        ("imdb/*.jsonl.gz", 50_000, 50_000 // 2, 0),  # a good and a bad review make a pair
    ],
)
def test_no_row_of_the_other_sets_is_lost(files, rows, pairs, identical):
    report = build_triplets(TripletsConfig(conversations=str(SHARED / files))).report
    assert (report["rows_in"], report["rows_used"], report["rows_rejected"]) == (rows, rows, 0)
    assert (report["triplets"], report["identical_pairs"], report["rejected_by_reason"]) == (pairs, identical, {})


MEMORY = """
import json, sys
from pathlib import Path
from coala_core.config import TripletsConfig
from coala_core.triplets import write_triplets
from tests.bench.memory import peak_mib
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
before = peak_mib()
config = TripletsConfig(conversations=str(source))
report = write_triplets(config, folder / "triplets.parquet", folder / "rejects.jsonl")
print(json.dumps({"before": before, "peak": peak_mib(), "rejected": report["rows_rejected"]}))
"""


@pytest.mark.slow
def test_bad_rows_do_not_fill_the_memory(tmp_path):
    path, bad = tmp_path / "rows.jsonl", 200_000
    with path.open("w", encoding="utf-8") as lines:
        lines.write(json.dumps(dialogue("good", "A1", "A2")) + "\n")
        lines.writelines(f'{{"number": {number}, "text": "{"no layout " * 20}"}}\n' for number in range(bad))
    command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    found = json.loads(result.stdout)
    assert found["rejected"] == bad
    with (tmp_path / "rejects.jsonl").open(encoding="utf-8") as lines:
        assert sum(1 for _ in lines) == bad
    # Excerpts of 200 characters and reasons of 50 are 48 MiB, as objects over 100; reading and writing take some 45.
    assert found["peak"] - found["before"] < 90


BENCH = """
import sys
from pathlib import Path
from tests.bench.data import write_conversations
write_conversations(Path(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts(tmp_path):
    """From JSON lines to split triplets, measured in fresh processes."""

    def fresh(*arguments):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]).stdout

    peaks = {}
    for count in (20_000, 80_000):
        path, store = tmp_path / f"{count}.jsonl", tmp_path / f"store-{count}"
        fresh("-c", BENCH, path, count)
        found = json.loads(fresh("-m", "tests.bench.data", "--measure", path, store))
        assert (found["conversations"], found["rows_rejected"]) == (count, 0)
        peaks[count] = found["peak_mib"]
    # 60,000 more have 140 MB of texts in their triplets, once; of ids and hashes, below 1 KB for each is kept.
    assert peaks[80_000] - peaks[20_000] < 60
