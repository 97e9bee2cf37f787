"""Rows in, blocks of triplets, rejects and counts out, one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from coala_core.config import TripletsConfig
from coala_core.progress import Progress
from coala_core.sources import Conversation, Fault, Preference, Reject, read_conversations
from coala_core.triplets.alternating import Triplet, reach_of, reply_positions, slide
from coala_core.triplets.columns import TripletBlock
from coala_core.triplets.similarity import reply_similarity
from coala_core.triplets.tally import Tally

_PROGRESS_ROWS = 1000


class TripletStream:
    """Triplets of one configuration.

    Parameters
    ----------
    config : TripletsConfig
        What to read and how.
    reject : callable
        Told every row and every pair that is not used, when it comes by.
    progress : Progress
        Told rows every 1,000 rows and at the end.

    Attributes
    ----------
    tally : Tally
        What became of the rows so far.
    """

    def __init__(self, config: TripletsConfig, reject: Callable[[Reject], None], progress: Progress) -> None:
        self.config = config
        self.tally = Tally()
        self._reject = reject
        self._progress = progress

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all triplets in file order, in batches of `TRIPLET_SCHEMA`; call it once."""
        block = TripletBlock()
        for record in self._records():
            for triplet in self._usable(record):
                if not block.add(triplet):
                    yield block.batch()
                    block = TripletBlock()
                    block.add(triplet)
        if len(block):
            yield block.batch()

    def _records(self) -> Iterator[Conversation | Preference]:
        """Yield the records of which triplets can come, and say how many rows have passed."""
        told = 0
        for record in read_conversations(self.config):
            if isinstance(record, Reject):
                self._leave_out(record)
            else:
                yield record
            if self.tally.rows - told >= _PROGRESS_ROWS:
                told = self.tally.rows
                self._progress(told, told, "rows")
        self._progress(self.tally.rows, self.tally.rows, "rows")

    def _usable(self, record: Conversation | Preference) -> Iterator[Triplet]:
        """Yield the triplets of a record that are to be kept."""
        config = self.config
        replies = reply_positions(record.turns) if isinstance(record, Conversation) else []
        if isinstance(record, Conversation):
            triplets = slide(record, replies, config.history, reach_of(config.pairs, config.window, len(replies)))
        else:
            triplets = iter((_ready(record),))
        used = False
        for triplet in triplets:
            reject = self._refuse(triplet, record)
            if reject is None:
                used = True
                yield triplet
            else:
                self._leave_out(reject)
        self.tally.take(record, used, len(replies))

    def _refuse(self, triplet: Triplet, record: Conversation | Preference) -> Reject | None:
        """Count a pair whose replies are alike, and return a reject if it is to be left out."""
        identical = triplet.chosen.strip() == triplet.rejected.strip()
        self.tally.identical_pairs += identical
        if identical and self.config.identical_pairs == "reject":
            return _pair_reject(triplet, record, Fault.EQUAL_REPLIES, "are the same text")
        limit = self.config.near_duplicates
        if limit is None:
            return None
        similarity = 1.0 if identical else reply_similarity(triplet.chosen, triplet.rejected)
        if similarity < limit:
            return None
        self.tally.near_duplicate_pairs += 1
        reason = f"have similarity {similarity:.3f}, near_duplicates={limit} or above"
        return _pair_reject(triplet, record, Fault.NEAR_DUPLICATE, reason)

    def _leave_out(self, reject: Reject) -> None:
        self.tally.reject(reject)
        self._reject(reject)


def _ready(pair: Preference) -> Triplet:
    """Take a ready pair as it is."""
    return Triplet(pair.conversation_id, pair.pair_id, pair.group, 1, 2, pair.prompt, pair.chosen, pair.rejected)


def _pair_reject(triplet: Triplet, record: Conversation | Preference, fault: Fault, reason: str) -> Reject:
    """Say of which two replies a pair was left out, and why."""
    which = f"replies {triplet.turn} and {triplet.later} of row {record.row}"
    return Reject(record.source, record.row, fault, f"{which} {reason}", triplet.chosen[:200], pair_only=True)
