"""`coala data`: what pairs are like, and the same data in another layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from coala_core.storage import Artifact, Store
from flows.convert import convert
from flows.settings import ConfigFile, Settings, StoreFolder, configure

if TYPE_CHECKING:
    from coala_core.config import PipelineConfig

data = App(name="data", help="Look at data before training on it, and bring it into another layout.")
data.command(convert)


@data.command
def report(
    conversations: Annotated[str, Parameter(help="Conversations or ready pairs: a file, or what `coala run` takes.")],
    *,
    group_by: str | None = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> int:
    """Say what the pairs of a file are like, and whether they are worth training on; print the report's folder.

    Parameters
    ----------
    group_by
        Field whose value keeps rows together in the split.
    strict
        Exit with status 1 where a limit is exceeded.
    """
    from flows.console import err, out

    named = {"triplets__conversations": conversations, "triplets__group_by": group_by, "store": store}
    artifact = _report(configure(config, settings, **named))
    _show(artifact)
    out.print(str(artifact.path), markup=False)
    exceeded = artifact.report["exceeded"]
    if strict and exceeded:
        err.print(f"{len(exceeded)} limits exceeded: {', '.join(exceeded)}", markup=False)
    return int(strict and bool(exceeded))


def _report(config: PipelineConfig) -> Artifact:
    """Run the stages up to the report; where the groups are too few for a split, without one."""
    from coala_core.stages import quality, split, triplets
    from flows.console import err, progress_bar

    store = Store(config.store)
    with progress_bar("triplets") as progress:
        built = triplets.run(store, config.triplets, progress)
    divided = None
    try:
        with progress_bar("split") as progress:
            divided = split.run(store, config.split, built, progress)
    except ValueError as error:
        err.print(f"No split, so leaks are not measured: {error}", markup=False)
    with progress_bar("quality") as progress:
        return quality.run(store, config.quality, built, divided, progress)


def _show(artifact: Artifact) -> None:
    """Print the measures beside their limits."""
    import json

    from rich.table import Table

    from coala_core.stages.quality import REPORT
    from flows.console import out

    content = json.loads((artifact.path / REPORT).read_text(encoding="utf-8"))
    size = content["size"]
    title = f"{size['pairs']:,} pairs, {size['conversations']:,} conversations, {size['groups']:,} groups"
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    for limit in content["limits"]:
        value = "not measured" if limit["value"] is None else f"{limit['value']:.1%}"
        verdict = {True: "[green]kept[/green]", False: "[red]exceeded[/red]", None: ""}[limit["kept"]]
        table.add_row(limit["measure"], value, f"{limit['limit']:.1%}", verdict)
    out.print(table)
    for limit in content["limits"]:
        if limit["kept"] is False:
            out.print(f"{limit['measure']}: {limit['advice']}", markup=False)
