"""The Markdown report: its numbers, and that nothing of the data is markup in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from coala_core.config import QualityConfig
from coala_core.quality import assess, quality_markdown
from coala_core.quality.markdown_sections import SECTIONS, table
from tests.coala_core.quality.test_escaping import HOSTILE, github_links, tokens
from tests.coala_core.quality.test_measure import PAIRS, REJECT, REPORT, files, measure
from tests.hand_pairs import Pair

ATTACK = " ".join(HOSTILE.values()) + "\n\n# heading\n| x |\n"


def named(report: dict[str, Any], name: str = "x") -> str:
    return quality_markdown(report | {"name": name})


def hostile_markdown(tmp_path: Path) -> str:
    """A report in which every text of every kind is hostile."""
    pairs = [
        Pair(f"{name}{ATTACK}", 1, [text + ATTACK], text, ATTACK, group=ATTACK, pair_id=f"{name}{text}")
        for name, text in HOSTILE.items()
    ]
    reject = REJECT | {"source": ATTACK, "fault": ATTACK, "reason": ATTACK}
    triplets, rejects = files(tmp_path, pairs, [reject])
    facts = REPORT | {"layouts": {ATTACK: 3}, "rejected_by_reason": {ATTACK: 1}, "replies_mean": None}
    return named(assess(triplets, rejects, facts, QualityConfig()).report, ATTACK)


def test_hostile_data_is_inert_everywhere(tmp_path: Path) -> None:
    markdown = hostile_markdown(tmp_path)
    kinds = [token.type for token in tokens(markdown)]
    foreign = {
        "html_inline",
        "html_block",
        "image",
        "link_open",
        "fence",
        "code_block",
        "code_inline",
        "s_open",
        "em_open",
    }
    assert foreign & set(kinds) == set()
    assert github_links(markdown) == []
    # The headings are the report's own.
    assert kinds.count("heading_open") == 1 + len(SECTIONS)
    assert "\u202e" not in markdown and "\x1b" not in markdown and "\u200b" not in markdown
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    assert "<script" not in html and "<img" not in html and "<a " not in html
    # It is there for people to read.
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "RIGHT-TO-LEFT OVERRIDE" in html


def test_every_row_of_every_table_has_the_columns_of_its_header(tmp_path: Path) -> None:
    rows = [line for line in hostile_markdown(tmp_path).splitlines() if line.startswith("|")]
    html = MarkdownIt("commonmark").enable("table").render("\n".join(hostile_markdown(tmp_path).splitlines()))
    assert html.count("<tr>") == sum(not set(line) <= set("|-: ") for line in rows)


def test_the_verdict_comes_first(tmp_path: Path) -> None:
    markdown = named(measure(tmp_path).report, "lessons")
    opening = markdown.split("\n## ")[0]
    assert opening.startswith("# Quality of lessons\n\n5 pairs, 3 conversations, 2 groups. **3 of 5 limits exceeded: ")
    assert "| rows rejected | 25.0% | 5.0% | **exceeded** |" in opening
    assert "| test texts seen in training | not measured | 5.0% | |" in opening
    assert "- **rows rejected**: Much of the file is not used" in opening
    clean = [pair._replace(conversation=f"only{at}", pair_id=f"p{at}") for at, pair in enumerate(PAIRS[1:2])]
    facts = REPORT | {"rows_rejected": 0, "rows_in": 3, "rejected_by_reason": {}}
    kept = measure(tmp_path, clean, facts).report
    assert kept["length_bias"]["longer_wins"] == 1.0
    kept["limits"] = [limit for limit in kept["limits"] if limit["limit_name"] != "max_length_bias"]
    assert "**All 4 limits that could be measured are kept.**" in named(kept)


def test_a_reject_is_named_by_file_and_row(tmp_path: Path) -> None:
    assert "| empty | 1 | f&#46;jsonl row 2: no turns |" in named(measure(tmp_path).report)


def test_pictures_are_referred_to_where_they_are_given(tmp_path: Path) -> None:
    report = measure(tmp_path).report
    assert "![" not in named(report)
    assert "![a caption](turns.png)" in quality_markdown(report | {"name": "x"}, {"turns.png": "a caption"})


@pytest.mark.parametrize("population", ["alternating", "ready pairs"])
def test_position_is_explained_for_either_population(tmp_path: Path, population: str) -> None:
    facts = REPORT if population == "alternating" else REPORT | {"replies_mean": None}
    text = named(measure(tmp_path, report=facts).report)
    assert ("always chooses the earlier" in text) is (population == "alternating")
    assert ("nothing is known of a preference for a place" in text) is (population != "alternating")


def test_a_table_is_what_github_reads() -> None:
    assert table(("a", ""), [("1", "")], "lr") == ["| a | |", "| --- | ---: |", "| 1 | |"]
