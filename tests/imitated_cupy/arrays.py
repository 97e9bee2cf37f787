"""An array that keeps CuPy's rules."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tests.imitated_cupy.ledger import LEDGER

BINARY = "add sub mul truediv floordiv mod pow matmul and or xor"
COMPARISONS = "lt le gt ge eq ne"
METHODS = {
    "min": "axis out keepdims",
    "max": "axis out keepdims",
    "sum": "axis dtype out keepdims",
    "any": "axis out keepdims",
    "all": "axis out keepdims",
    "mean": "axis dtype out keepdims",
    "take": "indices axis out",
    "copy": "order",
}
"""Methods that launch something, with their parameters in order."""


class ndarray:
    """An array on the imagined device; its entries are in `held`."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, held: np.ndarray) -> None:
        self.held = held
        LEDGER.alive += 1

    def __del__(self) -> None:
        LEDGER.alive -= 1

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use `.get()`.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        if method != "__call__" or set(keywords) - {"out", "dtype", "casting"}:
            raise TypeError(f"CuPy takes no {method} of {ufunc.__name__} with {sorted(keywords)}.")
        if "out" in keywords:
            keywords["out"] = keywords["out"][0]
        return launch(ufunc.__name__, ufunc, *inputs, **keywords)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        from tests.imitated_cupy.library import function_named

        return function_named(f"{function.__module__.removeprefix('numpy')}.{function.__name__}".lstrip("."))(
            *args, **keywords
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.held.shape

    dtype = property(lambda self: self.held.dtype)
    ndim = property(lambda self: self.held.ndim)
    size = property(lambda self: self.held.size)
    nbytes = property(lambda self: self.held.nbytes)
    strides = property(lambda self: self.held.strides)
    T = property(lambda self: ndarray(self.held.T))

    def __len__(self) -> int:
        return len(self.held)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        index = index_of(key)
        picked = self.held[index]
        if not np.shares_memory(picked, self.held) and picked.size:
            LEDGER.kernels.append("getitem")
        return ndarray(picked)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("non-scalar numpy.ndarray cannot be used for fill")
        LEDGER.kernels.append("setitem")
        self.held[index_of(key)] = entries_of(value)

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        if not copy and self.held.dtype == dtype:
            return self
        return launch("astype", self.held.astype, dtype)

    def reshape(self, *shape: Any) -> ndarray:
        changed = self.held.reshape(*shape)
        if self.held.size and not np.shares_memory(changed, self.held):
            LEDGER.kernels.append("copy")
        return ndarray(changed)

    def diagonal(self) -> ndarray:
        return ndarray(self.held.diagonal())

    def get(self) -> np.ndarray:
        return self._read("get").copy()

    def tolist(self) -> Any:
        return self._read("tolist").tolist()

    def item(self) -> Any:
        return self._read("item").item()

    def __float__(self) -> float:
        return float(self._read("float"))

    def __int__(self) -> int:
        return int(self._read("int"))

    __index__ = __int__

    def __bool__(self) -> bool:
        return bool(self._read("bool"))

    def __neg__(self) -> ndarray:
        return launch("negative", operator.neg, self)

    def __invert__(self) -> ndarray:
        return launch("invert", operator.invert, self)

    def __abs__(self) -> ndarray:
        return launch("absolute", operator.abs, self)

    def _read(self, what: str) -> np.ndarray:
        LEDGER.reads.append(what)
        LEDGER.read_bytes += self.held.nbytes
        return self.held


ndarray.__module__ = "cupy"


def index_of(key: Any) -> Any:
    """An index of NumPy that gives arrays without axes where NumPy would give numbers; a mask makes the host wait."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, ndarray) and part.dtype == bool for part in parts):
        LEDGER.reads.append("mask")
    LEDGER.uploads += sum(isinstance(part, np.ndarray | list) for part in parts)
    parts = tuple(part.held if isinstance(part, ndarray) else part for part in parts)
    return parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)


def entries_of(given: Any) -> Any:
    """What NumPy computes with: a device array's entries, scalars, and lists of both; a NumPy array is refused."""
    if isinstance(given, ndarray):
        return given.held
    if isinstance(given, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(given, list | tuple):
        return type(given)(entries_of(part) for part in given)
    return given


def launch(name: str, function: Any, *args: Any, **keywords: Any) -> Any:
    """Do on the host what the device is asked for, and count it."""
    LEDGER.kernels.append(name)
    out = keywords.get("out")
    if out is not None and not isinstance(out, ndarray):
        raise TypeError("Output arguments type must be cupy.ndarray")
    with np.errstate(all="ignore"):  # a device does not warn
        found = function(*map(entries_of, args), **{key: entries_of(value) for key, value in keywords.items()})
    return on_device(found) if out is None else out


def on_device(found: Any) -> Any:
    """Arrays and NumPy's scalars as device arrays; tuples part by part."""
    if isinstance(found, tuple):
        return tuple(map(on_device, found))
    return ndarray(np.asarray(found)) if isinstance(found, np.ndarray | np.generic) else found


def _add_operators() -> None:
    """Give the array Python's operators and the methods of `METHODS`."""
    for name in BINARY.split():
        plain = getattr(operator, f"{name}_" if name in ("and", "or") else name)
        setattr(ndarray, f"__{name}__", lambda a, b, f=plain, n=name: launch(n, f, a, b))
        setattr(ndarray, f"__r{name}__", lambda a, b, f=plain, n=name: launch(n, f, b, a))
    for name, function in zip(
        ("add", "sub", "mul", "truediv"), (np.add, np.subtract, np.multiply, np.divide), strict=True
    ):
        setattr(ndarray, f"__i{name}__", lambda a, b, f=function, n=name: launch(n, f, a, b, out=a))
    for name in COMPARISONS.split():
        plain = getattr(operator, name)
        setattr(ndarray, f"__{name}__", lambda a, b, f=plain, n=name: launch(n, f, a, b))
    for name in METHODS:
        setattr(ndarray, name, _method(name))


def _method(name: str) -> Any:
    """A method of NumPy's array, as a launch."""

    def method(self: ndarray, *args: Any, **keywords: Any) -> Any:
        if unknown := set(keywords) - set(METHODS[name].split()):
            raise TypeError(f"cupy.ndarray.{name} has no parameter {sorted(unknown)}")
        return launch(name, getattr(np.ndarray, name), self, *args, **keywords)

    return method


_add_operators()
