"""`coala data convert`: the same data in another layout and format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from coala_core.convert import PACKED, ConvertReport, TargetLayout
from coala_core.convert import convert as convert_file
from flows.settings import ConfigFile, Settings, configure

Columns = Annotated[
    tuple[str, ...],
    Parameter(negative="", help="FIELD=NAME, the name that a layout's field has in the file, as often as needed."),
]


def convert(
    source: Annotated[str, Parameter(help="What to read: all that `triplets.conversations` takes.")],
    target: Annotated[Path, Parameter(help="File to write: .jsonl, .json or .csv, also .gz or .zst, or .parquet.")],
    *,
    to: Annotated[TargetLayout, Parameter(help="Layout to write.")],
    layout: str | None = None,
    columns: Columns = (),
    force: Annotated[bool, Parameter(negative="")] = False,
    allow_rejects: int = 0,
    config: ConfigFile = None,
    settings: Settings = (),
) -> int:
    """Write conversations or pairs in another layout, losing nothing; exit 1 if rows had to be rejected.

    Conversations become pairs as the section `triplets` of the settings says; pairs cannot become conversations.
    CSV is for the layouts with `standard` in their names.

    Parameters
    ----------
    layout
        Layout to read, where the fields of the rows do not tell it.
    force
        Replace the target, if there is one.
    allow_rejects
        Rejects up to which the exit status is 0.

    Raises
    ------
    ValueError
        If `allow_rejects` is negative, a setting is refused, or as `coala_core.convert.convert`.
    """
    from flows.console import progress_bar

    if allow_rejects < 0:
        raise ValueError(f"`--allow-rejects` must not be negative, got {allow_rejects}; 0 allows none.")
    named = {"conversations": source, "layout": layout, "columns": _columns(columns) or None}
    checked = configure(config, settings, **{f"triplets__{name}": value for name, value in named.items()})
    with progress_bar("convert") as progress:
        report = convert_file(checked.triplets, target, to, force=force, progress=progress)
    _show(report)
    return int(report.rejected > allow_rejects)


def _columns(given: Sequence[str]) -> dict[str, str]:
    """Read FIELD=NAME."""
    columns = {}
    for pair in given:
        field, equals, name = pair.partition("=")
        if not field or not equals or not name:
            raise ValueError(f"`--columns` must be FIELD=NAME, got {pair!r}; for example --columns prompt=question")
        columns[field] = name
    return columns


def _show(report: ConvertReport) -> None:
    """Print what was written, and what was not."""
    from flows.console import err, out

    layouts = ", ".join(f"{count:,} {name}" for name, count in report.layouts.items())
    err.print(
        f"{report.rows_in:,} rows in, {report.rows_used:,} used ({layouts}), {report.rows_written:,} written",
        markup=False,
    )
    if report.packed:
        err.print(f"Also in the column {PACKED}, as JSON: {', '.join(report.packed)}", markup=False)
    for reason, count in report.rejected_by_reason.items():
        err.print(f"{count:,} rejected: {reason}", markup=False)
    if report.rejects:
        err.print(f"{report.rejected:,} rejects in {report.rejects}", markup=False)
    out.print(str(report.target), markup=False)
