import json

from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.sources import Preference, Turn
from coala_core.sources.records import excerpt_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(values)
def test_an_excerpt_is_the_start_of_the_json(content):
    assert excerpt_of(content) == json.dumps(content, ensure_ascii=False).encode("utf-8", "replace").decode()[:200]


def test_an_excerpt_of_a_deep_or_odd_value_is_no_error():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert excerpt_of({"a": deep}) == '{"a": ' + "[" * 194
    assert excerpt_of({"a": b"\xff", "b": "\ud800"}) == '{"a": "b\'\\\\xff\'", "b": "?"}'


def pair(conversation_id, pair_id):
    return Preference(conversation_id, "g", pair_id, (Turn("user", "p"),), "a", "b", {}, 1, "any")


def test_the_only_pair_of_a_conversation_has_its_key():
    assert pair("c", "c#1").key == "c"
    assert pair("c", "c#2").key == "c#2"
    assert pair("c", "c#1").rows == 1
