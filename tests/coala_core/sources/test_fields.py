import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.sources import Fault, RowError, Turn
from coala_core.sources.fields import digest_texts, digest_turns, list_fields, rename_columns


def test_columns_get_the_names_of_fields_and_may_swap():
    row = {"q": "?", "good": "g", "bad": "b", "topic": "t"}
    assert rename_columns(row, {"prompt": "q", "chosen": "good", "rejected": "bad"}) == {
        "topic": "t",
        "prompt": "?",
        "chosen": "g",
        "rejected": "b",
    }
    assert rename_columns({"chosen": 1, "rejected": 2}, {"chosen": "rejected", "rejected": "chosen"}) == {
        "chosen": 2,
        "rejected": 1,
    }
    # a field of that name in the file gives way
    assert rename_columns({"prompt": "old", "q": "new"}, {"prompt": "q"}) == {"prompt": "new"}


def test_an_absent_column_names_those_that_are_there():
    with pytest.raises(RowError) as caught:
        rename_columns({"a": 1, "b\ud800": 2}, {"prompt": "question"})
    assert caught.value.fault is Fault.MISSING_FIELD
    assert str(caught.value) == "the row has no column `question` for the field `prompt`, only `a`, `b?`"


def test_many_fields_are_cut():
    assert list_fields("abcdefghij") == "`a`, `b`, `c`, `d`, `e`, `f`, `g`, `h` and others"
    assert list_fields(["x" * 50]) == f"`{'x' * 40}`"


texts = st.text(max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts)))
def test_digests_are_those_of_the_json(turns):
    written = json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode()
    assert digest_turns([Turn(*turn) for turn in turns]) == hashlib.sha256(written).hexdigest()[:24]


@given(texts, texts)
def test_where_one_text_ends_counts(one, other):
    if other:
        assert digest_texts(one, other) != digest_texts(one + other[:1], other[1:])
