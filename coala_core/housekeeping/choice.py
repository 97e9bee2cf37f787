"""What goes and what stays: by age, by size, and never what something that stays was made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from coala_core.housekeeping.inventory import PARTIAL, Inode, Inventory, Item, Kind

_DAY = 86_400.0
_LEFT: Mapping[Kind, str] = {
    "trash": "its removal was interrupted",
    "unfinished": "an interrupted run left it",
    "leftover": "an interrupted job left it",
}


@dataclass(frozen=True)
class Policy:
    """What to remove."""

    now: float
    """In seconds since 1970."""
    older_than: float | None = None
    """Seconds without use after which an item goes; None if age is no reason."""
    keep_bytes: int | None = None
    """What the store may take; None if size is no reason."""
    protected: Mapping[str, str] = field(default_factory=dict)
    """Keys or manifest digests of artifacts that must stay, each with the reason."""
    busy_since: float | None = None
    """When the oldest run began that is still going; what was used since then stays."""
    leftover_seconds: float = _DAY
    """Seconds after which what an interrupted run left is no longer waited for."""


@dataclass(frozen=True)
class Verdict:
    """What happens to an item, and why."""

    item: Item
    removed: bool
    reason: str
    bytes: int
    """What removing it frees, or would free by itself."""


@dataclass(frozen=True)
class Choice:
    """The verdicts on all items."""

    removals: tuple[Verdict, ...]
    """In an order in which nothing is ever without what it was made from."""
    stays: tuple[Verdict, ...]
    """By name."""
    bytes_before: int
    bytes_freed: int

    @property
    def bytes_after(self) -> int:
        """What the store takes once the removals are done."""
        return self.bytes_before - self.bytes_freed


class _Ledger:
    """Bytes that come free: a file's, when the last of its names goes."""

    def __init__(self, inventory: Inventory) -> None:
        self._contents = inventory.contents
        self._gone: Counter[Inode] = Counter()
        self.freed = 0

    def would_free(self, item: Item) -> int:
        return sum(
            content.bytes
            for inode, links in item.files.items()
            if (content := self._contents.get(inode)) and self._gone[inode] + links >= content.links
        )

    def remove(self, item: Item) -> int:
        freed = self.would_free(item)
        self._gone.update(dict(item.files))
        self.freed += freed
        return freed


def choose(inventory: Inventory, policy: Policy) -> Choice:
    """Decide on every item.

    An item goes if it is older than the policy allows or, the least recently used first, if the store is larger than
    it allows. An artifact counts as used when anything made from it was. Stays: what `policy.protected` names, what a
    run is at work on, what was used since the oldest living run began, and everything that those were made from.

    Parameters
    ----------
    inventory : Inventory
    policy : Policy
    """
    items = inventory.items
    order, used = _by_last_use(items)
    pinned = _pinned(inventory, policy)
    free = [name for name in order if name not in pinned]
    ledger = _Ledger(inventory)
    removed: dict[str, Verdict] = {}
    for name in free:
        if reason := _outlived(items[name], used[name], policy):
            removed[name] = Verdict(items[name], True, reason, ledger.remove(items[name]))
    for name in free:
        if policy.keep_bytes is None or inventory.bytes - ledger.freed <= policy.keep_bytes:
            break
        if name not in removed and items[name].kind not in _LEFT:
            reason = f"used least recently, {_ago(policy.now - used[name])} ago"
            removed[name] = Verdict(items[name], True, reason, ledger.remove(items[name]))
    stays = tuple(
        Verdict(item, False, pinned.get(name) or _why_it_stays(item, used.get(name), policy), _alone(inventory, item))
        for name, item in sorted(items.items())
        if name not in removed
    )
    return Choice(tuple(removed.values()), stays, inventory.bytes, ledger.freed)


def closed(names: Mapping[str, str], items: Mapping[str, Item]) -> dict[str, str]:
    """Add to items with a reason to stay all that they were made from, with that as the reason."""
    reasons = {name: reason for name, reason in names.items() if name in items}
    waiting = sorted(reasons)
    while waiting:
        name = waiting.pop()
        for needed in sorted(items[name].needs - reasons.keys()):
            reasons[needed] = f"{name} was made from it"
            waiting.append(needed)
    return reasons


def _pinned(inventory: Inventory, policy: Policy) -> dict[str, str]:
    """Why items must stay whatever their age; what the store itself needs of them included."""
    items, at_work = inventory.items, inventory.busy
    reasons = {name: f"a run is making {maker} from it" for name, maker in at_work.reading.items()}
    for name, item in items.items():
        if reason := _own_reason(item, inventory, policy):
            reasons[name] = reason
    return closed(reasons, items)


def _own_reason(item: Item, inventory: Inventory, policy: Policy) -> str | None:
    known = [policy.protected[identity] for identity in sorted(item.identities) if identity in policy.protected]
    if known:
        return known[0]
    if item.name.removesuffix(PARTIAL).replace("/", "-", 1) in inventory.busy.making:
        return "a run is at work on it"
    if item.kind in ("features", "leftover") and inventory.busy.embedding:
        return "an embed stage is at work"
    if item.kind != "trash" and policy.busy_since is not None and item.last_used >= policy.busy_since:
        return "used since the oldest run began that is still going"
    return None


def _outlived(item: Item, used: float, policy: Policy) -> str | None:
    """Why an item goes for its age; None if it does not."""
    age = policy.now - used
    if item.kind in _LEFT:
        return _LEFT[item.kind] if item.kind == "trash" or age > policy.leftover_seconds else None
    return f"not used for {_ago(age)}" if policy.older_than is not None and age > policy.older_than else None


def _why_it_stays(item: Item, used: float | None, policy: Policy) -> str:
    if used is None:
        return "its inputs refer to one another in a circle"
    age = _ago(policy.now - used)
    if item.kind in _LEFT:
        return f"written {age} ago, perhaps by a run that is still going"
    if policy.older_than is None and policy.keep_bytes is None:
        return f"used {age} ago; no age or size was given"
    return f"used {age} ago"


def _by_last_use(items: Mapping[str, Item]) -> tuple[list[str], dict[str, float]]:
    """Order items by when they or what was made from them was last used, what was made before what it was made from."""
    users = Counter(needed for item in items.values() for needed in item.needs)
    used = {name: item.last_used for name, item in items.items()}
    depth: dict[str, int] = {}
    waiting = [(name, 0) for name in items if not users[name]]
    while waiting:
        name, depth[name] = waiting.pop()
        for needed in items[name].needs:
            used[needed] = max(used[needed], used[name])
            users[needed] -= 1
            depth[needed] = max(depth.get(needed, 0), depth[name] + 1)
            if not users[needed]:
                waiting.append((needed, depth[needed]))
    done = [name for name in items if not users[name]]
    return sorted(done, key=lambda name: (used[name], depth[name], name)), {name: used[name] for name in done}


def _alone(inventory: Inventory, item: Item) -> int:
    return _Ledger(inventory).would_free(item)


def _ago(seconds: float) -> str:
    """Say a time span in its largest unit.

    >>> _ago(7200.0)
    '2.0 h'
    """
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} s"
