"""Foreign text in Markdown: whatever it is, the page shows it and obeys nothing."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from coala_core.quality import inert

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "handler": '<img src=x onerror="alert(1)">',
    "comment": "<!-- hidden --> & &lt;b&gt; &#60;i&#62;",
    "beacon": "![pixel](https://evil.example/p.png?q=1)",
    "link": "[free](javascript:alert(1)) and [x]: https://evil.example",
    "autolink": "<https://evil.example> https://evil.example www.evil.example me@evil.example",
    "table": "a | b\n| --- | --- |\n| c | d |",
    "fence": "```python\nprint(1)\n```\n~~~\n`code` ``double``",
    "blocks": "# title\n> quote\n- item\n1. one\n---\n    code\n===",
    "emphasis": "**bold** __bold__ *it* _it_ ~~gone~~ $x^2$ {x} \\| \\",
    "bidi": "user\u202e nimda \u2066isolate\u2069",
    "hidden": "a\u200bb\ufeffc\u00add\U000e0041",
    "terminal": "\x1b[31mred\x07\x00\x9b",
    "separators": "a\u2028b\u2029c\x0bd\x0ce\x85f\r\ng\rh",
}


def tokens(markdown: str) -> list[Token]:
    """All tokens, inline ones included; bare addresses count only where GitHub itself makes links of them."""
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    return [inner for token in parsed for inner in (token, *(token.children or ()))]


def github_links(shown: str) -> list[str]:
    """Addresses that GitHub would link: in the source by scheme and www, and mail after decoding entities."""
    source = re.findall(r"(?i)(?:https?|ftp)://\w|www\.\w", shown)
    decoded = "".join(token.content for token in tokens(shown) if token.type in ("text", "text_special"))
    return source + re.findall(r"[\w.+-]+@[\w-]+\.\w", decoded)


def types_of(markdown: str) -> set[str]:
    return {token.type for token in tokens(markdown)}


PARAGRAPH = {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}
TABLE = {f"{part}_{end}" for part in ("table", "thead", "tbody", "tr", "th", "td") for end in ("open", "close")}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_text_in_a_paragraph_and_in_a_table(text: str) -> None:
    shown = inert(text)
    assert "\n" not in shown and not set(shown) & set("<>|`*_[]\\")
    assert types_of(f"Text: {shown}") <= PARAGRAPH
    cells = tokens(f"| a | b |\n| --- | --- |\n| {shown} | end |")
    assert {token.type for token in cells} <= PARAGRAPH | TABLE
    assert [token.type for token in cells].count("td_open") == 2
    assert github_links(f"Text: {shown}") == []


def test_the_oracle_sees_what_is_not_inert() -> None:
    assert "html_inline" in types_of(f"Text: {HOSTILE['handler']}")
    assert "image" in types_of(f"Text: {HOSTILE['beacon']}")
    assert len(github_links(f"Text: {HOSTILE['autolink']}")) == 4


@given(st.text(max_size=200))
@example("@a.b a@b.c")
@example("\r\n\n\r")
@example("http:\x00//x")
@example("www\u200b.x")
def test_no_text_becomes_markup(text: str) -> None:
    shown = inert(text)
    assert types_of(f"Text: {shown}") <= PARAGRAPH
    assert github_links(f"Text: {shown}") == []
    hidden = {sign for sign in shown if unicodedata.category(sign)[0] == "C" or unicodedata.category(sign)[:2] == "Zl"}
    assert hidden <= {"\u200c", "\u200d"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=80))
def test_whoever_reads_the_page_sees_the_text(text: str) -> None:
    decoded = "".join(token.content for token in tokens(f"Text: {inert(text)}") if token.type.startswith("text"))
    assert decoded.replace("\u2060", "").removeprefix("Text:").strip() == text


def test_what_cannot_be_seen_stands_by_name() -> None:
    assert inert("a\u202eb") == "a&#91;U+202E RIGHT-TO-LEFT OVERRIDE&#93;b"
    assert inert("\x1b\x00") == "&#91;U+001B ESC&#93;&#91;U+0000 NUL&#93;"
    assert inert("one\r\ntwo\n\nthree\tfour\u00a0five") == "one ⏎ two ⏎ ⏎ three four five"
    # Emoji are made with joiners, Persian needs the other one.
    assert inert("👩\u200d🏫 می\u200cخواهم") == "👩\u200d🏫 می\u200cخواهم"


def test_long_text_is_cut_before_it_is_escaped() -> None:
    assert inert("<<<<", 2) == "&#60;&#60;…"
    assert inert("<<", 2) == "&#60;&#60;"
    assert inert("x" * 10, 3) == "xxx…"
