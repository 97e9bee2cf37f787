import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.config import TripletsConfig
from coala_core.sources import Conversation, Fault, Turn
from coala_core.triplets import TRIPLET_SCHEMA, alternating_triplets, build_triplets

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data sets at {SHARED}")


def conversation(*turns, group="g"):
    roles = {"S": "system", "U": "user", "A": "assistant"}
    return Conversation("c", group, tuple(Turn(roles[text[0]], text) for text in turns), {}, 1, "messages")


def write(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TripletsConfig(conversations=str(path))


def texts(messages):
    return [message["content"] for message in messages]


def test_the_window_slides_over_replies():
    first, second = alternating_triplets(conversation("S", "A0", "U1", "A1", "U2", "A2", "U3", "A3", "U4"))
    assert (first.pair_id, first.turn, first.group, first.conversation_id) == ("c#1", 1, "g", "c")
    assert [turn.text for turn in first.prompt] == ["S", "A0", "U1"]
    assert (first.chosen, first.rejected) == ("A1", "A2")
    assert (second.pair_id, second.turn) == ("c#2", 2)
    assert [turn.text for turn in second.prompt] == ["S", "A0", "U1", "A1", "U2"]
    assert (second.chosen, second.rejected) == ("A2", "A3")


def test_history_turn_keeps_the_system_turn_and_the_students():
    found = alternating_triplets(conversation("S", "U1", "A1", "U2", "A2", "U3", "A3"), history="turn")
    assert [[turn.text for turn in triplet.prompt] for triplet in found] == [["S", "U1"], ["S", "U2"]]
    found = alternating_triplets(conversation("A0", "U1", "A1", "U2", "A2"), history="turn")
    assert [[turn.text for turn in triplet.prompt] for triplet in found] == [["U1"]]


def test_another_history_is_refused():
    with pytest.raises(
        ValueError, match=r'`alternating_triplets\(history=...\)` must be "full" or "turn", got \'last\''
    ):
        alternating_triplets(conversation("U1", "A1", "U2", "A2"), history="last")


@st.composite
def conversations(draw):
    replies = draw(st.integers(0, 12))
    body = [text for at in range(1, replies + 1) for text in (f"U{at}", f"A{at}")]
    system, tutor, student = (draw(st.booleans()) for _ in range(3))
    return replies, conversation(*["S"] * system, *["A0"] * tutor, *body, *["U last"] * student)


@given(conversations(), st.sampled_from(["full", "turn"]))
def test_r_replies_give_r_minus_1_triplets_and_each_reply_serves_on_both_sides(case, history):
    replies, dialogue = case
    found = alternating_triplets(dialogue, history)
    assert len(found) == max(replies - 1, 0)
    assert [triplet.chosen for triplet in found] == [f"A{at}" for at in range(1, replies)]
    assert [triplet.rejected for triplet in found] == [f"A{at}" for at in range(2, replies + 1)]
    assert len({triplet.pair_id for triplet in found}) == len(found)
    for triplet in found:
        assert triplet.prompt[-1] == Turn("user", f"U{triplet.turn}")
        if history == "full":
            assert dialogue.turns[: len(triplet.prompt)] == triplet.prompt
            assert dialogue.turns[len(triplet.prompt)].text == triplet.chosen


IDENTICAL = (
    {"id": "x", "history": ["U1", "same", "U2", " same\n", "U3", "other"]},
    {"id": "y", "history": ["U1", "same", "U2", "same"]},
)


def test_identical_replies_are_kept_and_counted(tmp_path):
    result = build_triplets(write(tmp_path, *IDENTICAL, {"id": "z", "prompt": "p", "chosen": "a", "rejected": "a"}))
    assert result.table["pair_id"].to_pylist() == ["x#1", "x#2", "y#1", "z#1"]
    assert (result.report["identical_pairs"], result.report["pairs_rejected"], len(result.rejects)) == (3, 0, 0)


def test_identical_replies_can_be_rejected_and_the_rest_keep_their_numbers(tmp_path):
    config = write(tmp_path, *IDENTICAL).model_copy(update={"identical_pairs": "reject"})
    result = build_triplets(config)
    assert result.table["pair_id"].to_pylist() == ["x#2"]
    assert [(r.row, r.fault, r.reason, r.pair_only) for r in result.rejects] == [
        (1, Fault.EQUAL_REPLIES, "replies 1 and 2 of row 1 are the same text", True),
        (2, Fault.EQUAL_REPLIES, "replies 1 and 2 of row 2 are the same text", True),
    ]
    report = result.report
    assert (report["rows_in"], report["rows_used"], report["rows_rejected"], report["pairs_rejected"]) == (2, 1, 1, 2)


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


def test_many_rows_keep_their_order_over_batches_and_report_progress(tmp_path):
    rows = ({"id": at, "history": ["U1", f"A{at}", "U2", f"B{at}"]} for at in range(2500))
    heard = []
    result = build_triplets(write(tmp_path, *rows), progress=lambda *event: heard.append(event))
    assert result.table["pair_id"].to_pylist() == [f"{at}#1" for at in range(2500)]
    assert heard == [(at, at, "rows") for at in (1000, 2000, 2500)]


def test_the_stage_repeats_itself_and_reads_its_own_output(tmp_path):
    config = write(tmp_path, *({"id": at, "history": ["U1", "A1", "U2", "A2", "U3", "A3"]} for at in range(3)))
    first, second = build_triplets(config), build_triplets(config)
    assert first.table.equals(second.table)
    pq.write_table(first.table, tmp_path / "triplets.parquet")
    again = build_triplets(TripletsConfig(conversations=str(tmp_path / "triplets.parquet"))).table
    assert not again["group"].null_count
    for name in ("conversation_id", "pair_id", "group", "prompt", "chosen", "rejected"):
        assert again[name].to_pylist() == first.table[name].to_pylist()


def test_a_file_without_a_pair_is_one_error_with_counts(tmp_path):
    config = write(tmp_path, {"text": "a"}, {"text": "b"}, {"history": []})
    with pytest.raises(
        ValueError,
        match=r"rows\.jsonl'\)` needs at least one row that gives a pair, got none of 3 \(2 unknown layout, 1 empty; "
        r"first, row 1: the fields fit no known layout: `text`\); bring the rows into one of the layouts",
    ):
        build_triplets(config)
    with pytest.raises(ValueError, match="got a file without rows; name a file with conversations"):
        build_triplets(write(tmp_path))
    with pytest.raises(FileNotFoundError, match="must name an existing file"):
        build_triplets(TripletsConfig(conversations=str(tmp_path / "absent.jsonl")))


def test_colliding_pair_ids_are_refused(tmp_path):
    ready = {"conversation_id": "z", "pair_id": "x#1", "prompt": "p", "chosen": "a", "rejected": "b"}
    config = write(tmp_path, {"id": "x", "history": ["U1", "A1", "U2", "A2"]}, ready)
    with pytest.raises(ValueError, match="needs a pair_id to name one triplet, got several for 'x#1'; rename"):
        build_triplets(config)


@needs_shared_data
def test_book2dial_gives_4440_windows_over_889_conversations():
    files = [SHARED / "book2dial" / f"{name}.jsonl.gz" for name in ("science", "math", "social", "business")]
    results = [build_triplets(TripletsConfig(conversations=str(file), group_by="title")) for file in files]
    assert sum(result.report["conversations"] for result in results) == 889
    assert sum(result.report["rows_rejected"] for result in results) == 0
    triplets = sum(result.report["triplets"] for result in results)
    # 5,329 replies in 889 conversations; a plain comparison of neighbours finds one answer twice 92 times
    assert triplets == 5329 - 889 == 4440
    assert sum(result.report["identical_pairs"] for result in results) == 92
    assert sum(len(result.table["group"].unique()) for result in results) == 240  # chapter titles


@needs_shared_data
def test_ultrafeedback_gives_1200_rows_less_the_empty_responses():
    files = [SHARED / "ultrafeedback_subset" / f"{name}.jsonl.gz" for name in ("train_clean", "eval_clean")]
    reports = [build_triplets(TripletsConfig(conversations=str(file))).report for file in files]
    assert [report["rows_in"] for report in reports] == [1000, 200]
    assert [report["rejected_by_reason"] for report in reports] == [{"empty": 2}, {}]
    assert [report["identical_pairs"] for report in reports] == [4, 1]
    assert sum(report["triplets"] for report in reports) == 1200 - 2
