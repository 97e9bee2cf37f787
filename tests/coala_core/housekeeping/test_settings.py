"""Ages and sizes as people write them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from coala_core.housekeeping import HousekeepingConfig, parse_age, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * 24 * 3600), ("90m", 5400), ("12 h", 43_200), ("2W", 1_209_600), ("0.5d", 43_200)]
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("50GB", 50_000_000_000), ("1GiB", 1_073_741_824), ("1.5 kb", 1500), ("0B", 0), ("2TB", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "0d", "30y", "1e3d", "30d 5h", "nan d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"`older_than` must be a number above 0 with m, h, d or w, got .*; write 30d"):
        parse_age(text)
    with pytest.raises(ValidationError, match="write 30d"):
        HousekeepingConfig(older_than=text)


@pytest.mark.parametrize("text", ["", "50", "GB", "-1GB", "50PB", "1d"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"`keep_size` must be a number with B, KB, .*; write 50GB"):
        parse_size(text)
    with pytest.raises(ValidationError, match="write 50GB"):
        HousekeepingConfig(keep_size=text)


def test_every_setting_is_described() -> None:
    assert [name for name, field in HousekeepingConfig.model_fields.items() if not field.description] == []
