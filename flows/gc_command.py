"""`coala gc`: make room in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.settings import StoreFolder

if TYPE_CHECKING:
    from tasks.housekeeping import Report


def gc(
    *,
    older_than: str | None = None,
    keep_size: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    gone: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    store: StoreFolder = None,
) -> int:
    """Remove what a store may do without: what interrupted runs left, and by age or size what nobody uses.

    What registered models, runs that are going and artifacts that stay were made from is never removed. Exit 1 if
    the store is still larger than `--keep-size` afterwards.

    Parameters
    ----------
    older_than
        Remove artifacts and features that were not used for this long, such as 30d (m, h, d, w).
    keep_size
        Remove the least recently used until the store takes at most this, such as 50GB.
    dry_run
        Remove nothing; say what would go, and why everything else stays.
    as_json
        Print the whole report as JSON.
    gone
        Address of an MLflow that is gone for good, with the models registered there.
    store
        Folder of all artifacts.
    """
    from coala_core.housekeeping import HousekeepingConfig
    from coala_core.storage import dump_json
    from flows.console import out, progress_bar
    from flows.settings import configure_as
    from tasks.housekeeping import clean

    named = {"store": store, "older_than": older_than, "keep_size": keep_size, "dry_run": dry_run, "gone": gone}
    config = configure_as(HousekeepingConfig, None, (), **named)
    with progress_bar("gc") as progress:
        report = clean(config, progress)
    if as_json:
        out.print(dump_json(report.as_json()), end="", markup=False)
    else:
        _show(report)
    return int(report.unmet > 0)


def _show(report: Report) -> None:
    """Print what goes; after a dry run also what stays."""
    from rich.markup import escape
    from rich.table import Table

    from flows.console import out

    title = "would be removed" if report.dry_run else "removed"
    table = Table(title=f"{title} from {escape(report.store)}", title_justify="left", header_style="bold")
    table.add_column("what", overflow="fold")
    table.add_column("MB", justify="right")
    table.add_column("why", overflow="fold")
    for entry in report.removed:
        table.add_row(escape(entry.name), f"{entry.bytes / 1e6:.1f}", escape(entry.reason))
    if report.dry_run:
        table.add_section()
        for entry in report.stays:
            table.add_row(escape(entry.name), "stays", escape(entry.reason))
    out.print(table)
    verb = "would be freed" if report.dry_run else "freed"
    after = report.bytes_before - report.bytes_freed
    out.print(f"{len(report.removed)} items, {report.bytes_freed / 1e6:.1f} MB {verb}; {after / 1e6:.1f} MB stay.")
    if report.unmet:
        out.print(f"{report.unmet / 1e6:.1f} MB more than asked for are in use; `--dry-run` says by what.")
