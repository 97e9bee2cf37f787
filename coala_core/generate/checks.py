"""Is one turn fit for a conversation? Cleaning that changes no words, and faults that ask for another try."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Literal, NamedTuple

from coala_core.generate.topics import Phrases

Speaker = Literal["student", "tutor"]


class TurnFault(StrEnum):
    """Why a turn is asked for again, or its conversation rejected; the keys of the report's counts."""

    EMPTY = "empty"
    REFUSAL = "refusal"
    OFF_ROLE = "off-role"
    CONTROL = "control token"
    REPEATED = "repeated"
    TRUNCATED = "truncated"
    NO_QUESTION = "no question"
    FILTERED = "content filter"
    TOO_LONG = "dialogue too long"
    NO_ANSWER = "no usable answer"


class Checked(NamedTuple):
    """A turn after cleaning, with its fault, if it has one."""

    text: str
    fault: TurnFault | None = None
    reason: str = ""


_LABELS = "student|tutor|teacher|user|assistant|system|human|ai|agent ?[12]|question|answer|q|a"
_LEADING_LABEL = re.compile(rf"^\s*(?:\*\*)?(?:the )?(?:{_LABELS})(?:\*\*)?\s?:(?:\*\*)?\s*", re.IGNORECASE)
_ANY_LABEL = re.compile(
    r"(?:^|[\n\"“(*]|[.!?]\s)\s*((?:the )?(?:student|tutor|teacher|user|assistant|human|agent ?[12])\s?(?:\*\*)?:)",
    re.IGNORECASE,
)
_CONTROL = re.compile(
    r"<\|[^|<>]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|</?think>",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "„": "“"}
_QUESTION = re.compile(r"[?？؟]")
_ENDED = re.compile(r"[.!?…。！？؟][)\]\"'”’»*]*$")
_SENTENCE_END = re.compile(r"(?<![\s\d].)(?<!^.)[.!?…。！？؟][)\]\"'”’»*]*(?=\s|$)|(?<=\d{3})\.(?=\s|$)")
_SENTENCE = re.compile(r"[^.!?…。！？؟\n]+[.!?…。！？؟]*")
_SHORTEST_REST = 12
"""Characters that must be left of a turn that is cut back."""
_STATEMENT_WORDS = 30
"""Words beside its questions with which a student explains rather than asks."""
_LOOPS = 3
_LONG = 200
"""Bytes from which compression tells something."""
_COMPRESSIBLE = 0.3
_SMALL_WORDS = frozenset("a an the is are s re do does please".split())
"""Words by which two questions do not differ: "What's a loop?" and "What is the loop?"."""
_SAME = 0.85
"""Share of words that two turns have in common, in the same order, from which they are the same."""


def check_turn(text: str, speaker: Speaker, earlier: Sequence[str], phrases: Phrases) -> Checked:
    """Clean a turn and look for what makes it unfit.

    Cleaning removes surrounding whitespace, one leading role label ("Tutor:"), quotation marks around the whole
    turn, and an unfinished last sentence; nothing else is changed. A turn is unfit if it

    - is empty, or nothing of note is left before its unfinished sentence;
    - holds a control token of a language model;
    - refuses, or speaks of being a program (`phrases.refusal`);
    - speaks for both sides (a role label within it), or for the other side (`phrases`); a student that explains at
      length; a tutor that does nothing but ask;
    - is the same as an earlier turn, but for a few words, or runs in a loop;
    - is a student's and asks nothing.

    Parameters
    ----------
    text : str
        The turn as it was written.
    speaker : "student" or "tutor"
        Whose turn it is.
    earlier : sequence of str
        All turns before it, of both sides.
    phrases : Phrases
        What gives refusals and off-role turns away.
    """
    if control := _CONTROL.search(text):
        return Checked(text, TurnFault.CONTROL, f"the turn holds {control.group()!r}")
    cleaned = _clean(text)
    if not cleaned:
        return Checked(cleaned, TurnFault.EMPTY, "nothing was said")
    whole = _cut_back(cleaned)
    if whole is None:
        return Checked(cleaned, TurnFault.TRUNCATED, "the turn has no whole sentence")
    fault, reason = (
        _refusal(whole, phrases) or _off_role(whole, speaker, phrases) or _repeated(whole, earlier) or (None, "")
    )
    if fault is None and speaker == "student" and not _QUESTION.search(whole):
        fault, reason = TurnFault.NO_QUESTION, "the student asks nothing"
    return Checked(whole, fault, reason)


_Finding = tuple[TurnFault, str] | None


def _clean(text: str) -> str:
    """Take off whitespace, one leading role label and quotation marks around the whole."""
    text = _LEADING_LABEL.sub("", text.strip(), count=1).strip()
    close = _QUOTES.get(text[:1])
    if close and len(text) > 1 and text.endswith(close) and close not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _cut_back(text: str) -> str | None:
    """Return the turn up to its last whole sentence; None if next to nothing is left."""
    if _ENDED.search(text):
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    rest = text[: ends[-1]].rstrip() if ends else ""
    return rest if len(rest) >= _SHORTEST_REST else None


def _refusal(text: str, phrases: Phrases) -> _Finding:
    found = _find_phrase(text, phrases.refusal)
    return (TurnFault.REFUSAL, f"the turn says {found!r}") if found else None


def _off_role(text: str, speaker: Speaker, phrases: Phrases) -> _Finding:
    if label := _ANY_LABEL.search(text):
        return TurnFault.OFF_ROLE, f"the turn speaks for both sides: {label.group(1)!r}"
    if found := _find_phrase(text, phrases.student_as_tutor if speaker == "student" else phrases.tutor_as_student):
        return TurnFault.OFF_ROLE, f"the {speaker} says {found!r}"
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]
    statements = [sentence for sentence in sentences if not _QUESTION.search(sentence)]
    words = sum(len(statement.split()) for statement in statements)
    if speaker == "student" and words > _STATEMENT_WORDS:
        return TurnFault.OFF_ROLE, f"the student explains, in {words} words beside the question"
    if speaker == "tutor" and not statements:
        return TurnFault.OFF_ROLE, "the tutor only asks"
    return None


def _repeated(text: str, earlier: Sequence[str]) -> _Finding:
    words = _words(text)
    for number, other in enumerate(earlier, start=1):
        if SequenceMatcher(None, words, _words(other), autojunk=False).ratio() >= _SAME:
            return TurnFault.REPEATED, f"the turn repeats turn {number}"
    counts = Counter(" ".join(_words(sentence)) for sentence in _SENTENCE.findall(text))
    counts.pop("", None)
    sentence, times = counts.most_common(1)[0] if counts else ("", 0)
    if times >= _LOOPS:
        return TurnFault.REPEATED, f"the turn says {times} times {sentence[:60]!r}"
    encoded = text.encode("utf-8", errors="replace")
    if len(encoded) >= _LONG and len(zlib.compress(encoded, 9)) < _COMPRESSIBLE * len(encoded):
        return TurnFault.REPEATED, "the turn runs in a loop"
    return None


def _find_phrase(text: str, phrases: Sequence[str]) -> str | None:
    spoken = " ".join(text.casefold().replace("’", "'").split())
    return next((phrase for phrase in phrases if re.search(rf"(?<!\w){re.escape(phrase.casefold())}", spoken)), None)


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in _SMALL_WORDS]
