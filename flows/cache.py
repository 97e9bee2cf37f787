"""`coala cache`: look at the feature cache, check it, and make room."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from coala_core.feature_cache import FeatureCache
from coala_core.storage import Store
from flows.settings import ConfigFile, Settings, StoreFolder, configure

cache = App(name="cache", help="List, check or remove features that later runs could reuse.")

Space = Annotated[str | None, Parameter(help="Space that `coala cache ls` names.")]


@cache.command(name="ls")
def list_spaces(*, config: ConfigFile = None, store: StoreFolder = None, settings: Settings = ()) -> None:
    """List the spaces of the cache: model and settings, stored columns, pairs and size."""
    from flows.console import show_cache

    opened = _open(config, store, settings)
    show_cache(opened.label, opened.usage())


@cache.command
def verify(
    space: Space = None, *, config: ConfigFile = None, store: StoreFolder = None, settings: Settings = ()
) -> int:
    """Read every shard of a space, or of all, and compare it with its digest; exit 1 if something is wrong."""
    from flows.console import out, progress_bar

    opened = _open(config, store, settings)
    with progress_bar("cache") as progress:
        problems = opened.verify(space, progress)
    for problem in problems:
        out.print(f"{problem.space}/{problem.name}: {problem.reason}", markup=False)
    out.print(f"{len(problems)} problems in {opened.label}", markup=False)
    return int(bool(problems))


@cache.command(name="rm")
def remove(
    space: Space = None,
    *,
    everything: Annotated[bool, Parameter(name="--all", negative="")] = False,
    config: ConfigFile = None,
    store: StoreFolder = None,
    settings: Settings = (),
) -> None:
    """Remove a space with its shards, or all; embed artifacts that are made keep their features.

    Parameters
    ----------
    everything
        Remove all spaces.

    Raises
    ------
    ValueError
        If neither a space nor `--all` is given, or both are, or there is no such space.
    """
    from flows.console import out

    if (space is None) is not everything:
        raise ValueError(
            f"`coala cache rm` must be given a space or --all, got {'neither' if space is None else 'both'}; "
            "`coala cache ls` names the spaces"
        )
    removed = _open(config, store, settings).remove(space)
    out.print(f"{removed.spaces} spaces with {removed.shards} shards, {removed.bytes / 1e6:.1f} MB, removed")


def _open(config: ConfigFile, store: StoreFolder, settings: Settings) -> FeatureCache:
    from coala_core.stages.embed import feature_cache

    checked = configure(config, settings, store=store)
    return feature_cache(Store(checked.store), checked.embed)
