"""Similarity of two replies, by hand and by its laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.triplets import reply_similarity

texts = st.lists(st.sampled_from(["a", "b", "c", "D", "\n", " "]), max_size=12).map(" ".join)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a b c d", "a b c d", 1),
        ("A  b\nC d", "a b c d", 1),  # case and whitespace do not count
        ("a b c d", "b c d e", 1 / 3),  # abc bcd | bcd cde
        ("a b c d e", "a b x d e", 0),  # no run of three in common
        ("a b c a b c", "a b c", 1 / 3),  # abc bca cab | abc
        ("a b c", "c b a", 0),
        ("yes", "yes", 1),
        ("yes it", "it is", 1 / 3),  # too short for runs: words yes it | it is
        ("it is", "it is so", 2 / 3),  # one is too short, so both are words
        ("straße", "STRASSE", 1),
        ("", "a", 0),
        (" ", "\n", 1),
    ],
)
def test_by_hand(one, other, expected):
    assert reply_similarity(one, other) == pytest.approx(expected)


@given(texts, texts)
def test_it_is_symmetric_and_a_share(one, other):
    similarity = reply_similarity(one, other)
    assert similarity == reply_similarity(other, one)
    assert 0 <= similarity <= 1
    assert reply_similarity(one, one) == 1
    words = [set(text.casefold().split()) for text in (one, other)]
    assert not similarity or words[0] & words[1] or words == [set(), set()]
