"""Every row is counted once, as used or as rejected."""

import pytest

from coala_core.sources import Conversation, Fault, Preference, Reject, Turn
from coala_core.triplets.tally import Tally


def pair(rows):
    return Preference("c", "g", "p", (Turn("user", "U"),), "a", "b", {}, 1, "ready", rows=rows)


def reject(pair_only, fault=Fault.EMPTY):
    return Reject("file", 1, fault, "reason", "excerpt", pair_only)


@pytest.mark.parametrize(
    ("pairs", "rows", "used"),
    [
        ([(1, True), (1, False)], 2, 1),
        ([(2, True), (2, True), (2, False)], 6, 4),
        ([(3, True), (0, True), (0, False)], 3, 3),  # three rows, several pairs
        ([(3, False), (0, True), (0, True)], 3, 3),  # the first pair is left out, the rows are used
        ([(3, False), (0, False)], 3, 0),
        ([(3, False), (1, True), (0, True)], 4, 1),  # the next rows do not count for those before
    ],
)
def test_rows_count_once_whatever_their_pairs(pairs, rows, used):
    tally = Tally()
    for accounts_for, kept in pairs:
        tally.take(pair(accounts_for), kept, 0)
    report = tally.report()
    assert (report["rows_in"], report["rows_used"], report["rows_rejected"]) == (rows, used, rows - used)
    assert sum(report["layouts"].values()) == used
    assert report["replies_mean"] is None


def test_a_rejected_row_counts_and_a_rejected_pair_does_not():
    tally, first = Tally(), reject(False)
    for one in (first, reject(True, Fault.EQUAL_REPLIES), reject(True, Fault.EQUAL_REPLIES), reject(False)):
        tally.reject(one)
    report = tally.report()
    assert (report["rows_in"], report["rows_rejected"], report["pairs_rejected"]) == (2, 2, 2)
    assert report["rejected_by_reason"] == {"empty": 2, "identical replies": 2}
    assert tally.first_reject is first


def test_replies_are_a_mean_over_used_conversations():
    tally, dialogue = Tally(), Conversation("c", "g", (), {}, 1, "history")
    for used, replies in ((True, 2), (True, 5), (False, 9)):
        tally.take(dialogue, used, replies)
    assert tally.report()["replies_mean"] == 3.5
    assert tally.report()["layouts"] == {"history": 2}
