"""The module `cupy` of the imitation."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.linalg

from tests.imitated_cupy import functions as offered
from tests.imitated_cupy.arrays import entries_of, launch, ndarray
from tests.imitated_cupy.kernels import ElementwiseKernel
from tests.imitated_cupy.ledger import LEDGER

DEVICE_BYTES = 8 * 1024**3
CASTING = {"out", "dtype", "casting"}


def function_named(name: str) -> Callable[..., Any]:
    """Return a function of the imitation, refusing parameters that CuPy's lacks."""
    for table, make in _MAKERS:
        if name in table:
            return _guarded(name, table[name], make(name))
    raise AttributeError(f"the imitation of CuPy has no {name!r}: see that CuPy has it, then list it in `functions`")


def _guarded(name: str, parameters: str | int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Check the arguments of a call against the parameters, or against the number of operands."""
    most = parameters if isinstance(parameters, int) else len(parameters.split())
    names = CASTING if isinstance(parameters, int) else set(parameters.split())

    def call(*args: Any, **keywords: Any) -> Any:
        if set(keywords) - names or (len(args) > most and "*operands" not in names):
            raise TypeError(f"cupy.{name} takes {sorted(names)}, got {len(args)} and {sorted(keywords)}")
        return function(*args, **keywords)

    return call


def _of_numpy(name: str) -> Any:
    """NumPy's function of a dotted name."""
    found: Any = np
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _computed(name: str) -> Callable[..., Any]:
    """A function on device arrays; what has no solution gives numbers that are none, where NumPy raises."""

    def call(*args: Any, **keywords: Any) -> Any:
        keywords = {_NUMPY_NAMES.get(key, key): value for key, value in keywords.items()}
        try:
            return launch(name, _of_numpy(name), *args, **keywords)
        except np.linalg.LinAlgError:
            return ndarray(np.full(args[-1].shape, np.nan, dtype=args[-1].dtype))

    return call


def _uploaded(name: str) -> Callable[..., Any]:
    """`array` and `asarray`, which take arrays of the host, of the device, numbers and lists of those."""

    def call(given: Any, *args: Any, **keywords: Any) -> ndarray:
        if isinstance(given, ndarray):
            same = name == "asarray" and keywords.get("dtype", args[0] if args else None) in (None, given.dtype)
            return given if same else launch("copy", _of_numpy(name), given, *args, **keywords)
        if isinstance(given, list | tuple) and any(isinstance(part, ndarray) for part in given):
            return launch("stack", lambda parts: np.array(parts, *args, **keywords), list(given))
        LEDGER.uploads += 1
        held = np.array(given, *args, **{**keywords, "copy": True})
        if held.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {held.dtype}")
        return ndarray(held)

    return call


def _viewed(name: str) -> Callable[..., Any]:
    return lambda array, *args: ndarray(_of_numpy(name)(entries_of(array), *args))


def _asked(name: str) -> Callable[..., Any]:
    return lambda array: _of_numpy(name)(entries_of(array))


def _awaited(name: str) -> Callable[..., Any]:
    def call(array: ndarray) -> Any:
        LEDGER.reads.append(name)
        return launch(name, _of_numpy(name), array)

    return call


_NUMPY_NAMES = {"tup": "arrays", "obj": "object"}
_MAKERS: tuple[tuple[dict[str, Any], Callable[[str], Callable[..., Any]]], ...] = (
    (offered.CREATION, _computed),
    (offered.UPLOADS, _uploaded),
    (offered.FUNCTIONS, _computed),
    (offered.VIEWS, _viewed),
    (offered.ASKED, _asked),
    (offered.READS, _awaited),
    (offered.UFUNCS, _computed),
)


class _Library(ModuleType):
    """Functions by name, types of NumPy, and the few objects that are asked for."""

    def __getattr__(self, name: str) -> Any:
        if name in ("float16", "float32", "float64", "int32", "int64", "bool_", "dtype", "inf", "nan"):
            return getattr(np, name)
        if name.startswith("__"):
            raise AttributeError(name)
        return function_named(name)


class Device:
    """The one device."""

    def synchronize(self) -> None:
        """Wait for everything that was asked for."""
        LEDGER.reads.append("synchronize")


class _Pool:
    """The memory pool: everything is free."""

    def free_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        LEDGER.alive_when_freed.append(LEDGER.alive)


def asnumpy(array: Any) -> np.ndarray:
    """Bring an array to the host; what is there already is left as it is."""
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


def solve_triangular(a: ndarray, b: ndarray, **keywords: Any) -> ndarray:
    """Solve by substitution; a matrix of no numbers gives none, where SciPy refuses it."""
    return _guarded("solve_triangular", offered.TRIANGULAR, _substituted)(a, b, **keywords)


def _substituted(a: ndarray, b: ndarray, **keywords: Any) -> ndarray:
    def solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return scipy.linalg.solve_triangular(a, b, **keywords) if np.isfinite(a).all() else np.full_like(b, np.nan)

    return launch("solve_triangular", solve, a, b)


def _make() -> tuple[ModuleType, ModuleType]:
    """The modules `cupy` and `cupyx.scipy.linalg`."""
    cupy, triangular = _Library("cupy"), ModuleType("cupyx.scipy.linalg")
    runtime = SimpleNamespace(
        CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
        getDeviceCount=lambda: 1,
        memGetInfo=lambda: (DEVICE_BYTES, DEVICE_BYTES),
    )
    pool = _Pool()
    objects = {
        "ndarray": ndarray,
        "asnumpy": asnumpy,
        "ElementwiseKernel": ElementwiseKernel,
        "cuda": SimpleNamespace(runtime=runtime, Device=Device),
        "get_default_memory_pool": lambda: pool,
        "linalg": SimpleNamespace(
            **{name[7:]: function_named(name) for name in offered.FUNCTIONS if name.startswith("linalg.")}
        ),
    }
    cupy.__dict__.update(objects)
    triangular.__dict__["solve_triangular"] = solve_triangular
    return cupy, triangular


@contextlib.contextmanager
def imitated_cupy() -> Iterator[ModuleType]:
    """Let `import cupy` give the imitation for a while."""
    from coala_core.backend import device_kernel

    cupy, triangular = _make()
    names = {"cupy": cupy, "cupyx.scipy.linalg": triangular}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    device_kernel.cache_clear()
    LEDGER.clear()
    try:
        yield cupy
    finally:
        device_kernel.cache_clear()
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
