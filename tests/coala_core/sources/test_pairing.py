"""Every row is in a pair or a reject, whatever the order; nothing waits longer than it must."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coala_core.config import TripletsConfig
from coala_core.sources import Fault, Preference, Reject, Row, parse_row
from coala_core.sources.pairing import LabelPairs, ScorePairs, key_of
from tests.coala_core.sources.reading import read_rows_of, rows_of

CONFIG = TripletsConfig()


def rated(*rows):
    """Responses with scores, given as (prompt, score); the response says where the row stands."""
    contents = [{"prompt": f"p{p}", "response": f"r{at}", "helpfulness": score} for at, (p, score) in enumerate(rows)]
    return [parse_row(Row(at, content), CONFIG) for at, content in enumerate(contents)]


def labelled(*rows):
    """Responses with labels, given as (prompt, label)."""
    contents = [{"prompt": f"p{p}", "completion": f"r{at}", "label": label} for at, (p, label) in enumerate(rows)]
    return [parse_row(Row(at, content), CONFIG) for at, content in enumerate(contents)]


def score_pairs(responses, counted=None):
    counts = Counter(map(key_of, counted or responses))
    pairs = ScorePairs(CONFIG, lambda pair: None, lambda: counts)
    items = [item for response in responses for item in pairs.add(response)]
    return pairs, [*items, *pairs.finish()]


prompts = st.integers(0, 3)
rating = st.lists(st.tuples(prompts, st.integers(0, 4)), max_size=14)


@given(rating)
def test_scores_set_the_best_against_each_lower_one(rows):
    responses = rated(*rows)
    _, items = score_pairs(responses)
    assert rows_of(items) == len(rows)
    expected = set()
    for prompt in {prompt for prompt, _ in rows}:
        places = [at for at, (p, _) in enumerate(rows) if p == prompt]
        best = max(places, key=lambda at: rows[at][1])  # the first of several
        expected |= {(f"r{best}", f"r{at}") for at in places if rows[at][1] < rows[best][1]}
    pairs = [item for item in items if isinstance(item, Preference)]
    assert {(pair.chosen, pair.rejected) for pair in pairs} == expected
    assert len(pairs) == len(expected)
    used = {text for pair in expected for text in pair}
    rejected = {f"r{item.row}" for item in items if isinstance(item, Reject)}
    assert rejected == {f"r{at}" for at in range(len(rows))} - used


@given(rating, st.randoms(use_true_random=False))
def test_rows_of_one_prompt_need_not_be_adjacent(rows, random):
    def texts(order):
        _, items = score_pairs(order)
        return sorted((item.chosen, item.rejected) for item in items if isinstance(item, Preference))

    distinct = list({(p, s): r for (p, s), r in zip(rows, rated(*rows), strict=True)}.values())  # no ties
    shuffled = random.sample(distinct, len(distinct))
    assert texts(shuffled) == texts(distinct)


def test_a_prompt_is_let_go_at_its_last_row():
    responses = rated((0, 1), (0, 2), (1, 3), (2, 4), (1, 1))
    pairs = ScorePairs(CONFIG, lambda pair: None, lambda: Counter(map(key_of, responses)))
    given_back = [len(list(pairs.add(response))) for response in responses]
    assert given_back == [0, 1, 0, 1, 1]  # the third prompt has one response, a reject
    assert list(pairs.finish()) == []


def test_a_prompt_whose_counted_row_was_refused_is_let_go_at_the_end():
    counted = rated((0, 1), (0, 2), (0, 3))
    _, items = score_pairs(counted[:2], counted)
    assert [(item.chosen, item.rejected) for item in items] == [("r1", "r0")]


labels = st.lists(st.tuples(prompts, st.booleans()), max_size=14)


@given(labels)
def test_labels_pair_in_order_of_arrival_and_use_each_row_once(rows):
    pairs = LabelPairs(CONFIG, lambda pair: None)
    items = [item for response in labelled(*rows) for item in pairs.add(response)]
    items += pairs.finish()
    assert rows_of(items) == len(rows)
    expected = []
    for prompt in range(4):
        good, bad = ([f"r{at}" for at, row in enumerate(rows) if row == (prompt, label)] for label in (True, False))
        expected += zip(good, bad, strict=False)
    made = [(item.chosen, item.rejected) for item in items if isinstance(item, Preference)]
    assert sorted(made) == sorted(expected)
    assert {item.fault for item in items if isinstance(item, Reject)} <= {Fault.NO_PARTNER}


@pytest.mark.parametrize(
    ("rows", "faults"),
    [
        # the same two rows once more: both are rejects
        ([("a", True), ("b", False)] * 2, {3: Fault.DUPLICATE_ID, 4: Fault.DUPLICATE_ID}),
        ([("a", True), ("a ", False)], {1: Fault.EQUAL_RESPONSES, 2: Fault.EQUAL_RESPONSES}),
        ([("", True), (" ", False)], {1: Fault.EMPTY, 2: Fault.EMPTY}),
    ],
)
def test_a_pair_that_states_nothing_new_is_two_rejects(tmp_path, rows, faults):
    contents = [{"prompt": "p", "completion": text, "label": label} for text, label in rows]
    items = read_rows_of(tmp_path, *contents, identical_pairs="reject")
    assert {item.row: item.fault for item in items if isinstance(item, Reject)} == faults
    assert rows_of(items) == len(rows)


def test_a_lower_response_that_is_refused_leaves_the_best_one_to_others(tmp_path):
    scored = [("same", 4), (" same", 1), ("other", 1)]
    contents = [{"prompt": "p", "response": text, "helpfulness": score} for text, score in scored]
    refused, pair = read_rows_of(tmp_path, *contents, identical_pairs="reject")
    assert (refused.row, refused.fault) == (2, Fault.EQUAL_RESPONSES)
    assert (pair.chosen, pair.rejected, pair.rows) == ("same", "other", 2)
    both = read_rows_of(tmp_path, *contents[:2], identical_pairs="reject")
    assert [(item.row, item.fault) for item in both] == [(2, Fault.EQUAL_RESPONSES), (1, Fault.EQUAL_RESPONSES)]


def test_the_ids_of_rows_name_the_pair(tmp_path):
    rows = [{"id": name, "prompt": "p", "completion": name, "label": name == "a"} for name in "ab"]
    (pair,) = read_rows_of(tmp_path, *rows)
    assert pair.pair_id == f"{pair.conversation_id}#a+b"
