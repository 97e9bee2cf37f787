"""The imitation keeps the rules it is there for; tests/cuda compares what it offers with CuPy itself."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.imitated_cupy import LEDGER, imitated_cupy


@pytest.fixture
def cupy():
    with imitated_cupy() as module:
        yield module


def test_it_is_there_for_a_while():
    before = sys.modules.get("cupy")
    with imitated_cupy() as module:
        import cupy

        assert cupy is module
        assert type(cupy.zeros(2)).__module__ == "cupy"
    assert sys.modules.get("cupy") is before


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, host: a + host,
        lambda a, host: host + a,
        lambda a, host: np.maximum(host, a),
        lambda a, host: np.asarray(a),
        lambda a, host: a.__setitem__(slice(None), host),
        lambda a, host: a.__iadd__(host),
        lambda a, host: np.multiply(a, host),
    ],
)
def test_arrays_of_host_and_device_do_not_mix(cupy, mix):
    with pytest.raises(TypeError):
        mix(cupy.ones(3), np.ones(3))


def test_what_cupy_lacks_is_refused(cupy):
    a = cupy.ones((3, 3))
    with pytest.raises(TypeError, match="einsum"):
        cupy.einsum("ij->i", a, out=a[0])
    with pytest.raises(TypeError, match="linalg.norm"):
        cupy.linalg.norm(a, initial=0.0)
    with pytest.raises(TypeError, match="min has no parameter"):
        a.min(initial=0.0)
    with pytest.raises(AttributeError, match="no 'percentile'"):
        cupy.percentile(a, 50)
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cupy.asarray(["text"])


def test_numbers_stay_arrays_and_views_stay_views(cupy):
    a = cupy.asarray([1.0, 2.0, 3.0])
    first = a[0]
    assert first.shape == ()
    first += 4.0
    assert a.tolist() == [5.0, 2.0, 3.0]
    assert a.sum().shape == (a @ a).shape == ()
    assert (a * np.float32(2.0)).dtype == np.float64


def test_no_solution_is_no_error(cupy):
    assert np.isnan(cupy.linalg.cholesky(-cupy.eye(2)).tolist()).all()
    assert np.isnan(cupy.linalg.solve(cupy.zeros((2, 2)), cupy.ones(2)).tolist()).all()


def test_kernels_reads_and_uploads_are_counted(cupy):
    a = cupy.asarray([1.0, -2.0])
    LEDGER.clear()
    b = a[:1] + 1.0
    assert (LEDGER.kernels, LEDGER.reads) == (["add"], [])
    assert float(b[0]) == 2.0
    assert bool((a > 0.0).any())
    assert a[a > 0.0].tolist() == [1.0]
    assert LEDGER.reads == ["float", "bool", "mask", "tolist"]
    assert LEDGER.read_bytes == 8 + 1 + 8
    assert LEDGER.uploads == 0


def test_a_kernel_of_our_own_broadcasts_and_writes_in_place(cupy):
    kernel = cupy.ElementwiseKernel(
        "T x, T y, T k", "T total, T x_too", "total = k * x + y; x_too = x - total;", "both"
    )
    x, y = cupy.asarray([[1.0, 2.0], [3.0, 4.0]]), cupy.asarray([10.0, 20.0])
    total, rest = kernel(x, y, 2)
    assert total.tolist() == [[12.0, 24.0], [16.0, 28.0]]
    assert rest.tolist() == [[-11.0, -22.0], [-13.0, -24.0]]
    # As on a device the input is read again after the output in its place was written.
    kernel(x, y, 2.0, x, total)
    assert x.tolist() == [[12.0, 24.0], [16.0, 28.0]]
    assert_allclose(total.tolist(), 0.0)
    turned = cupy.zeros((2, 2)).T
    kernel(turned, y, 1.0, turned, cupy.zeros((2, 2)))
    assert turned.tolist() == [[10.0, 20.0], [10.0, 20.0]]


def test_a_kernel_refuses_mixed_types_and_wrong_shapes(cupy):
    kernel = cupy.ElementwiseKernel("T x, T y", "T z", "z = x + y;", "plus")
    x = cupy.ones(3)
    with pytest.raises(TypeError, match="mismatched"):
        kernel(x, cupy.ones(3, dtype=np.float32))
    with pytest.raises(TypeError, match="Unsupported type"):
        kernel(x, np.ones(3))
    with pytest.raises(ValueError, match="Out shape"):
        kernel(x, x, x[:1])
    with pytest.raises(TypeError, match="number of arguments"):
        kernel(x)
