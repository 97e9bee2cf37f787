"""Arrays on disk that go away by themselves: room for what does not fit into memory."""

from __future__ import annotations

import math
import mmap
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch:
    """Make arrays that live in files without a name.

    The kernel keeps as much of them in memory as there is room for and takes it back when others need it. A file
    is gone with its last array, also where the process was killed.

    Parameters
    ----------
    folder : Path, optional
        On the file system to use; by default where temporary files go.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(tempfile.gettempdir()) if folder is None else folder

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a writable array of zeros.

        Raises
        ------
        OSError
            If the file system has no room for it; nothing has been written by then.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size == 0:
            return np.zeros(shape, dtype=dtype)
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise OSError(
                f"`Scratch.array` must find {size / 1024**3:.3g} GiB in `{self.folder}`, got {free / 1024**3:.3g} GiB; "
                "free some, or choose a larger file system by `TMPDIR` or the store's folder."
            )
        with tempfile.TemporaryFile(dir=self.folder, prefix="coala-") as file:
            file.truncate(size)
            mapped = mmap.mmap(file.fileno(), size)
        return np.frombuffer(mapped, dtype=dtype).reshape(shape)
