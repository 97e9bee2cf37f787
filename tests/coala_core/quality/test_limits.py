"""A measure at its limit is kept, one above it is not."""

from __future__ import annotations

import pytest

from coala_core.config import QualityConfig
from coala_core.quality.limits import verdicts

REPORT = {
    "rows": {"rejected_share": 0.05},
    "size": {"identical_share": 0.0500001},
    "near_duplicates": {"share": 0.1},
    "length_bias": {"longer_wins": 0.1},
    "leaks": {"prompts": {"share": 0.2}, "responses": {"share": 0.01}},
    "markers": {"share": 0.0},
}


def test_every_limit_has_a_verdict_and_advice() -> None:
    found = {verdict.limit_name: verdict for verdict in verdicts(REPORT, QualityConfig())}
    assert set(found) == {name for name in QualityConfig.model_fields if name.startswith("max_")}
    assert {name: verdict.kept for name, verdict in found.items()} == {
        "max_rejected_share": True,
        "max_identical_share": False,
        "max_near_duplicate_share": True,
        "max_length_bias": False,
        "max_leak_share": False,
        "max_marker_share": True,
    }
    # The shorter one is chosen in nine of ten: 0.4 from one half. The larger of the two leaks counts.
    assert found["max_length_bias"].value == pytest.approx(0.4)
    assert (found["max_leak_share"].value, found["max_leak_share"].limit) == (0.2, 0.05)
    assert all(verdict.advice.endswith(".") for verdict in found.values())


def test_without_a_split_leaks_have_no_verdict() -> None:
    leak = next(v for v in verdicts(REPORT | {"leaks": None}, QualityConfig()) if v.limit_name == "max_leak_share")
    assert (leak.value, leak.kept) == (None, None)


def test_limits_are_the_configured_ones() -> None:
    config = QualityConfig(max_leak_share=0.2, max_length_bias=0.5, max_identical_share=1)
    assert all(verdict.kept for verdict in verdicts(REPORT, config))
