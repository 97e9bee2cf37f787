"""Signals wait for the end of a block, and then act as they would have."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from coala_core.interruption import deferred_signals

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Python's own handlers, also where the tests were started in the background; pytest's afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers() -> tuple[object, object]:
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


def test_nothing_happens_without_a_signal() -> None:
    before = handlers()
    with deferred_signals() as interrupted:
        assert not interrupted()
        assert handlers() != before
    assert handlers() == before


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    before, steps = handlers(), []
    with pytest.raises(KeyboardInterrupt), deferred_signals() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        steps.append(interrupted())
        steps.append("the block goes on")
    assert steps == [True, "the block goes on"]
    assert handlers() == before


def test_a_second_ctrl_c_does_not_wait() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), deferred_signals():
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("first")
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("second")
    assert steps == ["first"]


def test_a_handler_of_ones_own_is_asked_and_the_work_ends_all_the_same() -> None:
    heard = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    with pytest.raises(KeyboardInterrupt), deferred_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == []
    assert heard == [signal.SIGTERM]


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred_signals() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupted()


def test_an_error_inside_passes_through() -> None:
    before = handlers()
    with pytest.raises(ValueError, match="inside"), deferred_signals():
        raise ValueError("inside")
    assert handlers() == before


def test_other_threads_are_left_alone() -> None:
    seen = []

    def work() -> None:
        before = handlers()
        with deferred_signals() as interrupted:
            seen.append((handlers() == before, interrupted()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, False)]


def end_by_sigterm() -> None:
    with deferred_signals():
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_ends_the_process_as_usual() -> None:
    process = FORK.Process(target=end_by_sigterm)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
