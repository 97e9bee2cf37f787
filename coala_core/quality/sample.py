"""Some pairs drawn at random: those that near-duplicates and languages are counted on, and those that are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from coala_core.quality.batches import Ints, PairBatch

SHOWN = 5
CHARACTERS = 10_000
"""Of a longer text only so many characters are kept, which bounds the memory of a sample."""


class SampledPair(NamedTuple):
    """One pair, its texts cut to `CHARACTERS`."""

    conversation_id: str
    pair_id: str
    turn: int
    messages: int
    prompt: str
    """The last message of the prompt."""
    chosen: str
    rejected: str


@dataclass
class SampleCollector:
    """Takes in batches, keeps the pairs that were drawn.

    Parameters
    ----------
    pairs : int
        Rows of the file.
    size : int
        Pairs to draw without replacement, or all where there are fewer.
    seed : int
        Seed of the draw.
    """

    pairs: int
    size: int
    seed: int
    sampled: list[SampledPair] = field(default_factory=list)
    shown: list[SampledPair] = field(default_factory=list)

    def __post_init__(self) -> None:
        drawn = np.random.default_rng(self.seed).choice(self.pairs, min(self.size, self.pairs), replace=False)
        self._rows: Ints = np.sort(drawn)
        self._shown_rows = set(drawn[:SHOWN].tolist())

    def add(self, batch: PairBatch) -> None:
        """Keep the drawn ones of a batch, in the order of the file."""
        low, high = np.searchsorted(self._rows, [batch.start, batch.start + len(batch)])
        last = batch.last_message
        messages = batch.messages()
        for row in self._rows[low:high].tolist():
            at = row - batch.start
            texts = (batch.texts[int(of[at])].as_py()[:CHARACTERS] for of in (last, batch.chosen, batch.rejected))
            pair = SampledPair(
                batch.conversation_id[at].as_py(),
                batch.pair_id[at].as_py(),
                int(batch.turn[at]),
                int(messages[at]),
                *texts,
            )
            self.sampled.append(pair)
            if row in self._shown_rows:
                self.shown.append(pair)
