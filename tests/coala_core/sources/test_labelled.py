import pytest

from coala_core.sources import Fault, RowError
from tests.coala_core.sources.reading import parse, read, read_rows_of, rows_of, said, split

ASK = {"role": "user", "content": "Why?"}


def test_the_kth_positive_review_is_set_against_the_kth_negative_one():
    items = read("imdb.jsonl")
    (first, second), rejects = split(items)
    assert first.prompt == second.prompt == said("U", "Write a movie review.")
    assert (first.chosen, first.rejected, first.row, first.rows) == ("A joy.<br />Go!", "Dull.", 1, 2)
    assert (second.chosen, second.rejected, second.row, second.rows) == ("Moving.", "A waste.", 2, 2)
    assert (second.conversation_id, second.group) == ("train/pos/1_8+train/neg/1_1",) * 2
    assert second.fields == {"rating": 8}  # what both rows say
    assert {row: reject.fault for row, reject in rejects.items()} == {
        3: Fault.NO_PARTNER,
        6: Fault.BAD_LABEL,
        7: Fault.BAD_LABEL,
        8: Fault.DUPLICATE_ID,
    }
    assert rejects[3].reason == "no bad response is left to set this one against"
    assert rejects[6].reason == "`label` is -1, which marks a review without a label"
    assert rejects[8].reason == "row 5 of imdb.jsonl already has the id 'train/neg/1_1#0'"
    assert rows_of(items) == 8


def test_reviews_pair_over_files_and_within_groups(tmp_path):
    good = ({"film": film, "text": f"{film} is good", "label": "pos"} for film in "xy")
    read_rows_of(tmp_path, *good, name="a.jsonl")
    read_rows_of(tmp_path, {"film": "y", "text": "y is bad", "label": "neg"}, name="b.jsonl")
    (pair,), rejects = split(read(tmp_path / "*.jsonl", group_by="film"))
    assert (pair.chosen, pair.rejected, pair.group) == ("y is good", "y is bad", "y")
    assert (pair.row, pair.source) == (2, "a.jsonl")
    assert rejects[1].reason == "no bad response in its group is left to set this one against"


def test_unpaired_completions_meet_on_their_prompt_in_order_of_arrival():
    items = read("unpaired.jsonl")
    (sums, sky), rejects = split(items)
    assert (sums.prompt, sums.chosen, sums.rejected, sums.row) == (said("U", "Two plus two?"), "Four.", "Five.", 1)
    assert (sky.prompt, sky.chosen, sky.rejected, sky.row) == (said("U", "Sky?"), "Blue.", "Green.", 3)
    assert {row: (reject.fault, reject.reason[:45]) for row, reject in rejects.items()} == {
        2: (Fault.NO_PARTNER, "no bad response to its prompt is left to set "),
        6: (Fault.NO_PARTNER, "no good response to its prompt is left to set"),
        7: (Fault.BAD_LABEL, "`label` must be true for a good completion, f"),
    }
    assert rows_of(items) == 7
    assert len({pair.group for pair in (sums, sky)}) == 2


def test_the_two_rows_of_a_pair_that_was_taken_apart_share_its_id(tmp_path):
    row = {"prompt": "Sky?", "pair_id": "sky#1"}
    halves = [row | {"completion": "Blue.", "label": True}, row | {"completion": "Green.", "label": False}]
    read_rows_of(tmp_path, *halves, halves[0], name="a.jsonl")
    (pair,), rejects = split(read(tmp_path / "a.jsonl"))
    assert (pair.chosen, pair.rejected, pair.rows) == ("Blue.", "Green.", 2)
    assert pair.pair_id.endswith("#sky#1")
    assert {number: reject.fault for number, reject in rejects.items()} == {3: Fault.DUPLICATE_ID}


@pytest.mark.parametrize(
    ("content", "worth"),
    [
        ({"text": "t", "label": 1}, 1), ({"text": "t", "label": "POS"}, 1), ({"text": "t", "label": "1"}, 1),
        ({"text": "t", "label": 0}, 0), ({"text": "t", "label": "neg"}, 0), ({"text": "t", "label": 0.0}, 0),
        ({"prompt": "p", "completion": "c", "label": True}, 1),
        ({"prompt": "p", "completion": "c", "label": "False"}, 0),
    ],
)  # fmt: skip
def test_labels_are_read_however_they_are_written(content, worth):
    assert parse(content).worth == worth


@pytest.mark.parametrize(
    ("content", "fault", "message"),
    [
        ({"text": "t", "label": 2}, Fault.BAD_LABEL, 'must be 1 or "pos" .*, got 2'),
        ({"text": "t", "label": {}}, Fault.BAD_LABEL, "got a dict"),
        ({"text": "t", "label": float("nan")}, Fault.BAD_LABEL, "got nan"),
        ({"text": "t", "label": "unsup"}, Fault.BAD_LABEL, "marks a review without a label"),
        ({"text": " ", "label": 1}, Fault.EMPTY, "`text` is empty"),
        ({"text": 3, "label": 1}, Fault.NOT_TEXT, "`text` holds a int"),
        ({"prompt": "p", "completion": "c", "label": -1}, Fault.BAD_LABEL, "must be true .*, got -1"),
        ({"prompt": "", "completion": "c", "label": True}, Fault.EMPTY, "`prompt` is empty"),
        ({"prompt": "p", "completion": {}, "label": True}, Fault.NOT_TEXT, "`completion` holds a dict"),
        ({"prompt": "p", "completion": [ASK], "label": True}, Fault.NOT_ONE_RESPONSE, "`completion` .* got user"),
        ({"prompt": [ASK, ASK], "completion": "c", "label": True}, Fault.NOT_ALTERNATING, "turns 1 and 2"),
    ],
)
def test_unusable_rows_are_refused(content, fault, message):
    with pytest.raises(RowError, match=message) as caught:
        parse(content)
    assert caught.value.fault is fault
