import json

import pytest

from coala_core.config import TripletsConfig
from coala_core.sources import Conversation, Fault, Reject, read_conversations

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
    elsewhere = {Fault.LONG_LINE, Fault.EQUAL_REPLIES}  # test_reader.py and test_triplets.py
    assert {fault for _, fault in BAD_ROWS} | elsewhere == set(Fault)


def test_a_duplicate_names_the_first_row_and_a_rejected_row_takes_no_id(tmp_path):
    path = write(tmp_path, {"id": 1, "history": ["only"]}, GOOD | {"id": 1}, GOOD | {"id": "1"}, GOOD, GOOD)
    found = list(read_conversations(TripletsConfig(conversations=str(path))))
    rejects = {item.row: item.reason for item in found if isinstance(item, Reject)}
    assert rejects.keys() == {1, 3, 5}
    assert rejects[3] == "row 2 already has the id '1'"
    assert rejects[5].startswith("row 4 already has the id")


def test_pairs_that_name_themselves_may_share_a_conversation(tmp_path):
    pair = {"conversation_id": "c", "prompt": "p", "chosen": "a", "rejected": "b"}
    path = write(tmp_path, pair | {"pair_id": "c#1"}, pair | {"pair_id": "c#2"}, pair | {"pair_id": "c#1"})
    one, two, repeated = read_conversations(TripletsConfig(conversations=str(path)))
    assert (one.pair_id, two.pair_id) == ("c#1", "c#2")
    assert repeated.reason == "row 1 already has the id 'c#1'"


def test_excerpts_are_cut(tmp_path):
    path = write(tmp_path, {"text": "é" * 1000}, b"\xff" * 1000)
    for reject in read_conversations(TripletsConfig(conversations=str(path))):
        assert len(reject.excerpt) == 200
