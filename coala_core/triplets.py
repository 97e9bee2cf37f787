"""Stage ``triplets``: prompt, chosen and rejected by alternating population (paper 6.3 and appendix E.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal, NamedTuple

import pyarrow as pa

from coala_core.config import TripletsConfig
from coala_core.progress import Progress, silent
from coala_core.sources import Conversation, Fault, Preference, Reject, Turn, read_conversations, resolve_conversations

History = Literal["full", "turn"]

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

_BATCH_TRIPLETS = 1024
_PROGRESS_ROWS = 1000


class Triplet(NamedTuple):
    """A prompt that ends with the student, the reply to prefer and the reply to disfavour.

    `turn` counts the tutor's replies to student turns from 1; `pair_id` is ``{conversation_id}#{turn}`` unless a
    ready pair brings its own.
    """

    conversation_id: str
    pair_id: str
    group: str
    turn: int
    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class TripletTable:
    """What the stage gives back.

    Attributes
    ----------
    table : pyarrow.Table
        One row per triplet, of `TRIPLET_SCHEMA`, in file order.
    rejects : tuple of Reject
        Every row and every pair that was not used, in file order.
    report : dict
        ``rows_in`` = ``rows_used`` (gave a triplet) + ``rows_rejected`` (gave none); ``identical_pairs``, pairs of
        identical replies, and ``pairs_rejected``, those of them that were left out; ``rejected_by_reason``, all
        `rejects` by fault, of rows and of pairs; ``layouts``, used rows by layout; ``conversations``, distinct ids
        in the table; ``triplets``; ``replies_mean``, replies to student turns per used dialogue (None without
        dialogues); ``chosen_longer_share``, share of pairs whose chosen reply has more characters; means of
        characters ``prompt_characters_mean``, ``chosen_characters_mean``, ``rejected_characters_mean``.
    """

    table: pa.Table
    rejects: tuple[Reject, ...]
    report: dict[str, object]


def alternating_triplets(conversation: Conversation, history: History = "full") -> list[Triplet]:
    """Slide over a conversation: r replies to student turns give r - 1 triplets (paper 6.3, appendix E.2).

    The prompt ends with a student turn; chosen is the tutor's reply to it and rejected the tutor's next reply.
    A leading tutor turn is history only. Replies that are the same text give a triplet like any other.

    Parameters
    ----------
    conversation : Conversation
        A checked conversation.
    history : {"full", "turn"}, default="full"
        "full" puts every turn up to the student's into the prompt; "turn" only the system turn, if any, and the
        student's.

    Returns
    -------
    list of Triplet
        In the order of the conversation; r - 1 of them.

    Raises
    ------
    ValueError
        If `history` is neither word.
    """
    if history not in ("full", "turn"):
        raise ValueError(
            f'`alternating_triplets(history=...)` must be "full" or "turn", got {history!r}; '
            'take "full" for the prompts of the paper.'
        )
    return list(_windows(conversation, history))


def build_triplets(config: TripletsConfig, progress: Progress | None = None) -> TripletTable:
    """Read one file and build its triplets.

    Parameters
    ----------
    config : TripletsConfig
        The file, how much history a prompt holds, the group field and the limits.
    progress : Progress, optional
        Called every 1,000 rows; how many will come is not known ahead, so both counts are the rows so far.

    Returns
    -------
    TripletTable
        Triplets in file order, rejects and report; the same file and configuration give the same table.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, a directory or of an unknown kind, no row gives a triplet, or two triplets
        share a `pair_id`.
    """
    source = resolve_conversations(config.conversations).name
    tally = _Tally(keep_identical=config.identical_pairs == "keep")
    report_progress = progress or silent
    for rows, record in enumerate(read_conversations(config), start=1):
        tally.add(record, source, config.history)
        if rows % _PROGRESS_ROWS == 0:
            report_progress(rows, rows, "rows")
    report_progress(tally.rows, tally.rows, "rows")
    table = tally.table()
    if table.num_rows == 0:
        raise ValueError(_nothing_usable(config.conversations, tally))
    _check_pair_ids(table)
    return TripletTable(table, tuple(tally.rejects), tally.report(table))


@dataclass
class _Tally:
    """Triplets, rejects and counts while a file streams by."""

    keep_identical: bool
    rows: int = 0
    rows_used: int = 0
    identical_pairs: int = 0
    pairs_rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)
    replies: list[int] = field(default_factory=list)
    layouts: Counter[str] = field(default_factory=Counter)
    batches: list[pa.RecordBatch] = field(default_factory=list)
    pending: list[Triplet] = field(default_factory=list)
    lengths: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, record: Conversation | Preference | Reject, source: str, history: History) -> None:
        """Take in one row."""
        self.rows += 1
        if isinstance(record, Reject):
            self.rejects.append(record)
            return
        triplets = list(_windows(record, history)) if isinstance(record, Conversation) else [_ready(record)]
        identical = [triplet for triplet in triplets if _states_nothing(triplet)]
        self.identical_pairs += len(identical)
        left_out = [] if self.keep_identical else identical
        self.rejects += [_reject_pair(triplet, record.row, source) for triplet in left_out]
        self.pairs_rejected += len(left_out)
        usable = [triplet for triplet in triplets if triplet not in left_out]
        if usable:
            self.rows_used += 1
            self.layouts[record.layout] += 1
            self._keep(usable)
            if isinstance(record, Conversation):
                self.replies.append(len(triplets) + 1)

    def _keep(self, triplets: list[Triplet]) -> None:
        """Measure triplets and move them to columns in batches."""
        self.pending += triplets
        self.lengths += [(sum(len(t.text) for t in p.prompt), len(p.chosen), len(p.rejected)) for p in triplets]
        if len(self.pending) >= _BATCH_TRIPLETS:
            self._flush()

    def _flush(self) -> None:
        """Turn waiting triplets into one Arrow batch."""
        self.batches.append(pa.RecordBatch.from_pylist([_columns(t) for t in self.pending], schema=TRIPLET_SCHEMA))
        self.pending = []

    def table(self) -> pa.Table:
        """Return everything taken in so far as one table."""
        self._flush()
        return pa.Table.from_batches(self.batches, schema=TRIPLET_SCHEMA)

    def report(self, table: pa.Table) -> dict[str, object]:
        """Return the counts; the table must not be empty."""
        prompt, chosen, rejected = zip(*self.lengths, strict=True)
        return {
            "rows_in": self.rows,
            "rows_used": self.rows_used,
            "rows_rejected": self.rows - self.rows_used,
            "identical_pairs": self.identical_pairs,
            "pairs_rejected": self.pairs_rejected,
            "rejected_by_reason": self.by_reason(),
            "layouts": dict(sorted(self.layouts.items())),
            "conversations": len(table["conversation_id"].unique()),
            "triplets": table.num_rows,
            "replies_mean": fmean(self.replies) if self.replies else None,
            "chosen_longer_share": fmean(ours > theirs for _, ours, theirs in self.lengths),
            "prompt_characters_mean": fmean(prompt),
            "chosen_characters_mean": fmean(chosen),
            "rejected_characters_mean": fmean(rejected),
        }

    def by_reason(self) -> dict[str, int]:
        """Count rejects by fault, the most frequent first."""
        return {str(fault): count for fault, count in Counter(reject.fault for reject in self.rejects).most_common()}


def _windows(conversation: Conversation, history: History) -> Iterator[Triplet]:
    """Yield every window of the conversation."""
    turns = conversation.turns
    replies = [at for at, turn in enumerate(turns) if turn.role == "assistant" and at and turns[at - 1].role == "user"]
    system = tuple(turn for turn in turns[:1] if turn.role == "system")
    for number, (at, after) in enumerate(zip(replies, replies[1:], strict=False), start=1):
        yield Triplet(
            conversation_id=conversation.conversation_id,
            pair_id=f"{conversation.conversation_id}#{number}",
            group=conversation.group,
            turn=number,
            prompt=turns[:at] if history == "full" else (*system, turns[at - 1]),
            chosen=turns[at].text,
            rejected=turns[after].text,
        )


def _ready(pair: Preference) -> Triplet:
    """Take a ready pair as the only triplet of its row."""
    return Triplet(pair.conversation_id, pair.pair_id, pair.group, 1, pair.prompt, pair.chosen, pair.rejected)


def _states_nothing(triplet: Triplet) -> bool:
    """Tell whether both replies are the same text."""
    return triplet.chosen.strip() == triplet.rejected.strip()


def _reject_pair(triplet: Triplet, row: int, source: str) -> Reject:
    """Report a pair of identical replies."""
    reason = f"replies {triplet.turn} and {triplet.turn + 1} of row {row} are the same text"
    return Reject(source, row, Fault.EQUAL_REPLIES, reason, triplet.chosen[:200], pair_only=True)


def _columns(triplet: Triplet) -> dict[str, object]:
    """Lay a triplet out as one row of the table."""
    return triplet._asdict() | {
        "prompt": _messages(triplet.prompt),
        "chosen": _messages([Turn("assistant", triplet.chosen)]),
        "rejected": _messages([Turn("assistant", triplet.rejected)]),
    }


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Write turns as TRL's messages."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _nothing_usable(name: str, tally: _Tally) -> str:
    """Say in one sentence why a file gave nothing."""
    opening = f"`build_triplets(conversations={name!r})` needs at least one row that gives a pair, got"
    if not tally.rows:
        return f"{opening} a file without rows; name a file with conversations."
    counts = ", ".join(f"{count} {fault}" for fault, count in tally.by_reason().items())
    first = tally.rejects[0]
    return (
        f"{opening} none of {tally.rows} ({counts}; first, row {first.row}: {first.reason}); "
        "bring the rows into one of the layouts that `coala_core.sources.layouts` lists."
    )


def _check_pair_ids(table: pa.Table) -> None:
    """Refuse two triplets of one id, which ready pairs with ids of their own could bring."""
    counts = Counter(table["pair_id"].to_pylist())
    repeated = [pair_id for pair_id, count in counts.most_common(3) if count > 1]
    if repeated:
        raise ValueError(
            f"`build_triplets` needs a pair_id to name one triplet, got several for {', '.join(map(repr, repeated))}; "
            "rename the conversations or pairs of the input."
        )
