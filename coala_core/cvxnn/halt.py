"""Ending a solve before it is done: a deadline, or somebody's word, asked for between sweeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import TypeAlias

from coala_core.cvxnn.outcome import Status

Stop: TypeAlias = Callable[[], bool]
"""Asked after every sweep; once it is true, the best head so far is returned."""


class Halt:
    """When to end early; the clock runs from here.

    Parameters
    ----------
    max_seconds : float, optional
        Wall-clock limit; none by default.
    stop : callable, optional
        True once the work is to end.
    """

    def __init__(self, max_seconds: float | None = None, stop: Stop | None = None) -> None:
        self._deadline = math.inf if max_seconds is None else monotonic() + max_seconds
        self._stop = stop

    def status(self) -> Status | None:
        """Return why to end now, or None to go on."""
        if self._stop is not None and self._stop():
            return Status.INTERRUPTED
        return Status.OUT_OF_TIME if monotonic() >= self._deadline else None
