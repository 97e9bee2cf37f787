"""Recognise the layout of one row and turn it into a checked conversation, ready pair or rated response.

===============  =======================================================================================
``hh``           Anthropic HH: ``chosen``, ``rejected``, transcripts of ``Human:`` and ``Assistant:``
``preference``   TRL, UltraFeedback-binarized: ``chosen``, ``rejected`` as strings or as messages, with
                 a ``prompt`` or beginning with the same one
``bridge``       Bridge: ``c_id``, ``c_h``, ``c_r``, ``c_r_``
``llmbar``       LLMBar: ``input``, ``output_1``, ``output_2``, ``label`` 1 or 2
``edufeedback``  EduFeedback: ``utterances: [[agent1 | agent2, text], ...]``; agent1 is the tutor
``messages``     TRL, ChatML: ``messages: [{role, content}, ...]``
``sharegpt``     ShareGPT: ``conversations: [{from, value}, ...]``
``history``      plain history: ``history: [text, ...]``, the student first
``unpaired``     TRL: ``prompt``, ``completion``, ``label`` true or false; several rows make a pair
``helpsteer``    HelpSteer, HelpSteer2: ``prompt``, ``response`` and scores; several rows make a pair
``imdb``         IMDb: ``text``, ``label`` 1 or 0; two rows make a pair
===============  =======================================================================================

The first layout of the table whose fields all hold something is the row's, whatever else it holds;
`triplets.layout` names one for all rows instead. Before that `triplets.columns` renames the row's fields. A list may
be given as the text of its JSON, as a CSV file must.

A new layout is one reader, one line of `LAYOUTS`, and its name in `coala_core.config.data.LayoutName`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coala_core.config import TripletsConfig
from coala_core.sources.bridge import read_bridge
from coala_core.sources.fields import find_conversation_id, find_group, list_fields, rename_columns, scalar_fields
from coala_core.sources.judged import parse_judged
from coala_core.sources.labelled import read_review, read_unpaired
from coala_core.sources.preferences import Pair, build_preference, parse_preference
from coala_core.sources.rated import read_rated
from coala_core.sources.records import Conversation, Fault, Preference, RatedResponse, Row, RowError, Turn
from coala_core.sources.transcripts import holds_transcripts, parse_transcripts
from coala_core.sources.turns import check_dialogue, checked_turn, parse_messages, sequence_of

Record = Conversation | Preference | RatedResponse
"""What a row can be."""

RowReader = Callable[[Row, TripletsConfig], Record]
Turns = Callable[[object, str, TripletsConfig], tuple[Turn, ...]]
PairReader = Callable[[Mapping[str, object], TripletsConfig], Pair]


@dataclass(frozen=True)
class Layout:
    """How the rows of one source look, and how they are read.

    Attributes
    ----------
    needs : tuple of str
        Fields that every row has.
    read : callable
        Turns a row that has them into a record, or raises `RowError`.
    fits : callable or None
        What else tells the layout from another with the same fields.
    optional : tuple of str
        Fields that a row may have.
    """

    needs: tuple[str, ...]
    read: RowReader
    fits: Callable[[Mapping[str, object]], bool] | None = None
    optional: tuple[str, ...] = ()


def parse_row(row: Row, config: TripletsConfig) -> Record:
    """Read one row, in the layout that the configuration names or the one that it has.

    Parameters
    ----------
    row : Row
        A numbered JSON object.
    config : TripletsConfig
        Names of columns, the layout, limits, and the field to group by.

    Returns
    -------
    Conversation, Preference or RatedResponse
        With its id (from the row, else a digest of its content) and group.

    Raises
    ------
    RowError
        If the row has no known layout or not the one asked for, breaks a rule of its layout, or lacks a column or the
        field to group by.
    """
    if config.columns:
        row = Row(row.number, rename_columns(row.content, config.columns), row.source)
    if config.layout == "auto":
        return _recognise(row.content).read(row, config)
    layout = LAYOUTS[config.layout]
    missing = [field for field in layout.needs if row.content.get(field) is None]
    if missing:
        needs, found = list_fields(layout.needs), list_fields(row.content)
        reason = f"the layout {config.layout} needs {needs}, and the row lacks {list_fields(missing)}, having {found}"
        raise RowError(Fault.MISSING_FIELD, reason)
    return layout.read(row, config)


def _recognise(content: Mapping[str, object]) -> Layout:
    """Find the layout of a row."""
    for layout in LAYOUTS.values():
        for field in layout.needs:
            if content.get(field) is None:
                break
        else:
            if layout.fits is None or layout.fits(content):
                return layout
    found = list_fields(name for name, value in content.items() if value is not None)
    raise RowError(Fault.UNKNOWN_LAYOUT, f"the fields fit no known layout: {found}")


def _dialogue(field: str, layout: str, parse: Turns) -> Layout:
    """Make the layout of a conversation that stands in one field."""
    used = frozenset({field})

    def read(row: Row, config: TripletsConfig) -> Conversation:
        turns = parse(row.content[field], field, config)
        check_dialogue(turns)
        fields = scalar_fields(row.content, used)
        conversation_id = find_conversation_id(fields, turns)
        group = find_group(fields, conversation_id, config.group_by)
        return Conversation(conversation_id, group, turns, fields, row.number, layout, row.source)

    return Layout((field,), read)


def _pair(
    needs: tuple[str, ...],
    parse: PairReader,
    fits: Callable[[Mapping[str, object]], bool] | None = None,
    optional: tuple[str, ...] = (),
) -> Layout:
    """Make the layout of a row that is a pair by itself."""
    used = frozenset({*needs, *optional})

    def read(row: Row, config: TripletsConfig) -> Preference:
        return build_preference(row, parse(row.content, config), used, config)

    return Layout(needs, read, fits, optional)


def _utterances(value: object, field: str, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read EduFeedback's [speaker, text] pairs."""
    turns = []
    for number, item in enumerate(sequence_of(value, field, config), start=1):
        if not isinstance(item, list) or len(item) != 2:
            raise RowError(Fault.UNKNOWN_LAYOUT, f"turn {number} of `{field}` is not a [speaker, text] pair")
        turns.append(checked_turn(item[0], item[1], number, field, config))
    return tuple(turns)


