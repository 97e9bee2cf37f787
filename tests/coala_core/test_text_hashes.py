"""Hashes of texts are BLAKE2b's, in order."""

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from coala_core.text_hashes import Repetitions, text_hash, text_hashes

texts = st.lists(st.text(max_size=20), max_size=20)


@given(texts)
def test_the_hash_is_blake2b_read_as_a_little_endian_number(given_texts):
    expected = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in given_texts]
    assert [text_hash(text) for text in given_texts] == expected
    assert text_hashes(given_texts).tolist() == [int.from_bytes(digest, "little") for digest in expected]


@given(texts)
def test_as_many_hashes_as_texts(given_texts):
    assert len(set(text_hashes(given_texts).tolist())) == len(set(given_texts))


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "", "é"]) | st.text(max_size=3), max_size=6), max_size=4))
def test_repetitions_are_those_that_a_counter_finds(parts):
    repetitions, texts = Repetitions(), [text for part in parts for text in part]
    for part in parts:
        repetitions.add(part)
    found = repetitions.found(iter(texts))
    assert found == {text: count for text, count in Counter(texts).items() if count > 1}
    assert list(found.values()) == sorted(found.values(), reverse=True)


class Colliding(str):
    """A text whose hash says nothing."""

    def __hash__(self):
        return 7


def test_equal_hashes_of_different_texts_are_no_repetition():
    texts = list(map(Colliding, ["a", "b", "c", "b"]))
    repetitions = Repetitions()
    repetitions.add(texts[:3])
    assert repetitions.found(texts[:3]) == {}
    repetitions.add(texts[3:])
    assert [(str(text), count) for text, count in repetitions.found(texts).items()] == [("b", 2)]
