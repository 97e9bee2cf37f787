"""Texts that hold what a language model or a browser would obey: control tokens, active HTML, hidden characters."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coala_core.quality.batches import PairBatch

Mask = NDArray[np.bool_]

CONTROL_TOKENS: dict[str, str] = {
    "ChatML, GPT, Llama 3, Phi, Qwen, DeepSeek, gpt-oss": r"<[|｜][A-Za-z][\w▁ -]{0,40}[|｜]>",
    "Llama 2, Mistral": r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>",
    "SentencePiece": r"</?s>|<(?:unk|pad|bos|eos|mask)>",
    "Gemma": r"<(?:start|end)_of_turn>",
    "Command R": r"<(?:BOS|EOS|PAD)_TOKEN>",
    "T5, BERT": r"<extra_id_\d+>|\[(?:CLS|SEP|MASK|PAD|UNK)\]",
    "thinking and tools": r"</?(?:think|tool_call|tool_response)>",
}
"""Families of control tokens, as regular expressions; the first takes every name between bars."""

_URL_ATTRIBUTE = r"""(?:href|src|action|formaction|data|xlink:href)\s*=\s*["']?\s*"""
_SCRIPT_ADDRESS = r"(?:javascript|vbscript|data:text/html)\s*[:;,]"

KINDS: dict[str, str] = {
    "control tokens": "|".join(CONTROL_TOKENS.values()),
    "active HTML": "|".join(
        [
            r"(?i:<(?:script|iframe|frame|object|embed|applet|base|meta|link)[\s/>])",
            r"(?i:<[a-z][^<>]*[\s\"'/]on[a-z]{3,30}\s*=)",
            f"(?i:<[a-z][^<>]*{_URL_ATTRIBUTE}{_SCRIPT_ADDRESS})",
            rf"(?i:\]\(\s*<?{_SCRIPT_ADDRESS})",
        ]
    ),
    "other HTML tags": r"(?i:</?(?:a|b|br|code|center|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|small|span|strong|sub|sup"
    r"|table|tbody|td|th|thead|tr|tt|u|ul)(?:\s[^<>]*)?/?>)",
    "remote images": r"(?i:!\[[^\]]*\]\(\s*<?(?:https?:)?//|<img[^<>]*\ssrc\s*=\s*[\"']?\s*(?:https?:)?//)",
    "remote links": r"(?i:(?:^|[^!])\[[^\]]*\]\(\s*<?(?:https?:)?//|\]:\s*<?https?://|<https?://"
    r"|<a\s[^<>]*href\s*=\s*[\"']?\s*(?:https?:)?//)",
    "bidirectional controls": "[\\x{061c}\\x{200e}\\x{200f}\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]",
    # Not the two joiners, which emoji and Persian need; the block at the end spells hidden ASCII.
    "invisible characters": "[\\x{00ad}\\x{180e}\\x{200b}\\x{2060}-\\x{2064}\\x{feff}\\x{e0000}-\\x{e007f}]",
    "control characters": "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x{9f}]",
}
"""What is looked for, in RE2's syntax."""

LIMITED = ("control tokens", "active HTML")
"""Kinds that `quality.max_marker_share` is about."""

_WITHOUT_MARKUP = frozenset({"bidirectional controls", "invisible characters", "control characters"})
_FIRST_PAIRS = 3
_SHOWN_TOKENS = 20
_TOKEN = re.compile(KINDS["control tokens"])


@dataclass
class _Hits:
    """Pairs in which one kind was found."""

    pairs: int = 0
    prompt: int = 0
    chosen: int = 0
    rejected: int = 0
    first: list[str] = field(default_factory=list)


@dataclass
class MarkerCollector:
    """Takes in batches, counts the pairs with each of `KINDS`."""

    pairs: int = 0
    limited: int = 0
    hits: dict[str, _Hits] = field(default_factory=lambda: {kind: _Hits() for kind in KINDS})
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, batch: PairBatch) -> None:
        """Search the distinct texts of a batch."""
        self.pairs += len(batch)
        limited = np.zeros(len(batch), dtype=np.bool_)
        for kind, found in find_markers(batch.texts).items():
            any_text = self._count(kind, batch, found)
            if kind in LIMITED:
                limited |= any_text
            if kind == "control tokens":
                self._count_tokens(batch, found)
        self.limited += int(limited.sum())

    def _count(self, kind: str, batch: PairBatch, found: Mask) -> Mask:
        """Add the pairs of a batch, and tell which they are."""
        prompt, chosen, rejected = batch.over_prompt(found) > 0, found[batch.chosen], found[batch.rejected]
        pairs: Mask = prompt | chosen | rejected
        hits = self.hits[kind]
        hits.pairs += int(pairs.sum())
        hits.prompt += int(prompt.sum())
        hits.chosen += int(chosen.sum())
        hits.rejected += int(rejected.sum())
        room = _FIRST_PAIRS - len(hits.first)
        hits.first += [batch.pair_id[int(at)].as_py() for at in np.flatnonzero(pairs)[:room]]
        return pairs

    def _count_tokens(self, batch: PairBatch, found: Mask) -> None:
        """Count, for each control token, the pairs that hold it."""
        of_text = {int(at): set(_TOKEN.findall(batch.texts[int(at)].as_py())) for at in np.flatnonzero(found)}
        of_pair: dict[int, set[str]] = {}
        for pair, text in zip(batch.prompt_pair.tolist(), batch.prompt.tolist(), strict=True):
            if text in of_text:
                of_pair.setdefault(pair, set()).update(of_text[text])
        for side in (batch.chosen, batch.rejected):
            for pair, text in enumerate(side.tolist()):
                if text in of_text:
                    of_pair.setdefault(pair, set()).update(of_text[text])
        for tokens in of_pair.values():
            self.tokens.update(tokens)

    def report(self) -> dict[str, Any]:
        """State pairs and shares by kind, and by control token, the most frequent ones first."""
        tokens = sorted(self.tokens.items(), key=lambda item: (-item[1], item[0]))
        return {
            "pairs": self.limited,
            "share": self.limited / self.pairs,
            "kinds": [
                {"kind": kind, **vars(hits), "share": hits.pairs / self.pairs, "limited": kind in LIMITED}
                for kind, hits in self.hits.items()
            ],
            "control_tokens": [{"token": token, "pairs": pairs} for token, pairs in tokens[:_SHOWN_TOKENS]],
            "control_tokens_found": len(tokens),
        }


def find_markers(texts: pa.Array) -> dict[str, Mask]:
    """Tell, for each of `KINDS`, which texts hold it.

    Parameters
    ----------
    texts : (n,) pyarrow.Array of strings
        Without nulls.

    Returns
    -------
    dict of str to (n,) bool
    """
    # All markup has one of two signs, and most texts have neither.
    markup = np.flatnonzero(pc.match_substring_regex(texts, r"[<\[]").to_numpy(zero_copy_only=False))
    suspects = texts.take(pa.array(markup))
    found = {}
    for kind, pattern in KINDS.items():
        if kind in _WITHOUT_MARKUP:
            found[kind] = pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
            continue
        mask = np.zeros(len(texts), dtype=np.bool_)
        mask[markup] = pc.match_substring_regex(suspects, pattern).to_numpy(zero_copy_only=False)
        found[kind] = mask
    return found
