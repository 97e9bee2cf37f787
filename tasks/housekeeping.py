"""`coala gc`: remove what a store may do without, and never what runs or registered models need."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coala_core.housekeeping import Choice, HousekeepingConfig, Policy, choose, parse_age, parse_size, remove
from coala_core.housekeeping import take_inventory as inventory_of
from coala_core.progress import Progress, silent
from coala_core.storage import Store
from tasks.protected import needed_by_models
from tasks.run_files import RunFiles, destinations, journals, old_logs
from tasks.tracking import store_uri, tracking_uri

_DAY = 86_400.0
_SKEW = 600.0
"""Seconds by which the clocks of machines that share a store may differ."""


@dataclass(frozen=True)
class Entry:
    """One thing in the store, and what became of it."""

    kind: str
    name: str
    removed: bool
    bytes: int
    """What removing it freed, or would free by itself."""
    reason: str


@dataclass(frozen=True)
class Report:
    """What housekeeping did, or would do."""

    store: str
    dry_run: bool
    bytes_before: int
    bytes_freed: int
    entries: tuple[Entry, ...]
    """What goes first, in order; then what stays."""
    unmet: int
    """Bytes by which the store is still larger than was asked for."""

    @property
    def removed(self) -> list[Entry]:
        """What went, or would go."""
        return [entry for entry in self.entries if entry.removed]

    @property
    def stays(self) -> list[Entry]:
        """What stays."""
        return [entry for entry in self.entries if not entry.removed]

    def as_json(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        return asdict(self)


def clean(config: HousekeepingConfig, progress: Progress = silent, now: float | None = None) -> Report:
    """Remove from a store what `config` says, or tell what would go.

    Parameters
    ----------
    config : HousekeepingConfig
    progress : Progress
        Told items done.
    now : float, optional
        Seconds since 1970; the clock's, if absent.

    Raises
    ------
    FileNotFoundError
        If there is no store.
    ValueError
        If another process cleans it at this moment.
    ConnectionError
        If artifacts are to go and an MLflow that may have models of them cannot be asked.
    """
    store = Store(config.store)
    if not store.root.is_dir():
        raise FileNotFoundError(
            f"`coala gc` needs the folder of a store, got {store.root}, which is none; give --store."
        )
    now = time.time() if now is None else now
    found = journals(store.root)
    policy = _policy(config, store.root, found, now)
    choice = choose(inventory_of(store), policy)
    if not config.dry_run:
        choice = remove(store, choice, progress)
    files = list(_run_files(store.root, found, policy, delete=not config.dry_run))
    freed = choice.bytes_freed + sum(entry.bytes for entry in files if entry.removed)
    entries = sorted([*_entries(choice), *files], key=lambda entry: not entry.removed)
    unmet = max(0, choice.bytes_before - freed - policy.keep_bytes) if policy.keep_bytes is not None else 0
    return Report(str(store.root), config.dry_run, choice.bytes_before, freed, tuple(entries), unmet)


def _policy(config: HousekeepingConfig, store: Path, found: Iterable[RunFiles], now: float) -> Policy:
    age = parse_age(config.older_than) if config.older_than else None
    size = parse_size(config.keep_size) if config.keep_size else None
    living = [run.began for run in found if run.living]
    awaited = {key: f"MLflow has not got its files of run {run.path.stem} yet; `coala replay` delivers them"
               for run in found for key in run.awaited}  # fmt: skip
    asked = age is not None or size is not None
    needed = needed_by_models(store, _asked(store, found, config.gone)) if asked else {}
    return Policy(
        now, age, size, protected=awaited | needed, busy_since=min(living) - _SKEW if living else None
    )  # fmt: skip


def _asked(store: Path, found: Iterable[RunFiles], gone: Iterable[str]) -> list[str]:
    """Addresses of every MLflow that may have models of this store."""
    own = store_uri(store)
    known = {uri or own for uri in destinations(store, found)} | {own, tracking_uri(store)}
    absent = set() if (store / "mlflow" / "mlflow.db").exists() else {own}
    return sorted(known - absent - set(gone))


def _entries(choice: Choice) -> Iterator[Entry]:
    for verdict in (*choice.removals, *choice.stays):
        yield Entry(verdict.item.kind, verdict.item.name, verdict.removed, verdict.bytes, verdict.reason)


def _run_files(store: Path, found: Iterable[RunFiles], policy: Policy, *, delete: bool) -> Iterator[Entry]:
    """Journals that are delivered and older than a day, or the age asked for; logs of that age."""
    age = max(policy.older_than or 0.0, _DAY)
    for run in found:
        reason = _why_a_journal_stays(run, policy.now - age)
        entry = Entry("journal", f"tracking/{run.path.stem}", reason is None, run.bytes, reason or "delivered")
        if entry.removed and delete:
            run.delete()
        yield entry
    for path in old_logs(store, policy.now - age) if policy.older_than is not None else ():
        yield Entry("log", f"logs/{path.name}", True, path.stat().st_size, "older than asked for")
        if delete:
            path.unlink(missing_ok=True)


def _why_a_journal_stays(run: RunFiles, before: float) -> str | None:
    if run.fault is not None:
        return run.fault
    if run.living:
        return "its run is still going"
    if not run.delivered:
        return "MLflow has not got all of it; `coala replay` delivers it"
    return "written too recently" if run.written >= before else None
