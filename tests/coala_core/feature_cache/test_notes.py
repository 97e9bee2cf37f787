"""Notes of shards: keys by content, sidecars read back, and a place for each pair that really holds it."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.feature_cache.notes import (
    BrokenShard,
    Place,
    ShardNote,
    Space,
    dump_note,
    is_sidecar,
    look_up,
    pair_key,
    parse_note,
    require_name,
    require_space_key,
    shard_name,
)

PROMPT = [{"role": "user", "content": "2 + 2?"}]


def note(name: str, keys: str, columns: str = "a", **change: object) -> ShardNote:
    """Note of a shard whose keys and columns are one letter each."""
    given = {"sha256": "0" * 64, "bytes": 8, "rows": len(keys), "counts": {"pairs": len(keys), "share": 0.5}}
    return ShardNote(name=name, columns=tuple(columns), keys=tuple(keys), **(given | change))  # type: ignore[arg-type]


def test_the_space_key_covers_everything_but_the_name_for_people() -> None:
    space = Space({"model": "SmolLM2", "model_fingerprint": "f", "max_tokens": 64})
    # The digest of the JSON text of the other two entries, keys sorted.
    assert space.key == hashlib.sha256(b'{"max_tokens":64,"model_fingerprint":"f"}').hexdigest()[:16]
    assert Space({"max_tokens": 64, "model_fingerprint": "f", "model": "other"}).key == space.key
    assert Space({"max_tokens": 65, "model_fingerprint": "f"}).key != space.key
    assert Space({"max_tokens": "64", "model_fingerprint": "f"}).key != space.key


def test_the_pair_key_covers_roles_order_and_texts() -> None:
    key = pair_key(PROMPT, "4", "5")
    text = '[[{"content":"2 + 2?","role":"user"}],"4","5"]'
    assert key == hashlib.sha256(text.encode()).hexdigest()[:32]
    others = [
        pair_key(PROMPT, "5", "4"),
        pair_key([], "4", "5"),
        pair_key([{"role": "system", "content": "2 + 2?"}], "4", "5"),
        pair_key([*PROMPT, *PROMPT], "4", "5"),
    ]
    assert len({key, *others}) == 5


def test_the_shard_name_covers_space_columns_and_keys_in_order() -> None:
    name = shard_name("s", ["a", "b"], ["k", "l"])
    assert name == "shard-" + hashlib.sha256(b'["s",["a","b"],["k","l"]]').hexdigest()[:24]
    assert require_name(name) == name
    others = [shard_name("t", ["a", "b"], ["k", "l"]), shard_name("s", ["b", "a"], ["k", "l"])]
    assert len({name, *others, shard_name("s", ["a", "b"], ["l", "k"])}) == 4


def test_a_note_is_read_back_from_its_sidecar() -> None:
    written = note("shard-1", "pq", "ab")
    assert parse_note("shard-1", dump_note(written).encode()) == written


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": None}, "sha256"),
        ({"rows": "2"}, "rows"),
        ({"keys": ["p", 1]}, "keys.1"),
        ({"name": "shard-2"}, "that of 'shard-2'"),
        ({"rows": 3}, "2 different keys for 3 rows"),
        ({"keys": ["p", "p"]}, "1 different keys for 2 rows"),
    ],
)
def test_a_sidecar_that_is_no_note_says_why(change: dict[str, object], reason: str) -> None:
    content = json.loads(dump_note(note("shard-1", "pq"))) | change
    with pytest.raises(ValueError, match=reason):
        parse_note("shard-1", json.dumps(content).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"{}"])
def test_a_sidecar_that_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="its sidecar is no note"):
        parse_note("shard-1", content)


def test_the_shard_that_serves_most_is_preferred_then_the_first_by_name() -> None:
    shards = [note("z", "xpq"), note("b", "pq"), note("a", "p"), note("c", "qr")]
    found = look_up(shards, ["a"], ["p", "q", "r", "s"])
    # Of p, q, r and s, shard z holds two (x is not asked for), b and c two each, a one: b, c, z, then a.
    assert found.places == {"p": Place("b", 0), "q": Place("b", 1), "r": Place("c", 1)}
    assert sorted(found.notes) == ["b", "c"]
    assert found.lacking == {}


def test_a_pair_that_is_stored_without_a_column_is_lacking_what_is_missing_least() -> None:
    shards = [note("one", "pq", "a"), note("two", "p", "ab"), BrokenShard("three", "torn")]
    found = look_up(shards, ["a", "b", "c"], {"p", "q", "r"})
    assert found.places == {}
    assert found.lacking == {"p": ("c",), "q": ("b", "c")}
    assert found.broken == (BrokenShard("three", "torn"),)
    assert look_up(shards, ["b"], ["p", "q"]).lacking == {"q": ("b",)}


SETS = st.lists(
    st.tuples(st.permutations("pqrst"), st.integers(0, 5), st.sets(st.sampled_from("abc"))), max_size=6
).map(lambda drawn: [note(f"n{i}", keys[:size], "".join(columns)) for i, (keys, size, columns) in enumerate(drawn)])


@given(SETS, st.sets(st.sampled_from("pqrstu")), st.sets(st.sampled_from("abc")), st.randoms())
def test_every_place_holds_its_pair_and_every_pair_that_can_be_served_is(shards, keys, columns, random) -> None:
    found = look_up(shards, sorted(columns), keys)
    for key, place in found.places.items():
        home = found.notes[place.shard]
        assert home.keys[place.row] == key
        assert set(home.columns) >= columns
    # The plain loop over all shards.
    served = {key for key in keys for shard in shards if key in shard.keys and set(shard.columns) >= columns}
    stored = {key for key in keys for shard in shards if key in shard.keys}
    assert set(found.places) == served
    assert set(found.lacking) == stored - served
    assert {place.shard for place in found.places.values()} == set(found.notes)
    shuffled = random.sample(shards, len(shards))
    assert look_up(shuffled, sorted(columns), sorted(keys)) == found


@pytest.mark.parametrize("key", ["", "..", "0" * 15, "0" * 17, "G" * 16, "0" * 16 + "\n", "../" + "0" * 16])
def test_a_space_key_cannot_lead_elsewhere(key: str) -> None:
    with pytest.raises(ValueError, match="`space_key` must be 16 hex digits, got .*; take it from `Space.key`"):
        require_space_key(key)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".a", "a.pairs", "space", "a\n"])
def test_a_shard_name_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="`name` must be letters, .*; take it from `shard_name`"):
        require_name(name)
    assert not is_sidecar(f"{name}.json")
