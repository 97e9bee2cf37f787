"""What the imitation offers of CuPy: names and parameters, in CuPy's order; tests/cuda compares them with CuPy."""

CREATION = {
    "zeros": "shape dtype order",
    "ones": "shape dtype order",
    "empty": "shape dtype order",
    "full": "shape fill_value dtype order",
    "eye": "N M k dtype order",
}
"""Made on the device from numbers."""
UPLOADS = {
    "array": "obj dtype copy order subok ndmin",
    "asarray": "a dtype order",
}
"""May be given what is on the host."""
FUNCTIONS = {
    "zeros_like": "a dtype order subok shape",
    "empty_like": "prototype dtype order subok shape",
    "ascontiguousarray": "a dtype",
    "stack": "tup axis out",
    "hstack": "tup",
    "concatenate": "tup axis out",
    "repeat": "a repeats axis",
    "tile": "A reps",
    "where": "condition x y",
    "einsum": "*operands",
    "trace": "a offset axis1 axis2 dtype out",
    "copyto": "dst src casting where",
    "linalg.norm": "x ord axis keepdims",
    "linalg.eigh": "a UPLO",
    "linalg.svd": "a full_matrices compute_uv",
    "linalg.solve": "a b",
    "linalg.cholesky": "a",
}
"""Computed on the device."""
VIEWS = {"moveaxis": "a source destination"}
"""Give another view of the same memory."""
ASKED = {"shape": "a"}
"""Known to the host."""
READS = {"flatnonzero": "a", "nonzero": "a"}
"""The host has to wait for the size of what they return."""
UFUNCS = {
    "abs": 1,
    "isfinite": 1,
    "matmul": 2,
    "maximum": 2,
    "minimum": 2,
    "multiply": 2,
    "sqrt": 1,
    "subtract": 2,
}
"""Entry by entry, with their number of operands; `out`, `dtype` and `casting` may follow."""
TRIANGULAR = "a b trans lower unit_diagonal overwrite_b check_finite"
"""Parameters of cupyx.scipy.linalg.solve_triangular."""
