r"""Anthropic HH: a pair as two transcripts, ``"\n\nHuman: ...\n\nAssistant: ..."``, that differ in the last turn."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping

from coala_core.config import TripletsConfig
from coala_core.sources.preferences import Pair
from coala_core.sources.records import Fault, Role, RowError, Turn
from coala_core.sources.turns import response_of, sequence_of, text_of

LAYOUT = "Anthropic HH"

_OPENING = "\n\nHuman:"
_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES: Mapping[str, Role] = {"Human": "user", "Assistant": "assistant"}


def holds_transcripts(content: Mapping[str, object]) -> bool:
    """Tell whether a row is a pair of transcripts: no prompt, and both responses open with ``Human:``."""
    texts = content.get("chosen"), content.get("rejected")
    opened = all(isinstance(text, str) and text.startswith(_OPENING) for text in texts)
    return opened and content.get("prompt") is None


def parse_transcripts(content: Mapping[str, object], config: TripletsConfig) -> Pair:
    r"""Split two transcripts into the turns that they share and their last, the two responses.

    A turn begins after a blank line with ``Human:`` or ``Assistant:`` and one space; its text is verbatim up to the
    next one.

    Parameters
    ----------
    content : mapping
        A row with ``chosen`` and ``rejected``.
    config : TripletsConfig
        Limits on turns and their lengths.

    Raises
    ------
    RowError
        If one is no transcript, does not end with the assistant, or they part before the last turn.
    """
    ours, theirs = (_turns(content[field], field, config) for field in ("chosen", "rejected"))
    shared = len(os.path.commonprefix([ours[:-1], theirs[:-1]]))
    if not shared == len(ours) - 1 == len(theirs) - 1:
        lengths = f"{len(ours)} and {len(theirs)} turns"
        reason = f"the transcripts of {lengths} part at turn {shared + 1}, before the last turn of both"
        raise RowError(Fault.NOT_ONE_RESPONSE, reason)
    return Pair(LAYOUT, ours[:-1], ours[-1].text, theirs[-1].text)


def _turns(text: object, field: str, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read one transcript, whose last turn is the response."""
    if not isinstance(text, str) or not text.startswith(_OPENING):
        reason = f"`{field}` is no transcript that opens with a blank line and `Human:`"
        raise RowError(Fault.UNKNOWN_LAYOUT, reason)
    parts = _SPEAKER.split(text)[1:]
    said = sequence_of(list(zip(parts[::2], parts[1::2], strict=True)), field, config)
    if parts[-2] != "Assistant":
        raise RowError(Fault.NOT_ONE_RESPONSE, f"`{field}` ends with a turn of Human, not with a response")
    last = response_of(parts[-1], f"turn {len(said)} of `{field}`", config)
    earlier = (
        Turn(_ROLES[speaker], text_of(words, f"turn {number} of `{field}`", config))
        for number, (speaker, words) in enumerate(zip(parts[:-2:2], parts[1:-2:2], strict=True), start=1)
    )
    return (*earlier, Turn("assistant", last))