def _history(value: object, field: str, config: TripletsConfig) -> tuple[Turn, ...]:
    """Read a plain list of texts in which the student begins."""
    texts = sequence_of(value, field, config)
    return tuple(
        checked_turn("user" if number % 2 else "assistant", text, number, field, config)
        for number, text in enumerate(texts, start=1)
    )


LAYOUTS: Mapping[str, Layout] = {
    "hh": _pair(("chosen", "rejected"), parse_transcripts, fits=holds_transcripts),
    "preference": _pair(("chosen", "rejected"), parse_preference, optional=("prompt",)),
    "bridge": Layout(("c_id", "c_h", "c_r", "c_r_"), read_bridge, optional=("lesson_topic",)),
    "llmbar": _pair(("input", "output_1", "output_2", "label"), parse_judged),
    "edufeedback": _dialogue("utterances", "EduFeedback", _utterances),
    "messages": _dialogue("messages", "messages", parse_messages),
    "sharegpt": _dialogue("conversations", "ShareGPT", parse_messages),
    "history": _dialogue("history", "history", _history),
    "unpaired": Layout(("prompt", "completion", "label"), read_unpaired),
    "helpsteer": Layout(("prompt", "response"), read_rated),
    "imdb": Layout(("text", "label"), read_review),
}
"""Every layout by the name that `triplets.layout` gives it, in the order in which a row is compared with them."""

LAYOUT_FIELDS = frozenset(field for layout in LAYOUTS.values() for field in (*layout.needs, *layout.optional))
"""Every field that belongs to a layout."""
