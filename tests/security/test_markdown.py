"""Whatever names data, runs and models have, the Markdown that is published shows them as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from coala_core.storage import Artifact
from tasks.notes import note, stage_note
from tasks.promotion import Promotion, promotion_note
from tasks.report import markdown
from tests.tasks.test_results import summary

ACTIVE = {"link_open", "image", "html_inline", "html_block", "code_inline", "em_open", "strong_open", "s_open"}
HOSTILE = (
    "<script>alert(1)</script>",
    "[click](http://127.0.0.1:9/)",
    "![](http://127.0.0.1:9/beacon)",
    "| a | b |\n| - | - |\n<img src=x onerror=alert(1)>",
    "`code` **bold** <b>",
    "http://127.0.0.1/auto",
    "&lt;script&gt;",
    "\n# heading\n- item\n",
)
foreign = st.sampled_from(HOSTILE) | st.text(max_size=60)


def active(text: str) -> list[str]:
    """Kinds of tokens that do or load something, as a renderer with tables and raw HTML sees them."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens: list[Any] = parser.parse(text)
    return [inner.type for token in tokens for inner in (token, *(token.children or ())) if inner.type in ACTIVE]


def headings(text: str) -> int:
    return sum(token.type == "heading_open" for token in MarkdownIt("commonmark").parse(text))


def promoted(text: str) -> Promotion:
    return Promotion(
        name=text, version="3", champion=True, reason=text, against=text, lead=0.1, lead_low=None, lead_high=None,
        evaluation_digest="0" * 64, dry_run=False,
    )  # fmt: skip


@settings(deadline=None)
@given(foreign)
def test_the_report_of_a_run_is_inert(name: str) -> None:
    plain, text = markdown(summary("plain")), markdown(summary(name))
    assert active(text) == active(plain)  # digests and the address stand in code
    assert headings(text) == headings(plain)


@settings(deadline=None)
@given(foreign)
def test_notes_of_stages_and_of_promotions_are_inert(name: str) -> None:
    # A stage is one of ours, and keys are digests; the folder is the user's.
    artifact = Artifact(stage="solve", key="0" * 24, path=Path("/store") / name.replace("\x00", ""), sha256="0" * 64)
    for text in (note("Ours.", [(name, name)]), stage_note(artifact, reused=True), promotion_note(promoted(name))):
        assert active(text) == []
        assert headings(text) == 0


@pytest.mark.parametrize("text", HOSTILE[:5])
def test_the_oracle_sees_what_is_not_inert(text: str) -> None:
    assert active(text) != []
