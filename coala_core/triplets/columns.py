"""Triplets as columns: the schema of the artifact, and blocks that become its row groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from coala_core.triplets.alternating import Triplet

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

TRIPLET_SCHEMA = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("pair_id", pa.string()),
        ("group", pa.string()),
        ("turn", pa.int32()),
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
    ]
)
"""Columns of the artifact; `prompt`, `chosen` and `rejected` are TRL's conversational preference format."""

BLOCK_ROWS = 4096
"""Most rows of a block."""

BLOCK_CHARACTERS = 8 * 2**20
"""Most characters of messages in a block, 32 MiB of UTF-8 at most; a longer triplet is a block of its own."""


class TripletBlock:
    """Successive triplets on their way to one row group.

    Texts are gathered in flat lists, from which Arrow makes a column in one pass; a dict for every message would cost
    several times as much.
    """

    def __init__(self) -> None:
        self._characters = 0
        self._keys: list[tuple[str, str, str, int]] = []
        self._offsets: list[int] = [0]
        self._roles: list[str] = []
        self._contents: list[str] = []
        self._chosen: list[str] = []
        self._rejected: list[str] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, triplet: Triplet) -> bool:
        """Take in a triplet and answer True, or, where there is no room for it, leave it out and answer False."""
        roles, contents = zip(*triplet.prompt, strict=True)
        size = sum(map(len, contents)) + len(triplet.chosen) + len(triplet.rejected)
        if self._keys and (len(self._keys) >= BLOCK_ROWS or self._characters + size > BLOCK_CHARACTERS):
            return False
        self._characters += size
        self._keys.append(triplet[:4])
        self._roles += roles
        self._contents += contents
        self._offsets.append(len(self._contents))
        self._chosen.append(triplet.chosen)
        self._rejected.append(triplet.rejected)
        return True

    def batch(self) -> pa.RecordBatch:
        """Return the rows, of `TRIPLET_SCHEMA`; there must be at least one."""
        conversation_ids, pair_ids, groups, turns = zip(*self._keys, strict=True)
        columns = [
            *(pa.array(values, pa.string()) for values in (conversation_ids, pair_ids, groups)),
            pa.array(turns, pa.int32()),
            _messages(self._offsets, pa.array(self._roles, pa.string()), self._contents),
            _replies(self._chosen),
            _replies(self._rejected),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=TRIPLET_SCHEMA)


def _replies(texts: Sequence[str]) -> pa.ListArray:
    """Make every text a list of one message of the tutor's."""
    return _messages(range(len(texts) + 1), pa.repeat(pa.scalar("assistant"), len(texts)), texts)


def _messages(offsets: Sequence[int], roles: pa.StringArray, contents: Sequence[str]) -> pa.ListArray:
    """Cut flat roles and contents into lists of messages."""
    fields = list(_MESSAGES.value_type)
    messages = pa.StructArray.from_arrays([roles, pa.array(contents, pa.string())], fields=fields)
    return pa.ListArray.from_arrays(pa.array(np.asarray(offsets, dtype=np.int32)), messages, type=_MESSAGES)
