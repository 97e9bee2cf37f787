import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.config import TripletsConfig
from coala_core.sources import Conversation, Fault, Reject, read_conversations
from tests.coala_core.sources.reading import SHARED, read, read_rows_of, rows_of, split

GOOD = {"title": "t", "history": ["Why?", "Because.", "And then?", "After that."]}


def write(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return path


def said(*roles):
    return {"title": "t", "messages": [{"role": role, "content": f"text {at}"} for at, role in enumerate(roles)]}


BAD_ROWS = [
    (b'{"history": ["caf\xe9"]}', Fault.NOT_UTF8),
    (b'{"history": [', Fault.NOT_JSON),
    (b"[1, 2]", Fault.NOT_OBJECT),
    ({"title": "t", "text": "x"}, Fault.UNKNOWN_LAYOUT),
    ({"title": "t", "input": "p", "output_1": "a", "output_2": "b", "label": 3}, Fault.BAD_LABEL),
    ({"title": "t", "prompt": "p", "response": "a"}, Fault.BAD_SCORE),
    ({"title": "t", "prompt": "p", "response": "a", "helpfulness": 1}, Fault.MIXED_LAYOUTS),
    ({"title": "t", "c_id": " ", "c_h": said("user")["messages"], "c_r": [], "c_r_": []}, Fault.UNKNOWN_LAYOUT),
    (said("user", "robot", "user", "assistant"), Fault.UNKNOWN_ROLE),
    ({"title": "t", "history": ["a", None, "c", "d"]}, Fault.NOT_TEXT),
    ({"title": "t", "history": []}, Fault.EMPTY),
    ({"title": "t", "history": ["a", "b", " ", "d"]}, Fault.EMPTY),
    ({"title": "t", "history": ["a", "b\ud800", "c", "d"]}, Fault.LONE_SURROGATE),
    ({"title": "t", "history": ["a", "b" * 21, "c", "d"]}, Fault.LONG_TURN),
    ({"title": "t", "history": list("abcdefg")}, Fault.MANY_TURNS),
    (said("user", "system", "assistant", "user", "assistant"), Fault.SYSTEM_NOT_FIRST),
    (said("user", "user", "assistant", "assistant"), Fault.NOT_ALTERNATING),
    (said("system", "assistant"), Fault.NO_STUDENT),
    (said("user", "assistant", "user"), Fault.FEW_REPLIES),
    ({"title": "t", "chosen": "yes", "rejected": "no"}, Fault.NO_SHARED_PROMPT),
    ({"title": "t", "prompt": "p", "chosen": said("user")["messages"], "rejected": []}, Fault.EMPTY),
    ({"title": "t", "prompt": [{"role": "user", "content": "p"}], "chosen": said("user")["messages"],
      "rejected": said("assistant")["messages"]}, Fault.NOT_ONE_RESPONSE),
    ({"title": "t", "prompt": "p", "chosen": "a", "rejected": "a"}, Fault.EQUAL_RESPONSES),
    ({"history": GOOD["history"]}, Fault.NO_GROUP),
    (GOOD, Fault.DUPLICATE_ID),
]  # fmt: skip


@pytest.mark.parametrize(("row", "fault"), BAD_ROWS)
def test_a_bad_row_between_good_ones_is_one_reject_with_its_number(tmp_path, row, fault):
    other = GOOD | {"id": "other"}
    path = write(tmp_path, GOOD, row, other)
    limits = {"max_turn_characters": 20, "max_turns": 6, "identical_pairs": "reject"}
    config = TripletsConfig(conversations=str(path), group_by="title", **limits)
    first, reject, last = read_conversations(config)
    assert [type(first), first.row, type(last), last.row] == [Conversation, 1, Conversation, 3]
    assert isinstance(reject, Reject)
    assert (reject.source, reject.row, reject.fault) == ("rows.jsonl", 2, fault)
    assert reject.reason
    assert reject.excerpt and len(reject.excerpt) <= 200
    reject.excerpt.encode("utf-8")


def test_every_fault_of_a_row_is_among_the_bad_rows():
    of_readers_and_triplets = {Fault.LONG_LINE, Fault.EQUAL_REPLIES, Fault.NEAR_DUPLICATE}
    of_several_rows = {Fault.TIED_SCORES, Fault.NO_PARTNER}  # test_rated.py, test_labelled.py
    of_settings = {Fault.MISSING_FIELD}  # test_layouts.py
    known = {fault for _, fault in BAD_ROWS} | of_readers_and_triplets | of_several_rows | of_settings
    assert known == set(Fault)


def test_a_duplicate_names_the_first_row_and_a_rejected_row_takes_no_id(tmp_path):
    path = write(tmp_path, {"id": 1, "history": ["only"]}, GOOD | {"id": 1}, GOOD | {"id": "1"}, GOOD, GOOD)
    found = list(read_conversations(TripletsConfig(conversations=str(path))))
    rejects = {item.row: item.reason for item in found if isinstance(item, Reject)}
    assert rejects.keys() == {1, 3, 5}
    assert rejects[3] == "row 2 of rows.jsonl already has the id '1'"
    assert rejects[5].startswith("row 4 of rows.jsonl already has the id")


def test_pairs_that_name_themselves_may_share_a_conversation(tmp_path):
    pair = {"conversation_id": "c", "prompt": "p", "chosen": "a", "rejected": "b"}
    path = write(tmp_path, pair | {"pair_id": "c#1"}, pair | {"pair_id": "c#2"}, pair | {"pair_id": "c#1"})
    one, two, repeated = read_conversations(TripletsConfig(conversations=str(path)))
    assert (one.pair_id, two.pair_id) == ("c#1", "c#2")
    assert repeated.reason == "row 1 of rows.jsonl already has the id 'c'"


def test_a_duplicate_in_another_file_names_the_first_ones_file_and_row(tmp_path):
    read_rows_of(tmp_path, {"bad": 1}, GOOD | {"id": "x"}, name="a.jsonl")
    read_rows_of(tmp_path, GOOD | {"id": "x"}, GOOD | {"id": "y"}, name="b.jsonl")
    records, rejects = split([item for item in read(tmp_path / "*.jsonl") if item.source == "b.jsonl"])
    assert [record.key for record in records] == ["y"]
    assert (rejects[1].fault, rejects[1].reason) == (Fault.DUPLICATE_ID, "row 2 of a.jsonl already has the id 'x'")


def test_layouts_may_mix_row_by_row(tmp_path):
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    judged = {"input": "p", "output_1": "a", "output_2": "b", "label": 1}
    items = read_rows_of(tmp_path, GOOD, pair, judged, said("user", "assistant", "user", "assistant"))
    layouts = ["history", "preference, standard explicit", "LLMBar", "messages"]
    assert [item.layout for item in items] == layouts


REVIEWS = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]
RATED = [{"prompt": "p", "response": "a", "helpfulness": 1}, {"prompt": "p", "response": "b", "helpfulness": 2}]


