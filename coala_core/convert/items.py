"""Records together with everything else that their rows hold, so that a conversion can keep it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from coala_core.config import TripletsConfig
from coala_core.convert.columns import unpack
from coala_core.convert.layouts import TURN_FIELDS, Extras, Fields
from coala_core.convert.refusals import Inexpressible, Refusal, refuse_row
from coala_core.sources import (
    Preference,
    Reject,
    Row,
    RowError,
    SourceFile,
    parse_row,
    read_rows,
    resolve_conversations,
)
from coala_core.sources.fields import rename_columns
from coala_core.sources.layouts import Record
from coala_core.sources.pairing import Key, LabelPairs, ScorePairs, key_of
from coala_core.sources.records import RatedResponse, reject_row
from coala_core.sources.turns import sequence_of

CHOSEN_FIELDS, REJECTED_FIELDS = "chosen_fields", "rejected_fields"
"""Fields of a pair of several rows in which its rows differ, as a mapping for each response."""

PROMPT_TEXT = "prompt_text"
"""Field for a prompt that stands beside whole dialogues and says something else than they do."""

BETTER_OUTPUT = "better_output"
"""Field for the place, 1 or 2, of the chosen response of LLMBar."""

_PAIR = ("prompt", "chosen", "rejected")
_HOLDS: Mapping[str, tuple[str, ...]] = {
    "EduFeedback": ("utterances",),
    "messages": ("messages",),
    "ShareGPT": ("conversations",),
    "history": ("history",),
    "LLMBar": ("input", "output_1", "output_2", "label"),
    "Bridge": (),
    "unpaired preference": ("prompt", "completion", "label"),
    "HelpSteer": ("prompt", "response"),
    "IMDb": ("text", "label"),
}
"""Fields of each layout that a record holds whole; Bridge's messages say more than the pair does, so all are kept."""


@dataclass(frozen=True)
class Item:
    """A record, and what else its row holds.

    Attributes
    ----------
    record : Conversation, Preference or RatedResponse
        The checked dialogue, pair or response.
    fields : mapping
        Every other field of the row, as it is.
    extras : sequence of mapping
        What each turn of a dialogue, or each message of prompt, chosen and rejected, or of prompt and completion,
        holds beside speaker and text; empty where none holds more.
    row : Row
        The row, or the first of several.
    """

    record: Record
    fields: Fields
    extras: Extras
    row: Row


class _Response(str):
    """A response that knows its row, also when it has become part of a pair."""

    item: Item


class ItemReader:
    """Reads what a configuration names.

    Parameters
    ----------
    config : TripletsConfig
        As for `read_conversations`; ids that occur twice are left to whoever reads the output.
    paired : bool
        Whether rated responses become pairs; else each labelled one is an item of its own.

    Attributes
    ----------
    rows : int
        Rows so far.
    """

    def __init__(self, config: TripletsConfig, paired: bool) -> None:
        self.rows = 0
        self._config = config
        self._paired = paired
        self._files = resolve_conversations(config.conversations)
        self._by_label = LabelPairs(config, _accept)
        self._by_score = ScorePairs(config, _accept, self._count_responses)

    def items(self) -> Iterator[Item | Reject | Refusal]:
        """Yield every row's item, reject or refusal; pairs of several rows when they are complete."""
        for file in self._files:
            for row in _rows(file):
                self.rows += 1
                if isinstance(row, Reject):
                    yield row
                    continue
                try:
                    item = _item(row, self._config)
                except RowError as error:
                    yield reject_row(row, error)
                except Inexpressible as error:
                    yield refuse_row(row, error)
                else:
                    yield from self._pair(item) if isinstance(item.record, RatedResponse) else (item,)
        for pair in (*self._by_label.finish(), *self._by_score.finish()):
            yield _combine(pair) if isinstance(pair, Preference) else pair

    def _pair(self, item: Item) -> Iterator[Item | Reject | Refusal]:
        """Yield the pairs that a rated response completes, or itself."""
        record = cast(RatedResponse, item.record)
        if record.pairing == "label" and not self._paired:
            yield item
            return
        response = _Response(record.response)
        response.item = item
        pairing = self._by_label if record.pairing == "label" else self._by_score
        for pair in pairing.add(replace(record, response=response)):
            yield _combine(pair) if isinstance(pair, Preference) else pair

    def _count_responses(self) -> Counter[Key]:
        """Count the scored responses of each prompt."""
        counts: Counter[Key] = Counter()
        for row in (row for file in self._files for row in _rows(file) if isinstance(row, Row)):
            try:
                record = parse_row(row, self._config)
            except RowError:
                continue
            if isinstance(record, RatedResponse) and record.pairing == "score":
                counts[key_of(record)] += 1
        return counts


def _accept(pair: Preference) -> None:
    """Take every pair."""


