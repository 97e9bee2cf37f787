"""What a device is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Counts since it was cleared."""

    kernels: list[str] = field(default_factory=list)
    """Names of what was launched; a library call counts as one."""
    reads: list[str] = field(default_factory=list)
    """Names of what made the host wait for a result."""
    read_bytes: int = 0
    """Bytes that the host received."""
    uploads: int = 0
    """Arrays that the host sent."""
    freed: int = 0
    """Times that the memory pool was emptied."""

    def clear(self) -> None:
        """Start at zero."""
        self.__init__()  # type: ignore[misc]


LEDGER = Ledger()
"""The one device's."""
