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
    alive_when_freed: list[int] = field(default_factory=list)
    """Arrays that were alive when the memory pool was emptied: their memory cannot be given back."""
    alive: int = 0
    """Arrays that are alive now."""

    def clear(self) -> None:
        """Start at zero; what is alive stays so."""
        alive = self.alive
        self.__init__()  # type: ignore[misc]
        self.alive = alive


LEDGER = Ledger()
"""The one device's."""
