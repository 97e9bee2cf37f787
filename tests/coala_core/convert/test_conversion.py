"""What a conversion writes, keeps, counts and refuses."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coala_core.config import TripletsConfig
from coala_core.convert import PACKED, PAIR_TARGETS, convert
from coala_core.sources import read_conversations
from coala_core.triplets import TRIPLET_SCHEMA, build_triplets
from tests.coala_core.convert.samples import exactly, messages, read_lines, write_lines

TURNS = [("user", "U1"), ("assistant", "A1"), ("user", "U2"), ("assistant", "A2"), ("user", "U3"), ("assistant", "A3")]
CONVERSATION = {"id": "c", "topic": "sums", "messages": messages(TURNS)}
PAIR = {"id": "p", "prompt": "U", "chosen": "good", "rejected": "bad"}


def config(source, **settings):
    return TripletsConfig(conversations=str(source), **settings)


@pytest.fixture
def conversations(tmp_path):
    return write_lines(tmp_path / "conversations.jsonl", [CONVERSATION])


@pytest.fixture
def pairs(tmp_path):
    return write_lines(tmp_path / "pairs.jsonl", [PAIR])


SHAREGPT = {"user": "human", "assistant": "gpt"}
EDUFEEDBACK = {"user": "agent2", "assistant": "agent1"}


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("messages", {"messages": messages(TURNS)}),
        ("sharegpt", {"conversations": [{"from": SHAREGPT[role], "value": text} for role, text in TURNS]}),
        ("edufeedback", {"utterances": [[EDUFEEDBACK[role], text] for role, text in TURNS]}),
        ("history", {"history": [text for _, text in TURNS]}),
    ],
)
def test_dialogue_layouts(tmp_path, conversations, layout, expected):
    report = convert(config(conversations), tmp_path / "out.jsonl", layout)
    assert read_lines(tmp_path / "out.jsonl") == [{"id": "c", "topic": "sums"} | expected]
    assert (report.rows_in, report.rows_used, report.rows_written, report.rejected) == (1, 1, 1, 0)
    assert (report.layouts, report.packed, report.rejects) == ({"messages": 1}, (), None)


ASKED = [("user", "U")]
GOOD, BAD = [("assistant", "good")], [("assistant", "bad")]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("preference-standard", [{"prompt": "U", "chosen": "good", "rejected": "bad"}]),
        (
            "preference-conversational",
            [{"prompt": messages(ASKED), "chosen": messages(GOOD), "rejected": messages(BAD)}],
        ),
        (
            "preference-conversational-implicit",
            [{"chosen": messages(ASKED + GOOD), "rejected": messages(ASKED + BAD)}],
        ),
        (
            "preference-standard-implicit",
            [{"chosen": "\n\nHuman: U\n\nAssistant: good", "rejected": "\n\nHuman: U\n\nAssistant: bad"}],
        ),
        (
            "unpaired",
            [
                {"prompt": messages(ASKED), "completion": messages(GOOD), "label": True},
                {"prompt": messages(ASKED), "completion": messages(BAD), "label": False},
            ],
        ),
        (
            "unpaired-standard",
            [
                {"prompt": "U", "completion": "good", "label": True},
                {"prompt": "U", "completion": "bad", "label": False},
            ],
        ),
    ],
)
def test_pair_layouts(tmp_path, pairs, layout, expected):
    report = convert(config(pairs), tmp_path / "out.jsonl", layout)
    assert read_lines(tmp_path / "out.jsonl") == [{"id": "p"} | row for row in expected]
    assert (report.rows_in, report.rows_used, report.rows_written) == (1, 1, len(expected))


def test_conversations_become_the_pairs_of_the_stage(tmp_path, conversations):
    convert(config(conversations), tmp_path / "out.parquet", "preference-conversational")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    expected = build_triplets(config(conversations)).table.to_pylist()
    assert [{name: row[name] for name in TRIPLET_SCHEMA.names} for row in rows] == expected
    assert [row["id"] + row["topic"] for row in rows] == ["csums"] * 2


def test_settings_of_the_pairs_are_passed_through(tmp_path, conversations):
    settings = {"history": "turn", "pairs": "all_later"}
    report = convert(config(conversations, **settings), tmp_path / "out.jsonl", "preference-standard")
    found = [(row["prompt"], row["chosen"], row["rejected"]) for row in read_lines(tmp_path / "out.jsonl")]
    assert found == [("U1", "A1", "A2"), ("U1", "A1", "A3"), ("U2", "A2", "A3")]
    assert report.rows_written == 3


@pytest.mark.parametrize("settings", [{"near_duplicates": 0.9}, {"identical_pairs": "reject"}])
def test_pairs_that_the_stage_leaves_out_are_rejects(tmp_path, settings):
    alike = [*TURNS[:3], ("assistant", " A1"), *TURNS[4:]]
    source = write_lines(tmp_path / "rows.jsonl", [{"id": "c", "messages": messages(alike)}])
    report = convert(config(source, **settings), tmp_path / "out.jsonl", "preference-conversational")
    (reject,) = read_lines(report.rejects)
    built = build_triplets(config(source, **settings))
    assert report.rejected_by_reason == built.report["rejected_by_reason"]
    assert (reject["pair_only"], reject["row"], reject["excerpt"]) == (True, 1, "A1")
    assert (report.rows_used, report.rows_written) == (1, built.table.num_rows)


def test_our_triplets_become_any_pair_form(tmp_path, conversations):
    table = build_triplets(config(conversations, history="turn")).table
    pq.write_table(table, tmp_path / "triplets.parquet")
    for layout in PAIR_TARGETS:
        convert(config(tmp_path / "triplets.parquet"), tmp_path / "between.jsonl", layout, force=True)
        convert(config(tmp_path / "between.jsonl"), tmp_path / "back.parquet", "preference-conversational", force=True)
        back = pq.read_table(tmp_path / "back.parquet").select(TRIPLET_SCHEMA.names)
        assert back.cast(TRIPLET_SCHEMA).equals(table), layout


def test_a_field_in_the_way_of_the_pairs_is_renamed(tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [CONVERSATION | {"prompt": "Teach.", "turn": "x", "group": "g"}])
    convert(config(source), tmp_path / "out.jsonl", "preference-conversational")
    row = read_lines(tmp_path / "out.jsonl")[0]
    assert (row["row_prompt"], row["row_turn"], row["row_group"]) == ("Teach.", "x", "g")
    assert (row["prompt"], row["turn"], row["group"]) == (messages(TURNS[:1]), 1, "c")


def test_a_field_in_the_way_of_a_dialogue_is_a_reject(tmp_path, conversations):
    source = write_lines(tmp_path / "rows.jsonl", [CONVERSATION | {"history": ["old"]}, CONVERSATION | {"id": "d"}])
    report = convert(config(source), tmp_path / "out.jsonl", "history")
    (reject,) = read_lines(report.rejects)
    assert (reject["row"], reject["fault"]) == (1, "not expressible in the target layout")
    assert reject["reason"] == "its own field `history` has the name of one that the layout needs; rename it"


def test_a_row_that_would_be_read_as_another_layout_is_a_reject(tmp_path):
    rows = [{"id": "a", "utterances": [["agent2", "U"], ["agent1", "A"]] * 2, "messages": messages(TURNS)}]
    source = write_lines(tmp_path / "rows.jsonl", [*rows, {**rows[0], "id": "b", "messages": None}])
    report = convert(config(source), tmp_path / "out.jsonl", "history")
    (reject,) = read_lines(report.rejects)
    assert reject["row"] == 1 and "would be read as messages with other texts" in reject["reason"]


def test_history_holds_no_system_turn_and_no_tutor_first(tmp_path):
    said = [[("system", "S"), *TURNS], [("assistant", "A0"), *TURNS], TURNS]
    source = write_lines(
        tmp_path / "rows.jsonl", [{"id": str(at), "messages": messages(s)} for at, s in enumerate(said)]
    )
    report = convert(config(source), tmp_path / "out.jsonl", "history")
    reasons = [(line["row"], line["reason"]) for line in read_lines(report.rejects)]
    assert reasons == [
        (1, "it begins with a system turn, and `history` begins with the student; choose `messages`"),
        (2, "it begins with the tutor, and `history` begins with the student; choose `messages`"),
    ]
    assert (report.rows_used, report.rows_rejected) == (1, 2)


def test_extras_of_messages_are_carried_by_layouts_of_texts(tmp_path):
    said = messages(TURNS, [{"time": at} for at in range(len(TURNS))])
    source = write_lines(tmp_path / "rows.jsonl", [{"id": "c", "messages": said}])
    convert(config(source), tmp_path / "out.jsonl", "edufeedback")
    assert read_lines(tmp_path / "out.jsonl")[0]["turn_fields"] == [{"time": at} for at in range(len(TURNS))]
    convert(config(tmp_path / "out.jsonl"), tmp_path / "back.jsonl", "messages")
    assert read_lines(tmp_path / "back.jsonl") == [{"id": "c", "messages": said}]
    convert(config(source), tmp_path / "pairs.jsonl", "preference-standard-implicit")
    assert read_lines(tmp_path / "pairs.jsonl")[1]["conversation_turn_fields"] == [{"time": at} for at in range(6)]


def test_scored_responses_keep_what_their_rows_differ_in(tmp_path):
    scored = [
        {"prompt": "U", "response": text, "helpfulness": score, "lang": "en"} for text, score in (("a", 1), ("b", 4))
    ]
    source = write_lines(tmp_path / "rows.jsonl", scored)
    convert(config(source), tmp_path / "out.jsonl", "preference-standard")
    (row,) = read_lines(tmp_path / "out.jsonl")
    assert (row["chosen"], row["rejected"], row["lang"]) == ("b", "a", "en")
    assert (row["chosen_fields"], row["rejected_fields"]) == ({"helpfulness": 4}, {"helpfulness": 1})
    assert read_ids(tmp_path / "out.jsonl") == read_ids(source)


def test_labelled_responses_come_back_from_pairs(tmp_path):
    rows = [
        {"id": name, "prompt": messages([("user", "U")]), "completion": messages([("assistant", text)]), "label": label}
        for name, text, label in (("x", "good", True), ("y", "bad", False))
    ]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    convert(config(source), tmp_path / "pairs.parquet", "preference-conversational")
    convert(config(tmp_path / "pairs.parquet"), tmp_path / "back.jsonl", "unpaired")
    assert exactly(read_lines(tmp_path / "back.jsonl")) == exactly(rows)


def test_reviews_stay_single_responses(tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [{"id": "pos/1", "text": "Fine.", "label": 1, "rating": 9}])
    convert(config(source), tmp_path / "out.jsonl", "unpaired-standard")
    expected = {"prompt": "Write a movie review.", "completion": "Fine.", "label": True, "id": "pos/1", "rating": 9}
    assert read_lines(tmp_path / "out.jsonl") == [expected]


def read_ids(path):
    return [(record.conversation_id, record.pair_id) for record in read_conversations(config(path))]


def test_bridge_keeps_its_ids_and_messages(tmp_path):
    said = [{"id": 7, "user": "student", "text": "Is it 5?", "time": "10:00"}]
    row = {"c_id": "s1_2", "c_h": said, "c_r": [{"user": "tutor", "text": "No."}]}
    source = write_lines(tmp_path / "rows.jsonl", [row | {"c_r_": [{"user": "tutor", "text": "Nearly."}]}])
    convert(config(source), tmp_path / "out.jsonl", "preference-conversational")
    assert read_ids(tmp_path / "out.jsonl") == read_ids(source) == [("s1", "s1_2#rows.jsonl:1")]
    assert read_lines(tmp_path / "out.jsonl")[0]["c_h"] == said


def test_columns_rename_what_a_layout_needs(tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("question,good,bad,level\nU,yes,no,3\n")
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    convert(config(source, columns=columns), tmp_path / "out.jsonl", "preference-standard")
    assert read_lines(tmp_path / "out.jsonl") == [{"level": "3", "prompt": "U", "chosen": "yes", "rejected": "no"}]


def test_formats(tmp_path, pairs):
    pair = {"id": "p", "prompt": "U", "chosen": "good", "rejected": "bad"}
    for form in (".jsonl", ".json", ".csv", ".jsonl.gz", ".parquet"):
        convert(config(pairs), tmp_path / f"out{form}", "preference-standard")
    assert json.loads((tmp_path / "out.json").read_text()) == [pair]
    assert json.loads(gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes())) == pair
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [pair]
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [*csv.DictReader(file)] == [pair]


def test_the_same_input_gives_the_same_bytes(tmp_path, conversations):
    for form in (".jsonl.gz", ".json.zst", ".parquet"):
        names = [tmp_path / f"{name}{form}" for name in "ab"]
        for name in names:
            convert(config(conversations), name, "unpaired")
        assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.parametrize(
    ("value", "form", "reason"),
    [
        ("\ud800", ".jsonl", "one of its fields holds a lone surrogate, which no file can hold as UTF-8"),
        (float("nan"), ".jsonl", "one of its fields holds a number that is not finite; write null instead"),
    ],
)
def test_what_json_cannot_hold_is_a_reject(tmp_path, value, form, reason):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in (CONVERSATION | {"id": "a", "x": value}, CONVERSATION)))
    report = convert(config(source), tmp_path / f"out{form}", "messages")
    (reject,) = read_lines(report.rejects)
    assert (reject["row"], reject["reason"]) == (1, reason)


def test_dates_of_parquet_are_rejects(tmp_path):
    dates = pa.array([0, None], pa.timestamp("s"))
    table = pa.table({"messages": [messages(TURNS)] * 2, "id": ["a", "b"], "date": dates})
    pq.write_table(table, tmp_path / "rows.parquet")
    report = convert(config(tmp_path / "rows.parquet"), tmp_path / "out.jsonl", "messages")
    assert report.rejected == 1
    assert "holds a datetime, which JSON cannot hold" in read_lines(report.rejects)[0]["reason"]


def test_not_a_number_survives_in_parquet(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(CONVERSATION | {"x": float("nan")}))
    report = convert(config(source), tmp_path / "out.parquet", "messages")
    (value,) = pq.read_table(tmp_path / "out.parquet")["x"].to_pylist()
    assert value != value and report.packed == ()


def test_packed_fields_are_told(tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [CONVERSATION, CONVERSATION | {"id": 7}])
    report = convert(config(source), tmp_path / "out.parquet", "messages")
    assert report.packed == ("id",)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[1] | {"messages": 0} == {
        "id": "7",
        "topic": "sums",
        "messages": 0,
        PACKED: '{"id": 7}',
    }


def test_every_row_is_counted(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text(f'{json.dumps(CONVERSATION)}\nno JSON\n{json.dumps(PAIR)}\n{{"history": ["U", "A"]}}\n')
    report = convert(config(source), tmp_path / "out.jsonl", "messages")
    assert [(line["row"], line["fault"]) for line in read_lines(report.rejects)] == [
        (2, "not JSON"),
        (3, "a pair is no conversation"),
        (4, "fewer than two replies"),
    ]
    assert (report.rows_in, report.rows_used, report.rows_rejected, report.rejected) == (4, 1, 3, 3)


def test_progress_is_told(tmp_path, conversations):
    told = []
    convert(config(conversations), tmp_path / "out.jsonl", "messages", progress=lambda *what: told.append(what))
    assert told == [(1, 1, "rows")]


def test_pairs_do_not_become_conversations(tmp_path, pairs):
    match = r"got a pair in row 1 of pairs\.jsonl, and a pair tells two replies to a prompt, not with which of them"
    with pytest.raises(ValueError, match=match):
        convert(config(pairs), tmp_path / "out.jsonl", "messages")
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_nothing_to_write_is_an_error_and_leaves_nothing(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("no JSON\n")
    with pytest.raises(ValueError, match=r"got none of 1 \(1 not JSON; first, row 1 of rows\.jsonl: the line is not"):
        convert(config(source), tmp_path / "out.jsonl", "messages")
    source.write_text("\n")
    with pytest.raises(ValueError, match="got a file without rows"):
        convert(config(source), tmp_path / "out.jsonl", "messages")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("target", "layout", "error", "match"),
    [
        ("out.txt", "messages", ValueError, r"must end in one of \.jsonl"),
        (".jsonl", "messages", ValueError, "must end in one of"),
        ("out.jsonl", "chat", ValueError, "must be one of messages, .* got 'chat'"),
        ("out.csv", "messages", ValueError, "must hold lists for the layout `messages`, got the CSV file 'out.csv'"),
        ("no/out.jsonl", "messages", FileNotFoundError, "must lie in an existing folder"),
        ("folder.jsonl", "messages", ValueError, "must name a file, got the folder"),
        ("conversations.jsonl", "messages", FileExistsError, "must be a new file, got .* which exists"),
    ],
)
def test_bad_targets_are_refused(tmp_path, conversations, target, layout, error, match):
    (tmp_path / "folder.jsonl").mkdir()
    before = conversations.read_bytes()
    with pytest.raises(error, match=match):
        convert(config(conversations), tmp_path / target, layout)
    assert conversations.read_bytes() == before


def test_rejects_of_an_earlier_conversion_are_not_left_beside_its_successor(tmp_path, conversations, pairs):
    rejects = tmp_path / "out.jsonl.rejects.jsonl"
    rejects.write_text("old")
    with pytest.raises(FileExistsError, match="rejects"):
        convert(config(conversations), tmp_path / "out.jsonl", "messages")
    convert(config(conversations), tmp_path / "out.jsonl", "messages", force=True)
    assert not rejects.exists()


def test_a_file_may_be_converted_in_place(tmp_path, conversations):
    convert(config(conversations), conversations, "history", force=True)
    assert read_lines(conversations)[0]["history"] == [text for _, text in TURNS]


def test_a_link_is_replaced_and_not_followed(tmp_path, conversations):
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text("precious")
    link = tmp_path / "out.jsonl"
    link.symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        convert(config(conversations), link, "messages")
    convert(config(conversations), link, "messages", force=True)
    assert elsewhere.read_text() == "precious" and not link.is_symlink()
