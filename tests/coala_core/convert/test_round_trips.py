"""From one layout to another and back: the same rows, whatever they hold and whatever the format between."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.config import TripletsConfig
from coala_core.convert import REJECTS_SUFFIX, convert
from tests.coala_core.convert import samples

INEXPRESSIBLE = "not expressible in the target layout"


def there_and_back(rows, layout, other, form):
    """Convert to another layout and format and back; return the rows that came back and those refused on the way."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = samples.write_lines(folder / "rows.jsonl", rows)
        between, back = folder / f"between{form}", folder / "back.jsonl"
        try:
            there = convert(TripletsConfig(conversations=str(source)), between, other)
        except ValueError as error:
            assert f"none of {len(rows)}" in str(error) and INEXPRESSIBLE in str(error)
            return [], range(1, len(rows) + 1)
        home = convert(TripletsConfig(conversations=str(between)), back, layout)
        lines = samples.read_lines(Path(f"{between}{REJECTS_SUFFIX}")) if there.rejected else []
        assert there.rows_in == len(rows) == there.rows_used + there.rows_rejected
        assert (home.rows_in, home.rejected) == (there.rows_written, 0)
        assert len(lines) == there.rejected and {line["fault"] for line in lines} <= {INEXPRESSIBLE}
        return samples.read_lines(back), [line["row"] for line in lines]


def rows_left(rows, refused):
    return [row for number, row in enumerate(rows, start=1) if number not in refused]


def check_dialogues(rows, layout, other, form):
    rows = samples.named(rows, "id")
    back, refused = there_and_back(rows, layout, other, form)
    assert samples.exactly(back) == samples.exactly(rows_left(rows, refused))
    field = {"messages": "messages", "sharegpt": "conversations", "edufeedback": "utterances"}.get(layout)
    for number in refused:  # only what `history` cannot hold may be refused
        first = rows[number - 1][field][0]
        assert other == "history" and "agent2" not in first and "user" not in str(first) and "human" not in str(first)


def check_pairs(pairs, layout, other, form):
    pairs = [
        samples.named([{}] * len(pairs), "conversation_id")[at] | row for at, rows in enumerate(pairs) for row in rows
    ]
    back, refused = there_and_back(pairs, layout, other, form)
    if layout.startswith("unpaired") and not other.startswith("unpaired"):
        refused = [number + second for number in refused for second in (0, 1)]
    assert samples.exactly(back) == samples.exactly(rows_left(pairs, refused))


def formats(layout):
    return st.sampled_from(samples.FORMATS + ((".csv", ".csv.gz") if layout in samples.FLAT else ()))


@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from(samples.DIALOGUES), st.sampled_from(samples.DIALOGUES))
def test_dialogues_come_back(data, layout, other):
    rows = data.draw(st.lists(samples.dialogue_row(layout), min_size=1, max_size=3))
    check_dialogues(rows, layout, other, data.draw(formats(other)))


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from(samples.PAIRS), st.sampled_from(samples.PAIRS))
def test_pairs_come_back(data, layout, other):
    pairs = data.draw(st.lists(samples.pair_rows(layout), min_size=1, max_size=3))
    check_pairs(pairs, layout, other, data.draw(formats(other)))


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "other"), [*itertools.product(samples.DIALOGUES, repeat=2)])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_many_dialogues_come_back(data, layout, other):
    rows = data.draw(st.lists(samples.dialogue_row(layout), min_size=1, max_size=6))
    check_dialogues(rows, layout, other, data.draw(formats(other)))


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "other"), [*itertools.product(samples.PAIRS, repeat=2)])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_many_pairs_come_back(data, layout, other):
    pairs = data.draw(st.lists(samples.pair_rows(layout), min_size=1, max_size=6))
    check_pairs(pairs, layout, other, data.draw(formats(other)))
