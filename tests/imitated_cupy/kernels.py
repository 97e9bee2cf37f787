"""Elementwise kernels, compiled from their CUDA source by the C++ compiler."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.imitated_cupy.arrays import ndarray
from tests.imitated_cupy.ledger import LEDGER

TEMPLATE = """
#include <cmath>
#include <algorithm>
using std::abs; using std::max; using std::min;
typedef {ctype} T;
extern "C" void run(long size, void** given) {{
  for (long i = 0; i < size; ++i) {{
    {names}
    {code};
  }}
}}
"""


class Call(NamedTuple):
    """What decides the source that CuPy generates for a kernel."""

    name: str
    inputs: str
    outputs: str
    code: str
    dtype: str
    layouts: tuple[tuple[int, bool] | None, ...]
    """Per argument its axes and whether its entries lie in order, once broadcast; None for a number."""


CTYPES = {"float32": "float", "float64": "double"}


SEEN: set[Call] = set()
"""Every kind of call there was, for tests/cuda to compile."""


class ElementwiseKernel:
    """As CuPy's, for parameters that all have the type T.

    Parameters
    ----------
    inputs, outputs : str
        As in "T x, T y".
    code : str
    name : str
    """

    def __init__(self, inputs: str, outputs: str, code: str, name: str) -> None:
        self.name, self.code, self._parameters = name, code, (inputs, outputs)
        self.inputs, self.outputs = _names(inputs), _names(outputs)
        if "i" in self.inputs + self.outputs:
            raise ValueError("Can not use 'i' as a parameter name")

    def __call__(self, *args: Any) -> Any:
        """Run over the shape that all arrays broadcast to; return the outputs, new ones if none are given."""
        if len(args) not in (len(self.inputs), len(self.inputs) + len(self.outputs)):
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}")
        dtypes = {part.dtype for part in args if isinstance(part, ndarray)}
        if len(dtypes) != 1:
            raise TypeError(f"Type is mismatched. {dtypes}")
        dtype = dtypes.pop()
        given = [_entries(part, dtype) for part in args]
        shape = np.broadcast_shapes(*(part.shape for part in given))
        targets = args[len(self.inputs) :] or [ndarray(np.empty(shape, dtype)) for _ in self.outputs]
        if not all(isinstance(target, ndarray) for target in targets):
            raise TypeError("Output arguments type must be cupy.ndarray")
        if any(target.shape != shape for target in targets):
            raise ValueError("Out shape is mismatched")
        LEDGER.kernels.append(self.name)
        sources = [np.broadcast_to(part, shape) for part in given[: len(self.inputs)]]
        layouts = [
            (source.ndim, source.flags.c_contiguous) if isinstance(part, ndarray) else None
            for part, source in zip(args, sources, strict=False)
        ]
        layouts += [(target.ndim, target.held.flags.c_contiguous) for target in targets]
        SEEN.add(Call(self.name, *self._parameters, self.code, dtype.name, tuple(layouts)))
        self._run(dtype, sources, targets)
        return targets[0] if len(targets) == 1 else tuple(targets)

    def _run(self, dtype: np.dtype, sources: list[np.ndarray], targets: Sequence[ndarray]) -> None:
        """Call the compiled loop on contiguous memory; what is contiguous already is not copied, so it may overlap."""
        rooms = [_contiguous(target.held) for target in targets]
        memory = [*map(_contiguous, sources), *rooms]
        pointers = (ctypes.c_void_p * len(memory))(*(part.ctypes.data for part in memory))
        self._compiled(dtype.name)(ctypes.c_long(rooms[0].size), pointers)
        for target, room in zip(targets, rooms, strict=True):
            if room is not target.held:
                target.held[...] = room

    def _compiled(self, dtype: str) -> Any:
        names = [f"const T &{name} = ((const T*)given[{k}])[i];" for k, name in enumerate(self.inputs)]
        first = len(self.inputs)
        names += [f"T &{name} = ((T*)given[{first + k}])[i];" for k, name in enumerate(self.outputs)]
        return _compile(TEMPLATE.format(ctype=CTYPES[dtype], names="\n    ".join(names), code=self.code))


def _names(parameters: str) -> list[str]:
    """Names in "T x, T y"; any other type is not imitated."""
    pairs = [part.split() for part in parameters.split(",")]
    assert all(kind == "T" for kind, _ in pairs), parameters
    return [name for _, name in pairs]


def _entries(given: Any, dtype: np.dtype) -> np.ndarray:
    if isinstance(given, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return given.held if isinstance(given, ndarray) else np.asarray(given, dtype=dtype)


def _contiguous(array: np.ndarray) -> np.ndarray:
    """The array itself if its entries lie in order; NumPy's function would give one without axes an axis."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


@functools.cache
def _compile(source: str) -> Any:
    """Return the function `run` of a C++ source."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler for the source of a CUDA kernel")
    folder = Path(tempfile.mkdtemp(prefix="imitated-cupy-"))
    (folder / "kernel.cpp").write_text(source, encoding="ascii")
    # No contraction to fused operations: the expected numbers come from plain ones.
    command = [
        compiler,
        "-O1",
        "-ffp-contract=off",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Werror",
        "-o",
        "kernel.so",
        "kernel.cpp",
    ]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernel.so"))
    shutil.rmtree(folder)
    return library.run
