"""When an artifact was last used: when it was made, or a mark beside its lock was last touched.

Nothing in the artifact's own folder changes. A copy of a store that does not keep times makes everything look used
today, which errs on the safe side.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

MANIFEST = "manifest.json"  # `coala_core.storage` imports nothing from here, nor this module from there


def mark_used(folder: Path) -> None:
    """Note that the artifact in a folder of a store is being used now.

    A store that this process may only read stays as it is, and so does a folder that lies in no store.
    """
    with suppress(OSError):
        mark_of(folder).touch()


def last_used(folder: Path) -> float:
    """When the artifact in a folder was made or last used, in seconds since 1970.

    Raises
    ------
    FileNotFoundError
        If the folder holds no manifest.
    """
    made = (folder / MANIFEST).stat().st_mtime
    try:
        return max(made, mark_of(folder).stat().st_mtime)
    except FileNotFoundError:
        return made


def mark_of(folder: Path) -> Path:
    """Where the mark of an artifact is; `locks` is there as soon as a stage has made something."""
    return folder.parents[1] / "locks" / f"{folder.parent.name}-{folder.name}.used"
