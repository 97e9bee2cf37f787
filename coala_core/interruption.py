"""Ctrl-C and SIGTERM as a question that long work asks between its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Hold back the first SIGINT or SIGTERM until the block ends, and answer whether one has come.

    At the end of the block the handlers are as before and the signal is raised again, so that the process
    ends as it would have. A second signal does not wait. Signals that are ignored stay so, and outside the
    main thread, where Python lets nobody handle signals, nothing changes.

    Yields
    ------
    callable
        True once a signal has come.

    Raises
    ------
    KeyboardInterrupt
        At the end of the block, if a signal came and its own handler let the program go on.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: object) -> None:
        received.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        # None is a handler that was not set from Python; it could not be put back.
        kept = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in kept.items() if handler not in (None, signal.SIG_IGN)}
        for number in before:
            signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        restore()
        if received:
            signal.raise_signal(received[0])
            raise KeyboardInterrupt
