"""MinHash beside comparing everything with everything."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.quality.near_duplicates import jaccard, near_duplicates, shingles_of

WORDS = [f"word{number}" for number in range(400)]


def triples(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def brute_force(responses: list[tuple[str, str]], similarity: float) -> tuple[int, int]:
    """Different responses in conversations, and those that another conversation nearly has."""
    units = {(conversation, " ".join(text.lower().split())) for conversation, text in responses}
    doubled = set()
    for one, other in itertools.combinations(sorted(units), 2):
        a, b = triples(one[1]), triples(other[1])
        if one[0] != other[0] and len(a & b) / len(a | b) >= similarity:
            doubled |= {one, other}
    return len(units), len(doubled)


def edited(text: str, words: int, rng: np.random.Generator) -> str:
    parts = text.split()
    for at in rng.choice(len(parts), words, replace=False):
        parts[at] = f"new{rng.integers(10**6)}"
    return " ".join(parts)


def random_set(seed: int) -> list[tuple[str, str]]:
    """Texts of 40 words in 60 conversations, half of them copied with none to six words changed."""
    rng = np.random.default_rng(seed)
    originals = [" ".join(rng.choice(WORDS, 40)) for _ in range(60)]
    copies = [edited(text, at % 7, rng) for at, text in enumerate(originals[:30])]
    return [(f"c{rng.integers(60)}", text) for text in originals + copies]


@pytest.mark.parametrize("similarity", [0.5, 0.8, 1.0])
def test_all_that_comparing_everything_finds(similarity: float) -> None:
    responses = random_set(0)
    found = near_duplicates(responses, similarity, seed=0)
    units, doubled = brute_force(responses, similarity)
    assert 0 < doubled < units, "the set has both kinds"
    assert (found["responses"], found["near_duplicates"]) == (units, doubled)
    assert found["share"] == doubled / units


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.lists(st.sampled_from("xyzw"), min_size=1, max_size=6)), min_size=1)
)
@settings(max_examples=12, deadline=None)
def test_short_texts_of_few_words(rows: list[tuple[str, list[str]]]) -> None:
    responses = [(conversation, " ".join(words)) for conversation, words in rows]
    found = near_duplicates(responses, 0.9, seed=1)
    # Sets of at most four shingles reach 0.9 only where they are equal, and equal sets have equal sketches.
    assert (found["responses"], found["near_duplicates"]) == brute_force(responses, 0.9)
    assert sum(c["responses"] for c in found["largest"]) >= min(found["near_duplicates"], 1)


def test_the_next_pair_of_the_same_conversation_is_no_duplicate() -> None:
    reply = "Let us look at the second step of the proof together."
    within = [("a", "First of all."), ("a", reply), ("a", reply), ("a", "And last.")]
    assert near_duplicates(within, 0.8, 0)["near_duplicates"] == 0
    assert near_duplicates(within, 0.8, 0)["responses"] == 3
    across = near_duplicates([*within, ("b", reply.upper() + " ")], 0.8, 0)
    assert (across["responses"], across["near_duplicates"], across["clusters"]) == (4, 2, 1)
    assert across["largest"] == [{"responses": 2, "conversations": 2, "wordings": 1, "example": reply}]


def test_a_response_that_two_others_of_its_conversation_resemble() -> None:
    # a1 and a2 resemble each other and b: 20 words, one changed at an end, share 17 of 19 triples.
    base = [f"w{at}" for at in range(20)]
    a1, a2, b = (" ".join([*base[:-1], last]) for last in ("x", "y", "z"))
    found = near_duplicates([("a", a1), ("a", a2), ("b", b)], 0.8, 0)
    assert (found["near_duplicates"], found["clusters"]) == (3, 1)
    assert found["largest"][0]["wordings"] == 3
    assert near_duplicates([("a", a1), ("a", a2)], 0.8, 0)["near_duplicates"] == 0


def test_many_copies_of_one_text_stay_quick_and_are_all_found() -> None:
    base = " ".join(WORDS[:30])
    responses = [(f"c{at}", f"{base} number{at}") for at in range(600)]
    found = near_duplicates(responses, 0.8, seed=0)
    assert (found["near_duplicates"], found["clusters"]) == (600, 1)
    assert found["largest"][0]["wordings"] == 600


def test_the_largest_clusters_come_first() -> None:
    responses = [
        (f"{name}{at}", f"{name} says the same thing again") for name, n in (("p", 2), ("q", 4)) for at in range(n)
    ]
    largest = near_duplicates(responses, 0.8, 0)["largest"]
    assert [(cluster["responses"], cluster["example"][0]) for cluster in largest] == [(4, "q"), (2, "p")]


def test_the_same_seed_gives_the_same_answer() -> None:
    assert near_duplicates(random_set(3), 0.7, 5) == near_duplicates(random_set(3), 0.7, 5)


def test_shingles_and_their_similarity() -> None:
    # "the quick brown fox" has two triples, "THE quick, brown dog!" two, one in common: 1 of 3.
    assert jaccard(shingles_of("the quick brown fox"), shingles_of("THE quick, brown dog!")) == pytest.approx(1 / 3)
    assert shingles_of("a b c d").size == 2
    assert shingles_of("Oh no").size == shingles_of("!!!").size == shingles_of("").size == 1
    # A Chinese sentence has no spaces: five characters, three triples.
    assert shingles_of("这是一句话").size == 3
    assert jaccard(shingles_of("!!!"), shingles_of("???")) == 0


def test_no_response_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs at least one response, got none; sample some pairs"):
        near_duplicates([], 0.8, 0)
