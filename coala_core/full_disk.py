"""A disk without room, as a sentence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(OSError):
    """There is no room for a file: an errno, and a sentence that names the folder and says how to go on."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left" into a sentence that says where, and what to do.

    Parameters
    ----------
    folder : Path
        What is named where the error names no file.

    Raises
    ------
    DiskFull
        If something within found no room for a file, or no more quota.
    """
    try:
        yield
    except DiskFull:
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        named = Path(error.filename).parent if isinstance(error.filename, str) else folder
        known = next(path for path in (named, *named.parents) if path.exists())
        raise DiskFull(
            error.errno,
            f"`{named}` needs room on its disk, got {os.strerror(error.errno)} with "
            f"{shutil.disk_usage(known).free / 1e6:,.1f} MB free; make room there and run the same command again, "
            "which continues.",
        ) from error
