"""A few numbers of every pair: lengths, turn, and which conversation and group it is of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coala_core.quality.batches import Ints, PairBatch
from coala_core.text_hashes import text_hashes

TextName = Literal["prompt", "chosen", "rejected"]
TEXTS: tuple[TextName, ...] = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class PairNumbers:
    """Numbers of all n pairs, in the order of the file."""

    characters: dict[TextName, Ints]
    """(n,) each."""
    words: dict[TextName, Ints]
    """(n,) each; what whitespace separates."""
    messages: Ints
    """(n,) messages of the prompt."""
    turn: Ints
    """(n,) number of the chosen reply, from 1."""
    later: Ints
    """(n,) number of the rejected reply; without meaning for ready pairs."""
    conversation: Ints
    """(n,) number of the conversation, from 0."""
    group: Ints
    """(n,) number of the group, from 0."""
    identical: NDArray[np.bool_]
    """(n,) whether both responses are the same but for surrounding whitespace."""

    def __len__(self) -> int:
        return len(self.turn)

    @property
    def conversations(self) -> int:
        """Distinct conversations."""
        return int(self.conversation.max()) + 1

    @property
    def groups(self) -> int:
        """Distinct groups."""
        return int(self.group.max()) + 1


@dataclass
class NumberCollector:
    """Takes in batches, gives `PairNumbers`; some 60 bytes a pair."""

    parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def add(self, batch: PairBatch) -> None:
        """Measure a batch."""
        characters = pc.utf8_length(batch.texts).to_numpy().astype(np.int64)
        words = np.array([len(text.split()) for text in batch.texts.to_pylist()], dtype=np.int64)
        # Equal texts have one index, so that only surrounding whitespace needs a look at the texts.
        stripped = pc.utf8_trim_whitespace(batch.texts).dictionary_encode().indices.to_numpy()
        part: dict[str, NDArray[Any]] = {
            "messages": batch.messages().astype(np.int32),
            "turn": batch.turn.astype(np.int32),
            "later": _later_turns(batch),
            "conversation": _hashes(batch.conversation_id),
            "group": _hashes(batch.group),
            "identical": stripped[batch.chosen] == stripped[batch.rejected],
        }
        for kind, values in (("characters", characters), ("words", words)):
            of = {
                "prompt": batch.over_prompt(values),
                "chosen": values[batch.chosen],
                "rejected": values[batch.rejected],
            }
            part |= {f"{kind}.{name}": column.astype(np.int32) for name, column in of.items()}
        self.parts.append(part)

    def numbers(self) -> PairNumbers:
        """Join what was taken in, and let go of it."""
        column = {name: np.concatenate([part.pop(name) for part in self.parts]) for name in list(self.parts[0])}
        return PairNumbers(
            characters={name: column[f"characters.{name}"] for name in TEXTS},
            words={name: column[f"words.{name}"] for name in TEXTS},
            messages=column["messages"],
            turn=column["turn"],
            later=column["later"],
            conversation=_codes(column["conversation"]),
            group=_codes(column["group"]),
            identical=column["identical"],
        )


def distribution(values: Ints) -> dict[str, float]:
    """Smallest, quartiles, largest and mean of some numbers, at least one."""
    quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return dict(zip(names, map(float, quartiles), strict=True)) | {"mean": float(np.mean(values))}


def size_report(numbers: PairNumbers) -> dict[str, Any]:
    """Count pairs, conversations and groups, and describe their sizes and the lengths of texts."""
    group_pairs = np.bincount(numbers.group)
    return {
        "pairs": len(numbers),
        "conversations": numbers.conversations,
        "groups": numbers.groups,
        "pairs_per_conversation": distribution(np.bincount(numbers.conversation)),
        "messages_per_prompt": distribution(numbers.messages),
        "pairs_per_group": distribution(group_pairs),
        "largest_group_share": float(group_pairs.max() / len(numbers)),
        "characters": {name: distribution(numbers.characters[name]) for name in TEXTS},
        "words": {name: distribution(numbers.words[name]) for name in TEXTS},
        "identical_pairs": int(numbers.identical.sum()),
        "identical_share": float(numbers.identical.mean()),
    }


def largest_groups(numbers: PairNumbers, count: int) -> list[tuple[int, int]]:
    """Return the groups with the most pairs, as (row of the first of them, pairs), the largest first."""
    _, rows, sizes = np.unique(numbers.group, return_index=True, return_counts=True)
    order = np.lexsort((rows, -sizes))[:count]
    return [(int(rows[at]), int(sizes[at])) for at in order]


def last_turns(numbers: PairNumbers) -> Ints:
    """Return the highest turn of each conversation."""
    highest = np.zeros(numbers.conversations, dtype=np.int64)
    np.maximum.at(highest, numbers.conversation, numbers.turn)
    return highest


def _hashes(names: pa.Array) -> NDArray[np.uint64]:
    """Hash every name, each distinct one of the batch once."""
    encoded = names.dictionary_encode()
    indices: Ints = encoded.indices.to_numpy()
    return text_hashes(encoded.dictionary.to_pylist())[indices]


def _codes(hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Replace hashes by numbers from 0."""
    return np.unique(hashes, return_inverse=True)[1].astype(np.int32)


def _later_turns(batch: PairBatch) -> NDArray[np.int32]:
    """Read the number of the rejected reply off the `pair_id`, which names it where it is not the next one."""
    later = batch.turn.astype(np.int32) + 1
    names = zip(batch.pair_id.to_pylist(), batch.conversation_id.to_pylist(), batch.turn.tolist(), strict=True)
    for at, (pair_id, conversation_id, turn) in enumerate(names):
        number = pair_id.removeprefix(f"{conversation_id}#{turn}-")
        if number != pair_id and number.isascii() and number.isdigit() and len(number) < 9:
            later[at] = int(number)
    return later
