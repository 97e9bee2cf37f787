"""The one seam between NumPy and CuPy: every difference of the two libraries is in this file.

Mathematics asks an array for its library with `namespace_of` and never imports CuPy, so
the same lines run on the CPU and on a GPU, and a machine without CuPy can import everything.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

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


def cholesky(matrix: Array) -> Array:
    """Factorise a symmetric positive definite matrix; `matrix` may be overwritten.

    Parameters
    ----------
    matrix : (k, k)
        Symmetric positive definite.

    Returns
    -------
    (k, k)
        Lower triangular factor L of matrix = L L'; entries above the diagonal are undefined.

    Raises
    ------
    numpy.linalg.LinAlgError
        If `matrix` is not positive definite. CuPy does not raise and fills the factor with NaN.
    """
    xp = namespace_of(matrix)
    if xp is np:
        # The transpose of a C-ordered symmetric matrix is the same matrix in LAPACK's order: no copy.
        factor: Array = scipy.linalg.cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False)[0]
    else:
        factor = xp.linalg.cholesky(matrix)
    return factor


def cholesky_solve(factor: Array, right: Array) -> Array:
    """Solve L L' x = right with the factor L of `cholesky`; `right` is (k,) or (k, columns)."""
    if namespace_of(factor) is np:
        solution: Array = scipy.linalg.cho_solve((factor, True), right, check_finite=False)
        return solution
    # Imported here because it raises ImportError where no CUDA driver is installed.
    triangular = importlib.import_module("cupyx.scipy.linalg").solve_triangular
    half = triangular(factor, right, lower=True, check_finite=False)
    solution = triangular(factor, half, trans="T", lower=True, check_finite=False)
    return solution


def inverse(matrix: Array) -> Array:
    """Invert a symmetric positive definite matrix in its own precision; `matrix` may be overwritten.

    Parameters
    ----------
    matrix : (k, k) float32 or float64
        Symmetric positive definite, C-ordered.

    Returns
    -------
    (k, k)
        The inverse, for `symmetric_product`; with NumPy only its lower triangle is defined.

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
        lower: Array = result
        return lower
    triangular = importlib.import_module("cupyx.scipy.linalg").solve_triangular
    factor = xp.linalg.cholesky(matrix)
    half = triangular(factor, xp.eye(len(matrix), dtype=matrix.dtype), lower=True, check_finite=False)
    whole: Array = half.T @ half
    if not bool(xp.isfinite(whole).all()):
        raise np.linalg.LinAlgError("`inverse(matrix=...)` must be positive definite, got another one.")
    return whole


def symmetric_product(matrix: Array, vector: Array) -> Array:
    """Multiply what `inverse` returned (k, k) by a vector (k,) of any precision; the result has the vector's."""
    xp = namespace_of(matrix)
    narrow = vector.astype(matrix.dtype)
    if xp is np:
        # Reads one triangle: half the memory traffic, which is all that this costs.
        (multiply,) = scipy.linalg.get_blas_funcs(("symv",), (matrix,))
        product = multiply(1.0, matrix, narrow, lower=True)
    else:
        product = matrix @ narrow
    result: Array = product.astype(vector.dtype)
    return result


def free_memory(xp: ModuleType) -> None:
    """Give unused device memory of the library's pool back; NumPy has no pool."""
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
