"""What to remove from a store, as a user says it."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from coala_core.config import StageConfig

_AGES = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SIZES = {unit: 1000**power for power, unit in enumerate(("B", "KB", "MB", "GB", "TB"))} | {
    unit: 1024**power for power, unit in enumerate(("KIB", "MIB", "GIB", "TIB"), 1)
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


class HousekeepingConfig(StageConfig):
    """What `coala gc` removes; without an age and a size only what interrupted runs left behind."""

    store: str = Field(default="data/store", min_length=1)
    """Folder of all artifacts."""
    older_than: str | None = None
    """Remove what was not used for this long, such as 30d (m, h, d and w); empty means whatever its age."""
    keep_size: str | None = None
    """Remove what was used least recently until the store takes at most this, such as 50GB (MB, GiB, ...)."""
    dry_run: bool = False
    """Remove nothing, only say what would go."""
    gone: tuple[str, ...] = ()
    """Addresses of MLflow that are gone for good, with the models registered there."""

    @field_validator("older_than")
    @classmethod
    def _age_can_be_read(cls, age: str | None) -> str | None:
        if age is not None:
            parse_age(age)
        return age

    @field_validator("keep_size")
    @classmethod
    def _size_can_be_read(cls, size: str | None) -> str | None:
        if size is not None:
            parse_size(size)
        return size


def parse_age(text: str) -> float:
    """Seconds of an age such as "30d".

    Raises
    ------
    ValueError
        If it is no number above 0 with one of the units m, h, d and w.

    >>> parse_age("1.5h")
    5400.0
    """
    number, unit = _quantity(text)
    if unit.lower() not in _AGES or not number > 0:
        raise ValueError(f"`older_than` must be a number above 0 with m, h, d or w, got {text!r}; write 30d, say")
    return number * _AGES[unit.lower()]


def parse_size(text: str) -> int:
    """Bytes of a size such as "50GB", a thousand million each, or "50GiB", 1024 to the third each.

    Raises
    ------
    ValueError
        If it is no number with a unit from B to TB or KiB to TiB.

    >>> parse_size("2 KiB")
    2048
    """
    number, unit = _quantity(text)
    if unit.upper() not in _SIZES:
        raise ValueError(f"`keep_size` must be a number with B, KB, MB, GB, TB or KiB to TiB, got {text!r}; write 50GB")
    return int(number * _SIZES[unit.upper()])


def _quantity(text: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    return (float(match[1]), match[2]) if match else (0.0, "")
