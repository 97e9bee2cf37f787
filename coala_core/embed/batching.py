"""Forward passes over many sequences: packed by common prefix, or padded side by side."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from coala_core.embed.language_model import LanguageModel
from coala_core.embed.prefix_tree import PackedBatch, Span, Tokens, pack_batches

if TYPE_CHECKING:
    import torch

MAX_PADDING = 0.05
"""Largest share of padded positions in a batch."""


class Batch(Protocol):
    """Sequences that go through the model in one forward pass."""

    rows: tuple[int, ...]
    """Which sequences."""
    paths: tuple[tuple[Span, ...], ...]
    """For each of `rows`, the spans of its tokens in the states."""
    computed: int
    """Tokens computed, padding excluded."""
    padding: int
    """Padded positions."""
    attended: int
    """Pairs of a token with one that it sees."""

    def states(self, model: LanguageModel) -> tuple[torch.Tensor, ...]:
        """Hidden states, (positions, hidden) for each of the model's layers."""


class SharedBatch:
    """Sequences packed by common prefix.

    Parameters
    ----------
    packed : PackedBatch
        What to run.
    names : sequence of int
        Which sequences the packing's rows are.
    """

    padding = 0

    def __init__(self, packed: PackedBatch, names: Sequence[int]) -> None:
        self.rows = tuple(names[row] for row in packed.rows)
        self.paths = packed.paths
        self.computed = len(packed.token_ids)
        self.attended = packed.attended
        self._packed = packed

    def states(self, model: LanguageModel) -> tuple[torch.Tensor, ...]:
        """Run the row along its tree."""
        return model.packed_states(self._packed)


class PaddedBatch:
    """Sequences side by side, padded on the right to the longest.

    Parameters
    ----------
    sequences : sequence of token sequences
        What to run.
    rows : tuple of int
        Which sequences these are.
    """

    def __init__(self, sequences: Sequence[Tokens], rows: tuple[int, ...]) -> None:
        lengths = [len(sequence) for sequence in sequences]
        longest = max(lengths)
        self.rows = rows
        self.paths: tuple[tuple[Span, ...], ...] = tuple(
            ((row * longest, length),) for row, length in enumerate(lengths)
        )
        self.computed = sum(lengths)
        self.padding = longest * len(lengths) - self.computed
        self.attended = sum(length * (length + 1) // 2 for length in lengths)
        self._ids = np.zeros((len(lengths), longest), dtype=np.int64)
        for row, sequence in enumerate(sequences):
            self._ids[row, : len(sequence)] = sequence

    def states(self, model: LanguageModel) -> tuple[torch.Tensor, ...]:
        """Run the rows and lay their states end to end."""
        import torch

        ids = torch.from_numpy(self._ids).to(model.device)
        return tuple(states.flatten(0, 1) for states in model.hidden_states(ids))


def shared_batches(sequences: Sequence[Tokens], names: Sequence[int], budget: int) -> Iterator[Batch]:
    """Pack sequences by common prefix, at most `budget` tokens a batch."""
    for packed in pack_batches(sequences, budget):
        yield SharedBatch(packed, names)


def padded_batches(sequences: Sequence[Tokens], names: Sequence[int], budget: int) -> Iterator[Batch]:
    """Group sequences of similar length, padding included at most `budget` tokens and `MAX_PADDING` padding a batch."""
    for rows in similar_lengths([len(sequence) for sequence in sequences], budget):
        yield PaddedBatch([sequences[row] for row in rows], tuple(names[row] for row in rows))


def similar_lengths(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group rows of similar length so that rows times the longest stays within the token budget.

    A row longer than the budget forms a batch of its own. Longest first, so that memory peaks at the start.

    >>> list(similar_lengths([100, 9, 98, 10], budget=200))
    [[0, 2], [3], [1]]
    """
    batch: list[int] = []
    filled = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        room = (len(batch) + 1) * lengths[batch[0]] if batch else lengths[row]
        if batch and (room > budget or room - filled - lengths[row] > MAX_PADDING * room):
            yield batch
            batch, filled = [], 0
        batch.append(row)
        filled += lengths[row]
    if batch:
        yield batch


def memory_is_short(error: BaseException) -> bool:
    """Tell whether a failure means that memory was short; if so, free what can be freed."""
    import torch

    short = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        sign in str(error) for sign in ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )
    if short:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return short
