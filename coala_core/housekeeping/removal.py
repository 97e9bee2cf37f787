"""Take items away so that a kill at any moment leaves a store in order.

A folder is renamed before anything in it is deleted, so an artifact is there whole or not at all, and what was made
from another goes before it. What a run took meanwhile stays, with all that it was made from.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from coala_core.feature_cache import FeatureCache
from coala_core.housekeeping.choice import Choice, Verdict, closed
from coala_core.housekeeping.holds import busy, free_to_take
from coala_core.housekeeping.inventory import FEATURES, PARTIAL, TRASH, Item, take_inventory
from coala_core.housekeeping.last_use import last_used, mark_of
from coala_core.progress import Progress, silent
from coala_core.storage import MANIFEST, Store

_RUN_CAME = "a run came to use it meanwhile"


def remove(store: Store, choice: Choice, progress: Progress = silent) -> Choice:
    """Remove what was chosen, unless it is in use by now; only one process may do so at a time.

    Parameters
    ----------
    store : Store
    choice : Choice
        Of an inventory of this store.
    progress : Progress
        Told items done.

    Returns
    -------
    Choice
        What was removed and what stays after all.

    Raises
    ------
    ValueError
        If another process removes things from this store at this moment.
    """
    with free_to_take(store, "gc", "store") as alone:
        if not alone:
            raise ValueError(f"`coala gc` must be alone in {store.root}, got another one at work; wait for it to end.")
        return _remove_all(store, choice, progress)


def _remove_all(store: Store, choice: Choice, progress: Progress) -> Choice:
    items = {verdict.item.name: verdict.item for verdict in (*choice.removals, *choice.stays)}
    spared: dict[str, str] = {}
    removed: list[Verdict] = []
    for done, verdict in enumerate(choice.removals, 1):
        item = verdict.item
        if item.name not in spared:
            reason = _REMOVERS[item.kind](store, item)
            if reason is None:
                removed.append(verdict)
            else:
                spared |= closed({item.name: reason}, items)
        progress(done, len(choice.removals), "items")
    kept = [replace(verdict, removed=False, reason=spared[verdict.item.name])
            for verdict in choice.removals if verdict.item.name in spared]  # fmt: skip
    stays = sorted([*choice.stays, *kept], key=lambda verdict: verdict.item.name)
    # Counted anew, since with what was spared shared bytes stay as well.
    freed = choice.bytes_freed if not kept else max(0, choice.bytes_before - take_inventory(store).bytes)
    return Choice(tuple(removed), tuple(stays), choice.bytes_before, freed)


def _remove_artifact(store: Store, item: Item) -> str | None:
    stage, _, key = item.name.partition("/")
    with free_to_take(store, stage, key) as free:
        if not free or not (item.path / MANIFEST).exists() or last_used(item.path) != item.last_used:
            return _RUN_CAME
        mark_of(item.path).unlink(missing_ok=True)
        trash = _discarded(item.path)
    shutil.rmtree(trash)
    return None


def _remove_unfinished(store: Store, item: Item) -> str | None:
    stage, _, name = item.name.partition("/")
    with free_to_take(store, stage, name.removesuffix(PARTIAL)) as free:
        if not free or not item.path.exists():
            return _RUN_CAME
        trash = _discarded(item.path)
    shutil.rmtree(trash)
    return None


def _remove_trash(_store: Store, item: Item) -> str | None:
    shutil.rmtree(item.path)
    return None


def _remove_features(store: Store, item: Item) -> str | None:
    _, space, name = item.name.split("/")
    # An embed stage that begins after this look finds the shard missing, and computes it anew.
    if busy(store, "embed").embedding or item.path.stat().st_nlink > 1:
        return _RUN_CAME
    FeatureCache(store.root / FEATURES).discard(space, name)
    return None


def _remove_leftover(_store: Store, item: Item) -> str | None:
    item.path.unlink(missing_ok=True)
    return None


def _discarded(folder: Path) -> Path:
    """Give a folder a name under which nobody looks for it."""
    return folder.rename(folder.with_name(f"{TRASH}{folder.name}-{uuid4().hex[:8]}"))


_REMOVERS: dict[str, Callable[[Store, Item], str | None]] = {
    "artifact": _remove_artifact,
    "features": _remove_features,
    "unfinished": _remove_unfinished,
    "trash": _remove_trash,
    "leftover": _remove_leftover,
}
