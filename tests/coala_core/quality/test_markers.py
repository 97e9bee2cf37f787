"""Control tokens, active content and hidden characters, each found where it is and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from coala_core.quality.markers import KINDS, LIMITED, MarkerCollector, find_markers
from tests.hand_pairs import Pair, batches

FOUND = {
    "control tokens": [
        "<|im_start|>user", "a <|endoftext|>", "<|eot_id|>", "<|reserved_special_token_5|>", "<s>hi", "</s>",
        "[INST] do [/INST]", "<<SYS>>", "<｜begin▁of▁sentence｜>", "<start_of_turn>", "<BOS_TOKEN>",
        "<think>", "[MASK]", "<extra_id_0>",
    ],
    "active HTML": [
        "<script>alert(1)</script>", "<ScRiPt src=x>", "<iframe/src=x>", "<img src=x onerror=alert(1)>",
        "<a href='javascript:alert(1)'>", "<a href = JavaScript:alert(1)>", "[x](javascript:alert(1))",
        '<svg/onload="x()">', "<a href='data:text/html,<b>'>", "<meta http-equiv=refresh>",
    ],
    "other HTML tags": ["one<br />two", "<p>x", "</div>", '<img src="a.png">', "<H1>"],
    "remote images": ["![x](https://e.example/p.png)", "![](//e.example)", '<img alt="" src="http://e.example/p">'],
    "remote links": ["[x](http://e.example)", "[x]: https://e.example", "<https://e.ex>", '<a href="//e.example">'],
    "bidirectional controls": ["a\u202eb", "\u2066x\u2069", "\u200f"],
    "invisible characters": ["a\u200bb", "\ufeffa", "x\U000e0041", "so\u00adft"],
    "control characters": ["a\x00b", "\x1b[31m", "x\x7f", "\x85"],
}  # fmt: skip
HARMLESS = [
    "I like JavaScript: the good parts.", "if a < b and c > d [1]", "x <- y", "the array a[i](j)", "![local](p.png)",
    "[section](#two)", "é 你好 👩\u200d🏫 می\u200cخواهم", "tab\tline\nend\r\n", "<3 you", "on click = go", "a | b",
    "< script >", "List<String> x", "the onset = 3 of <winter>", "INST and SYS", "|im_start|", "{{ template }}",
]  # fmt: skip


def kinds_of(text: str) -> set[str]:
    return {kind for kind, mask in find_markers(pa.array([text], pa.large_string())).items() if mask[0]}


def test_every_kind_has_examples() -> None:
    assert set(FOUND) == set(KINDS)
    assert set(LIMITED) == {"control tokens", "active HTML"}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts], ids=ascii)
def test_what_is_there_is_found(kind: str, text: str) -> None:
    assert kind in kinds_of(text)
    assert kind in kinds_of(f"Some words before.\n{text}\nand after")


@pytest.mark.parametrize("text", HARMLESS, ids=ascii)
def test_plain_text_is_left_alone(text: str) -> None:
    assert kinds_of(text) == set()


def test_pairs_are_counted_by_kind_and_place(tmp_path: Path) -> None:
    pairs = [
        Pair("a", 1, ["<s>", "x", "q"], "ok", "<s> and <s>"),
        Pair("b", 1, ["q"], "<script>", "[INST] <s>"),
        Pair("c", 1, ["q"], "a<br>b", "fine"),
        Pair("d", 1, ["q"], "fine", "fine\u202e"),
    ]
    collector = MarkerCollector()
    for batch in batches(tmp_path, pairs, rows=3):
        collector.add(batch)
    report = collector.report()
    # a and b hold control tokens, b active HTML too: two of four pairs.
    assert (report["pairs"], report["share"]) == (2, 0.5)
    rows = {row["kind"]: row for row in report["kinds"]}
    kinds = {kind: [row[name] for name in ("pairs", "prompt", "chosen", "rejected")] for kind, row in rows.items()}
    assert kinds["control tokens"] == [2, 1, 0, 2]
    assert kinds["active HTML"] == [1, 0, 1, 0]
    assert kinds["other HTML tags"] == [1, 0, 1, 0]
    assert kinds["bidirectional controls"] == [1, 0, 0, 1]
    assert kinds["remote links"] == [0, 0, 0, 0]
    assert rows["control tokens"]["first"] == ["a#1", "b#1"]
    # A token counts once a pair.
    assert report["control_tokens"] == [{"token": "<s>", "pairs": 2}, {"token": "[INST]", "pairs": 1}]


def test_a_few_first_pairs_are_named(tmp_path: Path) -> None:
    collector = MarkerCollector()
    for batch in batches(tmp_path, [Pair(f"c{at}", 1, ["q"], "<s>", "x") for at in range(7)]):
        collector.add(batch)
    assert collector.report()["kinds"][0]["first"] == ["c0#1", "c1#1", "c2#1"]