def _rows(file: SourceFile) -> Iterator[Row | Reject]:
    """Read rows, those of files with columns as they were before they became columns."""
    for row in read_rows(file):
        if isinstance(row, Row) and file.suffix.startswith((".parquet", ".csv", ".tsv")):
            cells = row.content if file.suffix == ".parquet" else {k: v or None for k, v in row.content.items()}
            row = replace(row, content=unpack(cells))
        yield row


def _item(row: Row, config: TripletsConfig) -> Item:
    """Read a row."""
    record = parse_row(row, config)
    content = rename_columns(row.content, config.columns) if config.columns else row.content
    held = _HOLDS.get(record.layout, _PAIR)
    fields = {name: value for name, value in content.items() if name not in held}
    if record.layout == "LLMBar":
        fields[BETTER_OUTPUT] = content["label"]
    if record.layout.startswith("preference"):
        said = {turn.text for turn in cast(Preference, record).prompt}
        beside = content.get("prompt") if isinstance(content["chosen"], list) else None
        if isinstance(beside, str) and beside not in said:
            fields[PROMPT_TEXT] = beside
    extras = _restore(record, fields) or _find_extras(record, content, config)
    return Item(record, fields, extras if any(extras) else (), row)


def _restore(record: Record, fields: Fields) -> Extras:
    """Take the extras of turns out of the field in which layouts of bare texts carry them."""
    texts = record.layout in ("EduFeedback", "history", "Anthropic HH", "preference, standard explicit")
    carried = fields.get(TURN_FIELDS)
    if not texts or not isinstance(carried, list) or not all(isinstance(extra, dict) for extra in carried):
        return ()
    turns = len(record.prompt) + 2 if isinstance(record, Preference) else len(_turns(record))
    if len(carried) != turns or not any(carried):
        return ()
    del fields[TURN_FIELDS]
    return carried


def _find_extras(record: Record, content: Mapping[str, object], config: TripletsConfig) -> Extras:
    """Collect what messages hold beside speaker and text."""
    match record.layout:
        case "messages" | "ShareGPT":
            field = _HOLDS[record.layout][0]
            return _extras_of(sequence_of(content[field], field, config))  # a cell of CSV holds a list as text
        case "unpaired preference":
            return (*_extras_of(content["prompt"]), *_extras_of(content["completion"]))
        case "preference, conversational explicit":
            return tuple(extra for field in _PAIR for extra in _extras_of(content[field]))
        case "preference, conversational implicit":
            ours, theirs = (_extras_of(content[field]) for field in _PAIR[1:])
            if ours[:-1] != theirs[:-1]:
                raise Inexpressible(
                    "the messages of `chosen` and `rejected` agree in texts but not in their other keys"
                )
            return (*ours, theirs[-1])
    return ()


def _extras_of(said: object) -> Extras:
    """Return the further keys of each of some checked messages, or none for the one message that a text is."""
    if isinstance(said, str):
        return ({},)
    messages = cast(Sequence[Mapping[str, object]], said)
    return tuple({key: value for key, value in message.items() if key not in _keys_of(message)} for message in messages)


def _keys_of(message: Mapping[str, object]) -> tuple[str, str]:
    """Return the keys that a message's speaker and text were read from."""
    return ("role", "content") if "role" in message and "content" in message else ("from", "value")


def _turns(record: Record) -> Sequence[object]:
    """Return the turns of a conversation, or of the prompt."""
    return record.prompt if isinstance(record, Preference | RatedResponse) else record.turns


def _combine(pair: Preference) -> Item | Refusal:
    """Bring together what the two rows of a pair hold."""
    one, other = (cast(_Response, response).item for response in (pair.chosen, pair.rejected))
    shared = {
        name: value for name, value in one.fields.items() if name in other.fields and same(other.fields[name], value)
    }
    fields = dict(shared)
    for name, item in ((CHOSEN_FIELDS, one), (REJECTED_FIELDS, other)):
        own = {key: value for key, value in item.fields.items() if key not in shared}
        if own and name in item.fields:
            return refuse_row(item.row, Inexpressible(f"its own field `{name}` would be overwritten; rename it"))
        if own:
            fields[name] = own
    blank: Extras = ({},) * (len(pair.prompt) + 1)
    ours, theirs = one.extras or blank, other.extras or blank
    if ours[:-1] != theirs[:-1]:
        return refuse_row(
            other.row, Inexpressible("the prompts of the pair agree in texts but not in their other keys")
        )
    extras = (*ours, theirs[-1])
    plain = replace(pair, chosen=str(pair.chosen), rejected=str(pair.rejected))
    return Item(plain, fields, extras if any(extras) else (), one.row)


def same(one: object, other: object) -> bool:
    """Tell whether two values are equal and, unlike 1 and true, of one type."""
    return type(one) is type(other) and one == other
