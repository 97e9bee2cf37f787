"""The one seam between NumPy and CuPy: every difference of the two libraries is in this file.

Mathematics asks an array for its library with `namespace_of` and never imports CuPy, so
the same lines run on the CPU and on a GPU, and a machine without CuPy can import everything.
Large products on the CPU can be given to PyTorch, on the memory of NumPy's arrays (decision record 0009).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import threadpoolctl
from numpy.typing import NDArray

SMALL_PRODUCT = 2**26  # operations

Array: TypeAlias = NDArray[Any]
"""An array of either library; both answer to the NumPy interface."""


def namespace_of(array: Any) -> ModuleType:
    """Return the library, NumPy or CuPy, that `array` belongs to."""
    if type(array).__module__.partition(".")[0] == "cupy":
        return importlib.import_module("cupy")
    return np


def resolve_backend(name: str) -> ModuleType:
    """Return the array library that a configuration names.

    Parameters
    ----------
    name : {"auto", "numpy", "cupy"}
        "auto" takes CuPy where it is installed and finds a device, and NumPy elsewhere.

    Raises
    ------
    ValueError
        If `name` is none of the three.
    RuntimeError
        If "cupy" is asked for and CuPy is absent or finds no device.
    """
    if name not in ("auto", "numpy", "cupy"):
        raise ValueError(
            f"`resolve_backend(name=...)` must be 'auto', 'numpy' or 'cupy', got {name!r}; use 'auto' when in doubt."
        )
    if name == "numpy":
        return np
    cupy, obstacle = _cupy_with_device()
    if cupy is not None:
        return cupy
    if name == "auto":
        return np
    raise RuntimeError(
        f"`resolve_backend('cupy')` needs CuPy and a CUDA device, got {obstacle}; "
        "install the `gpu` extra on a machine with a GPU, or use 'numpy'."
    )


def _cupy_with_device() -> tuple[ModuleType | None, str]:
    """CuPy if it imports and sees a device, otherwise what is in the way."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return None, "no CuPy"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return None, f"no usable CUDA driver ({error})"
    return (cupy, "") if count else (None, "no CUDA device")


def asarray(array: Any, xp: ModuleType, dtype: Any = None) -> Array:
    """Return `array` as an array of the library `xp`, copied between host and device when needed."""
    if xp is np:
        array = to_numpy(array)
    result: Array = xp.asarray(array, dtype=dtype)
    return result


def to_numpy(array: Any) -> Array:
    """Return `array` as a NumPy array on the host."""
    xp = namespace_of(array)
    return np.asarray(array) if xp is np else np.asarray(xp.asnumpy(array))


def tall_matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Multiply NumPy arrays by PyTorch's product, which is the faster one for a tall matrix and few columns.

    Parameters
    ----------
    a : (k, m) float32 or float64
        Writable, as `b` and `out`, whose memory PyTorch shares.
    b : (m, c) or (m,)
        Of the same type.
    out : (k, c) or (k,), optional
        Where to put the product.

    Returns
    -------
    (k, c) or (k,)
        In the memory of `out` if that was given.
    """
    import torch  # takes a second, which few uses of this module need

    left, right = torch.from_numpy(a), torch.from_numpy(b)
    target = None if out is None else torch.from_numpy(out)
    product: Array = torch.matmul(left, right, out=target).numpy()
    return product


def tall_matmul_threads() -> int:
    """Return the number of threads of `tall_matmul`."""
    import torch

    return torch.get_num_threads()


def inverse(matrix: Array) -> Array:
    """Invert a symmetric positive definite matrix in its own precision; `matrix` may be overwritten.

    Parameters
    ----------
    matrix : (k, k) float32 or float64
        Symmetric positive definite, C-ordered.

    Returns
    -------
    (k, k)
        The inverse, symmetric to the last bit with NumPy.

    Raises
    ------
    numpy.linalg.LinAlgError
        If `matrix` is not positive definite to its precision.
    """
    xp = namespace_of(matrix)
    if xp is np:
        factorise, invert = scipy.linalg.get_lapack_funcs(("potrf", "potri"), (matrix,))
        # The transpose of a C-ordered symmetric matrix is the same matrix in LAPACK's order: no copy.
        factor, failed = factorise(matrix.T, lower=True, clean=False, overwrite_a=True)
        result, unfit = (factor, 1) if failed else invert(factor, lower=True, overwrite_c=True)
        if failed or unfit:
            raise np.linalg.LinAlgError("`inverse(matrix=...)` must be positive definite, got another one.")
        return _mirrored(result.T)
    triangular = importlib.import_module("cupyx.scipy.linalg").solve_triangular
    factor = xp.linalg.cholesky(matrix)
    half = triangular(factor, xp.eye(len(matrix), dtype=matrix.dtype), lower=True, check_finite=False)
    whole: Array = half.T @ half
    if not bool(xp.isfinite(whole).all()):
        raise np.linalg.LinAlgError("`inverse(matrix=...)` must be positive definite, got another one.")
    return whole


def _mirrored(upper: Array, width: int = 64) -> Array:
    """Copy the upper triangle of a C-ordered matrix (k, k) onto its lower one, in place, block by block."""
    for start in range(0, len(upper), width):
        rows = slice(start, start + width)
        upper[start + width :, rows] = upper[rows, start + width :].T
        square = upper[rows, rows]
        square[:] = np.triu(square) + np.triu(square, 1).T
    return upper


@functools.cache
def device_kernel(name: str, inputs: str, outputs: str, code: str) -> Callable[..., Any]:
    """Compile an elementwise CUDA kernel once; arguments as `cupy.ElementwiseKernel` takes them.

    One kernel reads and writes every entry once, where array expressions would do so for every operation.
    """
    kernel: Callable[..., Any] = importlib.import_module("cupy").ElementwiseKernel(inputs, outputs, code, name)
    return kernel


@contextlib.contextmanager
def threads_for(operations: int) -> Iterator[None]:
    """Keep the linear algebra of the CPU to one thread while its usual product is a small one.

    Threads wait for each other actively. Below about a millisecond that costs more than they gain, and many times
    more where another process, or the threads of SciPy's own copy of the library, want the same cores.
    """
    if operations >= SMALL_PRODUCT:
        yield
        return
    with blas_threads(1):
        yield


def blas_threads(count: int) -> contextlib.AbstractContextManager[Any]:
    """Run NumPy's and SciPy's linear algebra on so many threads for a while."""
    limiter: contextlib.AbstractContextManager[Any] = threadpoolctl.threadpool_limits(limits=count, user_api="blas")
    return limiter


@contextlib.contextmanager
def freed_memory(name: str) -> Iterator[None]:
    """Give a device's memory back after some work on the backend of that name; NumPy has no pool.

    What the work returns stays; what only it had must be out of scope by then, in functions that have returned.
    """
    xp = resolve_backend(name)
    try:
        yield
    finally:
        if xp is not np:
            xp.get_default_memory_pool().free_all_blocks()


def available_memory(xp: ModuleType) -> int:
    """Bytes that the library's arrays may take now: free device memory, or what the host's kernel calls available."""
    if xp is not np:
        pool = xp.get_default_memory_pool()
        return int(xp.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # without what caches would give back
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        host = 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max": no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        host = min(host, max(limit - used, 0))
    return host
