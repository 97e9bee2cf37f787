"""How long work reports where it is, without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what); `what` names the unit, such as "pairs" or "sweeps"."""


def silent(done: int, total: int, what: str) -> None:
    """Discard a progress report; the default listener."""
