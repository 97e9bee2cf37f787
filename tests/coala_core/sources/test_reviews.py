import io

import pytest

from coala_core.sources import Fault, Row, lines
from coala_core.sources.reviews import review_rows


def read(content, path):
    (row,) = review_rows(io.BytesIO(content), path.rpartition("/")[2], path)
    return row


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/aclImdb/train/pos/0_9.txt", {"id": "train/pos/0_9", "label": 1, "rating": 9}),
        ("aclImdb/test/neg/12499_1.txt", {"id": "test/neg/12499_1", "label": 0, "rating": 1}),
        ("pos/3_10.txt", {"id": "pos/3_10", "label": 1, "rating": 10}),
        ("train\\NEG\\3_2.TXT", {"id": "train/NEG/3_2", "label": 0, "rating": 2}),
    ],
)
def test_label_and_rating_are_in_the_path_and_the_text_is_verbatim(path, expected):
    text = " Good <br /><br />film é\r\n"
    name = path.rpartition("/")[2]
    assert read(text.encode(), path) == Row(1, {**expected, "text": text}, name)


def test_a_review_that_cannot_be_used_is_a_reject(monkeypatch):
    wrong = read(b"text", "pos/notes.txt")
    assert (wrong.row, wrong.fault) == (1, Fault.UNKNOWN_LAYOUT)
    assert wrong.reason == "the file is not named after number and rating, as 0_9.txt is"
    damaged = read(b"caf\xe9", "pos/0_9.txt")
    assert (damaged.fault, damaged.reason) == (Fault.NOT_UTF8, "byte 4 of the line is not UTF-8")
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10)
    assert read(b"x" * 11, "pos/0_9.txt").fault is Fault.LONG_LINE
