"""Shares of the test split's texts, set against what the split stage counts itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coala_core.config import SplitConfig
from coala_core.quality.leaks import LeakCollector
from coala_core.splits import split_table
from tests.hand_pairs import Pair, batches, table


def leaks(
    tmp_path: Path, pairs: list[Pair], in_test: list[bool], shared: dict[str, int]
) -> dict[str, dict[str, float]]:
    collector = LeakCollector(np.array(in_test))
    for batch in batches(tmp_path, pairs):
        collector.add(batch)
    return collector.report({kind: {"train/test": count} for kind, count in shared.items()})


def test_distinct_texts_of_the_test_split_are_the_whole(tmp_path: Path) -> None:
    pairs = [
        Pair("a", 1, ["before", "reply", "Why  SO?"], "One", "Two"),
        Pair("b", 1, ["why so?"], "two", " three"),
        Pair("c", 1, ["training"], "One", "four"),
    ]
    report = leaks(tmp_path, pairs, [True, True, False], {"prompts": 0, "responses": 1})
    # The two prompts are one text without case and spacing, and the responses are one, two and three.
    assert report["prompts"] == {"test": 1, "shared": 0, "share": 0.0}
    assert report["responses"] == {"test": 3, "shared": 1, "share": pytest.approx(1 / 3)}


def test_texts_are_compared_as_the_split_compares_them(tmp_path: Path) -> None:
    # Every text of every pair is the same but for case and spacing, so all of the test split is in training.
    shapes = ["Same old  TEXT", "same old text", " SAME\nold text", "sAme old\ttext "]
    pairs = [Pair(f"c{at}", 1, [shapes[at % 4]], shapes[(at + 1) % 4], shapes[(at + 2) % 4]) for at in range(30)]
    split = split_table(table(pairs), SplitConfig(train=0.5, validation=0.2))
    collector = LeakCollector(np.array([name == "test" for name in split.table["split"].to_pylist()]))
    for batch in batches(tmp_path, pairs):
        collector.add(batch)
    report = collector.report(split.report["shared_texts"])  # type: ignore[arg-type]
    assert {kind: row["share"] for kind, row in report.items()} == {"prompts": 1.0, "responses": 1.0}
