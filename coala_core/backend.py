"""The one seam between NumPy and CuPy: every difference of the two libraries is in this file.

Mathematics asks an array for its library with `namespace_of` and never imports CuPy, so
the same lines run on the CPU and on a GPU, and a machine without CuPy can import everything.
"""

from __future__ import annotations

import importlib
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


def free_memory(xp: ModuleType) -> None:
    """Give unused device memory of the library's pool back; NumPy has no pool."""
    if xp is not np:
        xp.get_default_memory_pool().free_all_blocks()