def test_rows_that_pair_up_need_a_file_to_themselves(tmp_path):
    first, *rest = read_rows_of(tmp_path, REVIEWS[0], GOOD, RATED[0], REVIEWS[1])
    assert [(item.row, item.fault) for item in (first, rest[0])] == [(2, Fault.MIXED_LAYOUTS), (3, Fault.MIXED_LAYOUTS)]
    rule = "the rows of IMDb make pairs together and need a file to themselves"
    assert first.reason == f"the row is of the layout history, but row 1 of IMDb; {rule}"
    assert [(pair.chosen, pair.row) for pair in rest[1:]] == [("good", 1)]


def test_files_of_different_layouts_may_stand_side_by_side(tmp_path):
    for name, rows in (("a", REVIEWS), ("b", [GOOD]), ("c", RATED)):
        read_rows_of(tmp_path, *rows, name=f"{name}.jsonl")
    items = read(tmp_path / "*.jsonl")
    assert [(item.layout, item.source) for item in items] == [
        ("IMDb", "a.jsonl"),
        ("history", "b.jsonl"),
        ("HelpSteer", "c.jsonl"),
    ]
    assert rows_of(items) == 5


ROWS = st.one_of(
    st.sampled_from([GOOD, *REVIEWS, *RATED, {"id": 1} | GOOD, {"id": 1} | REVIEWS[0], {"x": 1}]),
    st.builds(
        lambda p, s: {"prompt": p, "response": f"{p}{s}", "helpfulness": s}, st.sampled_from("pq"), st.integers(0, 3)
    ),
    st.builds(lambda p, s: {"prompt": p, "completion": "c", "label": s}, st.sampled_from("pq"), st.booleans()),
)


@settings(max_examples=50)
@given(st.lists(ROWS, max_size=12))
def test_the_rows_of_all_items_are_the_rows_of_the_file(tmp_path_factory, rows):
    items = read_rows_of(tmp_path_factory.getbasetemp(), *rows)
    assert rows_of(items) == len(rows)
    assert read(tmp_path_factory.getbasetemp() / "rows.jsonl") == items


def test_excerpts_are_cut(tmp_path):
    path = write(tmp_path, {"text": "é" * 1000}, b"\xff" * 1000)
    for reject in read_conversations(TripletsConfig(conversations=str(path))):
        assert len(reject.excerpt) == 200


needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no data sets at {SHARED}")


@pytest.mark.slow
@needs_shared_data
@pytest.mark.parametrize(
    ("pattern", "rows", "records", "groups"),
    [
        ("book2dial/*.jsonl.gz", 889, 889, 889),
        ("bridge/*.json.gz", 700, 700, 383),  # sessions; one row of the test file is in the training file, too
        ("llmbar/[AN]*.json.gz", 419, 419, 418),  # instructions
        ("llmbar/Processed*.json.gz", 466, 466, 339),
        ("imdb/*.jsonl.gz", 50_000, 25_000, 25_000),
        ("ultrafeedback_subset/*.jsonl.gz", 1200, 1200, 1200),
    ],
)
def test_every_row_of_the_data_sets_is_used(pattern, rows, records, groups):
    items, rejects = split(read(SHARED / pattern))
    assert rejects == {}
    assert (rows_of(items), len(items), len({item.key for item in items})) == (rows, records, records)
    assert len({item.group for item in items}) == groups


@pytest.mark.slow
@needs_shared_data
def test_ultrafeedback_keeps_the_two_pairs_with_an_empty_response():
    pairs = read(SHARED / "ultrafeedback_subset" / "train_clean.jsonl.gz")
    blank = [(pair.row, not pair.chosen, not pair.rejected) for pair in pairs if not pair.chosen or not pair.rejected]
    assert blank == [(479, False, True), (834, True, False)]


@pytest.mark.slow
@needs_shared_data
def test_sessions_of_bridge_are_not_divided():
    pairs = read(SHARED / "bridge" / "*.json.gz")
    assert all(pair.group == pair.fields["c_id"].partition("_")[0] for pair in pairs)
    twice = Counter(pair.fields["c_id"] for pair in pairs)
    assert (len(twice), sum(count == 2 for count in twice.values())) == (459, 241)
    assert len({pair.pair_id for pair in pairs}) == 700
