"""What became of the rows of the input."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from coala_core.sources import Conversation, Preference, Reject


@dataclass
class Tally:
    """Counts of rows, pairs and rejects while files stream by; rejects themselves are not kept, but the first."""

    rows: int = 0
    rows_used: int = 0
    identical_pairs: int = 0
    near_duplicate_pairs: int = 0
    pairs_rejected: int = 0
    first_reject: Reject | None = None
    faults: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    _dialogues: int = 0
    _replies: int = 0
    _unused: int = 0

    def reject(self, reject: Reject) -> None:
        """Count a row, or a pair of a row, that is not used."""
        if reject.pair_only:
            self.pairs_rejected += 1
        else:
            self.rows += 1
        self.faults[str(reject.fault)] += 1
        if self.first_reject is None:
            self.first_reject = reject

    def take(self, record: Conversation | Preference, used: bool, replies: int) -> None:
        """Count the row or rows of a record, and whether it gave a triplet.

        Parameters
        ----------
        record : Conversation or Preference
            A pair may account for several rows, or for none where an earlier pair accounts for its rows; these count
            as used when the first of their pairs is.
        used : bool
            Whether at least one triplet came of it.
        replies : int
            Replies to student turns, in a conversation.
        """
        rows = record.rows if isinstance(record, Preference) else 1
        self.rows += rows
        if rows:
            self._unused = rows
        if not used:
            return
        self.rows_used += self._unused
        self.layouts[record.layout] += self._unused
        self._unused = 0
        if isinstance(record, Conversation):
            self._dialogues += 1
            self._replies += replies

    def report(self) -> dict[str, object]:
        """Return the counts; rejects by fault, the most frequent first."""
        return {
            "rows_in": self.rows,
            "rows_used": self.rows_used,
            "rows_rejected": self.rows - self.rows_used,
            "identical_pairs": self.identical_pairs,
            "near_duplicate_pairs": self.near_duplicate_pairs,
            "pairs_rejected": self.pairs_rejected,
            "rejected_by_reason": dict(self.faults.most_common()),
            "layouts": dict(sorted(self.layouts.items())),
            "replies_mean": self._replies / self._dialogues if self._dialogues else None,
        }
