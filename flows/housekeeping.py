"""Housekeeping as a Prefect flow, for a deployment with a schedule."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from coala_core.housekeeping import HousekeepingConfig
from tasks.housekeeping import Report, clean

_ROWS = 50


@flow(name="coala-gc")
def coala_gc(config: HousekeepingConfig = HousekeepingConfig()) -> dict[str, Any]:  # noqa: B008  frozen, hence shareable
    """Old artifacts, features and leftovers out of the store; never what runs or registered models need."""
    report = clean(config)
    text = summary(report)
    get_run_logger().info(text)
    rows = [{"what": entry.name, "MB": f"{entry.bytes / 1e6:.1f}", "why": entry.reason} for entry in report.removed]
    create_table_artifact(rows[:_ROWS], key="housekeeping", description=text)
    return {name: value for name, value in report.as_json().items() if name != "entries"} | {
        "removed": len(report.removed)
    }


def summary(report: Report) -> str:
    """Say in one sentence what went and what stays."""
    verb = "would go" if report.dry_run else "went"
    more = f"; {report.unmet / 1e6:.1f} MB more than asked for are in use" if report.unmet else ""
    after = (report.bytes_before - report.bytes_freed) / 1e6
    return f"{len(report.removed)} items with {report.bytes_freed / 1e6:.1f} MB {verb}, {after:.1f} MB stay{more}."
