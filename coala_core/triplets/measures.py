"""What is known of triplets once they have streamed by: counts, mean lengths, distinct ids, a digest of the texts."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coala_core.storage import digest
from coala_core.text_hashes import Repetitions, text_hashes

_DIGESTED = ("pair_id", "prompt", "chosen", "rejected")


class Measures:
    """Running sums over batches of triplets; they take 8 bytes for each pair and each conversation."""

    def __init__(self) -> None:
        self.triplets = 0
        self._chosen_longer = 0
        self._characters = {"prompt": 0, "chosen": 0, "rejected": 0}
        self._pairs = Repetitions()
        self._conversations = array("Q")

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in a batch of `TRIPLET_SCHEMA`."""
        self.triplets += batch.num_rows
        lengths = {name: pc.utf8_length(batch.column(name).flatten().flatten()[1]) for name in self._characters}
        for name, characters in lengths.items():
            self._characters[name] += pc.sum(characters).as_py()
        self._chosen_longer += pc.sum(pc.greater(lengths["chosen"], lengths["rejected"])).as_py()
        self._pairs.add(batch.column("pair_id").to_pylist())
        self._conversations.frombytes(text_hashes(batch.column("conversation_id").unique().to_pylist()).tobytes())

    def report(self) -> dict[str, object]:
        """Return counts and means; there must have been a triplet.

        Conversations are counted by 64-bit hashes: of n, one is missed with a probability below n^2 / 2^65, which is
        3e-8 for a million.
        """
        means = {f"{name}_characters_mean": total / self.triplets for name, total in self._characters.items()}
        return {
            "conversations": len(np.unique(np.frombuffer(self._conversations, dtype=np.uint64))),
            "triplets": self.triplets,
            "chosen_longer_share": self._chosen_longer / self.triplets,
            **means,
        }

    def repeated_pair_ids(self, batches: Iterable[pa.RecordBatch]) -> dict[str, int]:
        """Return each pair_id that names several triplets, with their number, the most frequent first.

        Parameters
        ----------
        batches : iterable of pyarrow.RecordBatch
            The same triplets once more, the column ``pair_id`` at least; looked at only if there is reason to.
        """
        return self._pairs.found(pair_id for batch in batches for pair_id in batch.column("pair_id").to_pylist())


class TextsDigest:
    """Digest of ids and texts in order, which is all of the triplets that features depend on.

    Of every column of strings inside ``pair_id``, ``prompt``, ``chosen`` and ``rejected``, and of every list in them,
    the bytes and the lengths are digested one after the other, each with a SHA-256 of its own. Together they determine
    the rows, and where the rows are cut into batches has no say.
    """

    def __init__(self) -> None:
        self._parts: dict[str, hashlib._Hash] = {}

    def update(self, batch: pa.RecordBatch) -> None:
        """Take in the next rows; further columns are ignored."""
        for name in _DIGESTED:
            self._take(name, batch.column(name))

    def hexdigest(self) -> str:
        """SHA-256, in hex, of all rows so far."""
        return digest({name: part.hexdigest() for name, part in self._parts.items()})

    def _take(self, name: str, column: pa.Array) -> None:
        """Digest a column of strings or of lists of messages."""
        if pa.types.is_string(column.type):
            self._feed(f"{name}: lengths", pc.binary_length(column).to_numpy().astype("<i8"))
            self._feed(f"{name}: bytes", _bytes_of(column))
            return
        self._feed(f"{name}: lengths", pc.list_value_length(column).to_numpy().astype("<i8"))
        messages = column.flatten()
        for field, values in zip(messages.type, messages.flatten(), strict=True):
            self._take(f"{name}.{field.name}", values)

    def _feed(self, name: str, content: NDArray[Any]) -> None:
        """Add an array's bytes to one of the digests."""
        self._parts.setdefault(name, hashlib.sha256()).update(content.data)


def _bytes_of(strings: pa.StringArray) -> NDArray[np.uint8]:
    """Return the bytes of all strings, one after the other, without a copy."""
    _, offsets, data = strings.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[strings.offset : strings.offset + len(strings) + 1]
    whole = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
    return whole[ends[0] : ends[-1]]
