"""LLMBar: an instruction with two outputs, and which of them the judges took to follow it."""

from __future__ import annotations

from collections.abc import Mapping

from coala_core.config import TripletsConfig
from coala_core.sources.preferences import Pair
from coala_core.sources.records import Fault, RowError, Turn
from coala_core.sources.turns import response_of, text_of

LAYOUT = "LLMBar"

_OUTPUTS = ("output_1", "output_2")
_NUMBERS = (1, "1", 2, "2")


def parse_judged(content: Mapping[str, object], config: TripletsConfig) -> Pair:
    """Read a row of ``input``, ``output_1``, ``output_2`` and ``label``: the output with the label's number is chosen.

    Raises
    ------
    RowError
        If a text is refused, or the label is neither 1 nor 2.
    """
    prompt = Turn("user", text_of(content["input"], "`input`", config))
    first, second = (response_of(content[field], f"`{field}`", config) for field in _OUTPUTS)
    label = content["label"]
    number = label.strip() if isinstance(label, str) else label
    if not isinstance(number, str | int | float) or isinstance(number, bool) or number not in _NUMBERS:
        found = ascii(label)[:40] if isinstance(label, str | int | float) else f"a {type(label).__name__}"
        raise RowError(Fault.BAD_LABEL, f"`label` must be 1 or 2, the number of the better output, got {found}")
    # Some pairs were judged twice, the second time with the outputs exchanged.
    if number in _NUMBERS[:2]:
        return Pair(LAYOUT, (prompt,), first, second, mark="1")
    return Pair(LAYOUT, (prompt,), second, first, mark="2")
