"""The real CuPy, without a device: our kernels compile, the imitation offers nothing that CuPy lacks, doors say why."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path

import pytest

from coala_core.cvxnn import fit_head
from tests.imitated_cupy import arrays, functions, imitated_cupy, kernels
from tests.problems import config_for, paired_features

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-cuda" / "bin" / "python"
ARCHITECTURES = ["75", "80", "86", "89", "90", "100", "120"]  # Turing to Blackwell: all that CUDA 13 compiles for
KERNELS = {
    "coala_move",
    "coala_take_back",
    "coala_shrink",
    "coala_small_residual",
    "coala_relax",
    "coala_split",
    "coala_join",
    "coala_preconditioned_step",
    "coala_learn",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-cuda with CuPy: `make test-cuda` makes it"),
]


def ask(**request: object) -> object:
    """Let the Python that has CuPy answer."""
    command = [str(PYTHON), "-m", "tests.cuda.inspect_cupy"]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(request), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_kernel_that_solves_launch_compiles_for_every_architecture():
    kernels.SEEN.clear()
    x, y = paired_features()
    large = paired_features(rows=1600, d=400)  # from SINGLE_FROM entries on, in float32
    for linear, rows, activation in product(("dual", "pcg"), ("pointwise", "pairwise"), ("relu", "gated_relu")):
        config = config_for("cupy", linear=linear, rows=rows, activation=activation, max_sweeps=30)
        with imitated_cupy():
            fit_head(x, y, config, lasso_weight=2.0)
    with imitated_cupy():
        fit_head(*large, config_for("cupy", linear="pcg", max_sweeps=30), lasso_weight=2.0)
    assert {call.name for call in kernels.SEEN} == KERNELS
    assert {call.dtype for call in kernels.SEEN if call.name == "coala_move"} == {"float32", "float64"}
    calls = [call._asdict() for call in sorted(kernels.SEEN, key=str)]
    found = ask(what="compile", calls=calls, architectures=ARCHITECTURES)
    assert found["failures"] == []
    assert found["compiled"] == len(calls) * len(ARCHITECTURES) >= len(KERNELS) * len(ARCHITECTURES)


def test_a_kernel_that_does_not_compile_is_found():
    call = kernels.Call("broken", "T x", "T y", "y = no_such_function(x);", "float32", ((2, True), (2, True)))
    found = ask(what="compile", calls=[call._asdict()], architectures=["90"])
    assert found["compiled"] == 0
    assert "no_such_function" in found["failures"][0]


def test_the_imitation_offers_nothing_that_cupy_lacks():
    tables = functions.CREATION, functions.UPLOADS, functions.FUNCTIONS, functions.VIEWS, functions.READS
    offered = {name: parameters for table in (*tables, functions.ASKED) for name, parameters in table.items()}
    request = {"ufuncs": list(functions.UFUNCS), "methods": arrays.METHODS, "triangular": functions.TRIANGULAR}
    assert ask(what="compare", functions=offered, **request) == []
    request["ufuncs"] = ["frobnicate"]
    assert ask(what="compare", functions={"einsum": "out", "nanpolish": "a"}, **request) == [
        "einsum(out)",
        "nanpolish",
        "frobnicate",
    ]


def test_without_a_device_the_door_says_what_is_in_the_way():
    script = (
        "from coala_core.backend import resolve_backend\n"
        "print(resolve_backend('auto').__name__)\n"
        "try: resolve_backend('cupy')\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run([str(PYTHON), "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    library, _, message = done.stdout.partition("\n")
    if library == "cupy":
        pytest.skip("there is a device here")
    assert library == "numpy"
    assert message.startswith("`resolve_backend('cupy')` needs CuPy and a CUDA device, got no usable CUDA driver (")
    assert message.endswith("use 'numpy'.\n")
