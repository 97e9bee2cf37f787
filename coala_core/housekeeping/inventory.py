"""What lies in a store: artifacts, features of the cache, leftovers, and what was made from what."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from coala_core.feature_cache.notes import is_sidecar, is_space_key
from coala_core.housekeeping.holds import Busy, busy
from coala_core.housekeeping.last_use import last_used
from coala_core.storage import MANIFEST, Store

Kind = Literal["artifact", "features", "unfinished", "trash", "leftover"]
"""A stage's output, a shard of the feature cache, a workspace, a removal that was interrupted, a stray file."""

TRASH = ".trash-"
PARTIAL = ".partial"
FEATURES = "features"
_OTHERS = {"locks", "mlflow", "tracking", "logs", "prefect", FEATURES}
_PARQUET = ".parquet"


class Inode(NamedTuple):
    """A file's bytes, whatever names they have."""

    device: int
    number: int


class Content(NamedTuple):
    """How large a file is, and how many names it has anywhere."""

    bytes: int
    links: int


@dataclass(frozen=True)
class Item:
    """Something that can be removed as a whole."""

    kind: Kind
    name: str
    """Path below the store, with "/" between its parts."""
    path: Path
    """The folder or file; of features the Parquet file."""
    last_used: float
    """In seconds since 1970; of leftovers, when they were last written."""
    files: Mapping[Inode, int] = field(default_factory=dict)
    """How many names each of its files has in it."""
    needs: frozenset[str] = frozenset()
    """Names of the items that it was made from, or that share its features."""
    identities: frozenset[str] = frozenset()
    """Key and SHA-256 of the manifest, of artifacts."""


@dataclass(frozen=True)
class Inventory:
    """All items of a store by name, and what their files take."""

    items: Mapping[str, Item]
    contents: Mapping[Inode, Content]
    """Of every file in the store, items or not."""
    busy: Busy
    """What was at work when it was taken."""

    @property
    def bytes(self) -> int:
        """What the whole store takes, files with several names counted once."""
        return sum(content.bytes for content in self.contents.values())


def take_inventory(store: Store) -> Inventory:
    """List what lies in a store; links to elsewhere are neither followed nor listed.

    What is at work is looked up first, so that what is begun later is younger than the inventory.
    """
    at_work = busy(store)
    contents: dict[Inode, Content] = {}
    for _ in _walk(store.root, contents):
        pass
    found = [item for folder in _stage_folders(store.root) for item in _stage_items(folder)]
    shards = list(_features(store.root / FEATURES))
    homes = {inode: item.name for item in shards if item.kind == "features" for inode in item.files}
    items = {item.name: _linked(item, homes) for item in found} | {item.name: item for item in shards}
    known = {name: replace(item, needs=item.needs & items.keys()) for name, item in items.items()}
    return Inventory(known, contents, at_work)


def _stage_folders(root: Path) -> Iterator[Path]:
    for folder in _folders(root):
        if folder.name not in _OTHERS:
            yield folder


def _stage_items(stage: Path) -> Iterator[Item]:
    for folder in _folders(stage):
        try:
            item = _stage_item(f"{stage.name}/{folder.name}", folder)
        except FileNotFoundError:  # a run has just finished it
            continue
        if item is not None:
            yield item


def _stage_item(name: str, folder: Path) -> Item | None:
    if folder.name.startswith(TRASH):
        return Item("trash", name, folder, _newest(folder), _links(folder))
    if folder.name.endswith(PARTIAL):
        return Item("unfinished", name, folder, _newest(folder), _links(folder))
    return _artifact(name, folder) if (folder / MANIFEST).is_file() else None


def _artifact(name: str, folder: Path) -> Item:
    content = (folder / MANIFEST).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    needs = frozenset(_inputs(content))
    return Item(
        "artifact", name, folder, last_used(folder), _links(folder), needs, frozenset({folder.name, sha256})
    )  # fmt: skip


def _inputs(manifest: bytes) -> Iterator[str]:
    """Names of the artifacts that a manifest refers to; a damaged one refers to none."""
    try:
        inputs: Mapping[str, Any] = json.loads(manifest)["inputs"]
        yield from [f"{reference['stage']}/{reference['key']}" for reference in inputs.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return


def _linked(item: Item, homes: Mapping[Inode, str]) -> Item:
    """Let an artifact need the shards of the cache that it has hard links to."""
    shards = {homes[inode] for inode in item.files if inode in homes}
    return replace(item, needs=item.needs | shards) if shards else item


def _features(cache: Path) -> Iterator[Item]:
    for space in _folders(cache):
        if not is_space_key(space.name):
            continue
        names = {path.name for path in space.iterdir()}
        for name in sorted(names):
            item = _shard(space, name, names)
            if item is not None:
                yield item


def _shard(space: Path, name: str, names: set[str]) -> Item | None:
    """Describe a shard with its sidecar, or a file that a job left; None for what belongs to a shard or to the space.

    Linking a shard into an artifact changes its status time, which hence says when it was last used.
    """
    stem, _, ending = name.partition(".")
    path, listed = space / name, f"{FEATURES}/{space.name}/{stem}"
    try:
        if is_sidecar(name) and f"{stem}{_PARQUET}" in names:
            parquet = path.with_suffix(_PARQUET)
            status = parquet.stat()
            files = _one(parquet) | _one(path)
            return Item("features", listed, parquet, max(status.st_mtime, status.st_ctime), files)
        if name.startswith(".") or ending == "pairs.parquet" or (ending == "parquet" and f"{stem}.json" not in names):
            return Item("leftover", f"{FEATURES}/{space.name}/{name}", path, path.stat().st_mtime, _one(path))
    except FileNotFoundError:  # a job has just tidied up
        return None
    return None


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir() or folder.is_symlink():
        return []
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.is_symlink())


def _walk(folder: Path, contents: dict[Inode, Content]) -> Iterator[Inode]:
    """Give every file below a folder, and note what it takes; what vanishes meanwhile is passed over."""
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(Path(place) / name)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                inode = Inode(status.st_dev, status.st_ino)
                contents[inode] = Content(status.st_size, status.st_nlink)
                yield inode


def _links(folder: Path) -> dict[Inode, int]:
    links: dict[Inode, int] = {}
    for inode in _walk(folder, {}):
        links[inode] = links.get(inode, 0) + 1
    return links


def _one(path: Path) -> dict[Inode, int]:
    status = path.stat()
    return {Inode(status.st_dev, status.st_ino): 1}


def _newest(folder: Path) -> float:
    """When something in a folder was last written."""
    times = [folder.stat().st_mtime]
    for place, _, names in os.walk(folder):
        times += [os.lstat(Path(place) / name).st_mtime for name in names if os.path.lexists(Path(place) / name)]
    return max(times)
