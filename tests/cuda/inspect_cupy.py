"""Run by a Python that has CuPy: answer a request on standard input, as JSON, without a device."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cupy
import cupyx
import numpy as np
from cupy._core import _carray, _kernel, _scalar
from cupy.cuda import compiler

from cuda.pathfinder import find_nvidia_header_directory

ARRAY, INDEXER, SCALAR = 1, 2, 3  # CuPy's own numbers of the kinds of arguments


def compile_all(calls: list[dict[str, Any]], architectures: list[str]) -> dict[str, Any]:
    """Generate the source of every call as CuPy does, and compile it for every architecture."""
    failures, compiled = [], 0
    for call in calls:
        source = "#include <cupy/carray.cuh>\n" + _source(**call)
        for architecture in architectures:
            try:
                program = compiler._NVRTCProgram(source, "kernel.cu", method="cubin")
                binary, _ = program.compile((*_options(), f"-arch=sm_{architecture}"))
            except compiler.CompileException as error:
                failures.append(f"{call['name']} in {call['dtype']} for sm_{architecture}: {error}")
            else:
                assert binary.startswith(b"\x7fELF"), "no machine code"
                compiled += 1
    return {"compiled": compiled, "failures": failures}


def _source(name: str, inputs: str, outputs: str, code: str, dtype: str, layouts: list[tuple[int, bool] | None]) -> str:
    """CUDA source of one call."""
    kernel, real = cupy.ElementwiseKernel(inputs, outputs, code, name), np.dtype(dtype)
    info = _kernel._ArgInfo
    infos = [
        info(SCALAR, _scalar.CScalar, real, 0, True, True)
        if layout is None
        else info(ARRAY, cupy.ndarray, real, layout[0], layout[1], True)
        for layout in layouts
    ]
    axes = max(layout[0] for layout in layouts if layout is not None)
    infos.append(info(INDEXER, _carray.Indexer, None, axes, True, True))
    types = _kernel._TypeMap((("T", real),))
    text: str = _kernel._get_elementwise_kernel_code(tuple(infos), types, kernel.params, code, name, "")
    return text


def _options() -> Iterator[str]:
    """Where the headers are, and the language."""
    headers = Path(cupy.__file__).parent / "_core" / "include"
    yield "--std=c++17"
    yield f"-I{headers}"
    yield f"-I{headers}/cupy/_cccl/libcudacxx"
    yield f"-I{find_nvidia_header_directory('cudart')}"


def compare(functions: dict[str, str], ufuncs: list[str], methods: dict[str, str], triangular: str) -> list[str]:
    """List what CuPy lacks of these functions, entrywise functions, methods and parameters."""
    missing = [f"solve_triangular({one})" for one in triangular.split() if one not in _triangular_parameters()]
    for name, wanted in functions.items():
        home: Any = cupy
        for part in name.split("."):
            home = getattr(home, part, None)
        if home is None:
            missing.append(name)
            continue
        known = [str(parameter) for parameter in inspect.signature(home).parameters.values()]
        known = [parameter.split(":")[0].split("=")[0].strip() for parameter in known]
        missing += [f"{name}({one})" for one in wanted.split() if one not in known]
    missing += [name for name in ufuncs if not callable(getattr(cupy, name, None))]
    for name, wanted in methods.items():
        lines = (getattr(cupy.ndarray, name).__doc__ or "").splitlines()
        missing += [f"ndarray.{name}({one})" for one in wanted.split() if lines and one not in lines[0]]
    return missing


def _triangular_parameters() -> list[str]:
    """Parameters of solve_triangular, by its source: to import it takes a CUDA library of 500 MB."""
    source = Path(cupyx.__file__).parent / "scipy" / "linalg" / "_solve_triangular.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "solve_triangular")
    return [argument.arg for argument in found.args.args]


if __name__ == "__main__":
    request = json.load(sys.stdin)
    answers = {"compile": compile_all, "compare": compare}
    json.dump(answers[request.pop("what")](**request), sys.stdout)
