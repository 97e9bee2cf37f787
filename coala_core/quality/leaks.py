"""What share of the test split's texts training has seen too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coala_core.quality.batches import PairBatch
from coala_core.text_hashes import text_hashes

KINDS = ("prompts", "responses")


@dataclass
class LeakCollector:
    """Takes in batches, counts the distinct texts of the test split.

    Parameters
    ----------
    in_test : (n,) bool
        Which rows of the triplets the test split holds.
    """

    in_test: NDArray[np.bool_]
    hashes: dict[str, list[NDArray[np.uint64]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, batch: PairBatch) -> None:
        """Take in the test rows of a batch."""
        here = self.in_test[batch.start : batch.start + len(batch)]
        of_kind = {
            "prompts": batch.last_message[here],
            "responses": np.concatenate([batch.chosen[here], batch.rejected[here]]),
        }
        for kind, texts in of_kind.items():
            # Without case and spacing, as `coala_core.splits` compares texts.
            distinct = batch.texts.take(pa.array(np.unique(texts))).to_pylist()
            self.hashes[kind].append(text_hashes(" ".join(text.casefold().split()) for text in distinct))

    def report(self, shared_texts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """Set what the split stage counted against all texts of the test split.

        Parameters
        ----------
        shared_texts : mapping
            ``shared_texts`` of the split's report: for prompts and responses, distinct texts by pair of splits.

        Returns
        -------
        dict
            For ``prompts`` (last messages) and ``responses``: ``test``, distinct texts; ``shared``, those that
            occur in training too; ``share``.
        """
        distinct = {kind: len(np.unique(np.concatenate(parts))) for kind, parts in self.hashes.items()}
        shared = {kind: shared_texts[kind]["train/test"] for kind in KINDS}
        return {
            kind: {"test": distinct[kind], "shared": shared[kind], "share": shared[kind] / max(1, distinct[kind])}
            for kind in KINDS
        }
