import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core import backend


def test_arrays_name_their_library(xp):
    assert backend.namespace_of(xp.ones(3)) is xp
    assert backend.namespace_of([1.0, 2.0]) is np


def test_arrays_travel_there_and_back(xp):
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    there = backend.asarray(host, xp, xp.float64)
    assert backend.namespace_of(there) is xp
    assert there.dtype == np.float64
    assert_allclose(backend.to_numpy(there), host)


def test_numpy_is_always_there():
    assert backend.resolve_backend("numpy") is np


def test_auto_without_cupy_is_numpy(monkeypatch):
    monkeypatch.setattr(backend, "_cupy_with_device", lambda: (None, "no CuPy"))
    assert backend.resolve_backend("auto") is np


def test_asking_for_absent_cupy_names_the_extra(monkeypatch):
    monkeypatch.setattr(backend, "_cupy_with_device", lambda: (None, "no CuPy"))
    with pytest.raises(RuntimeError, match="got no CuPy; install the `gpu` extra"):
        backend.resolve_backend("cupy")


def test_device_count_decides(monkeypatch):
    class Runtime:
        CUDARuntimeError = OSError
        count = 0

        def getDeviceCount(self):
            if self.count is None:
                raise OSError("no driver")
            return self.count

    class FakeCupy:
        class cuda:
            runtime = Runtime()

    monkeypatch.setattr(backend.importlib, "import_module", lambda name: FakeCupy)
    with pytest.raises(RuntimeError, match="got no CUDA device"):
        backend.resolve_backend("cupy")
    Runtime.count = None
    with pytest.raises(RuntimeError, match="no usable CUDA driver"):
        backend.resolve_backend("cupy")
    Runtime.count = 1
    assert backend.resolve_backend("auto") is FakeCupy


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="'auto', 'numpy' or 'cupy', got 'jax'"):
        backend.resolve_backend("jax")


@pytest.mark.parametrize("size", [1, 7, 1100])  # 1,100: more than two of the blocks in which a triangle is mirrored
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse_times_matrix_is_the_identity_and_it_is_symmetric(xp, dtype, size):
    root = np.random.default_rng(0).standard_normal((size, size)) / np.sqrt(size)
    matrix = root @ root.T + np.eye(size)  # eigenvalues in [1, 5]
    inverted = backend.inverse(xp.array(matrix, dtype=dtype))  # a copy: it may be overwritten
    assert inverted.dtype == dtype
    found = backend.to_numpy(inverted)
    assert_allclose(matrix @ found, np.eye(size), atol=1e3 * np.finfo(dtype).eps)
    if xp is np:
        assert (found == found.T).all()


def test_inverse_of_a_known_matrix(xp):
    # [[4, 2], [2, 3]] has determinant 8.
    inverted = backend.inverse(xp.asarray([[4.0, 2.0], [2.0, 3.0]]))
    assert_allclose(backend.to_numpy(inverted), [[3 / 8, -2 / 8], [-2 / 8, 4 / 8]])


def test_numpy_inverts_in_place():
    matrix = np.array([[4.0, 2.0], [2.0, 5.0]])
    assert np.shares_memory(matrix, backend.inverse(matrix))


@pytest.mark.gpu
def test_device_kernels_are_compiled_once():
    cupy = pytest.importorskip("cupy")
    code = "T x", "T y", "y = 2 * x;"
    kernel = backend.device_kernel("tests_twice", *code)
    assert backend.device_kernel("tests_twice", *code) is kernel
    assert kernel(cupy.asarray([1.0, 3.0])).tolist() == [2.0, 6.0]


def test_inverse_refuses_what_is_not_positive_definite(xp):
    with pytest.raises(np.linalg.LinAlgError, match="must be positive definite"):
        backend.inverse(xp.asarray([[1.0, 2.0], [2.0, 1.0]]))


def test_available_memory_is_what_the_kernel_says(monkeypatch):
    texts = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2048 kB\n", "/sys/fs/cgroup/memory.max": "1000000\n"}
    texts["/sys/fs/cgroup/memory.current"] = "400000\n"

    def read(path, encoding):
        if str(path) not in texts:
            raise FileNotFoundError(path)
        return texts[str(path)]

    monkeypatch.setattr(backend.Path, "read_text", read)
    assert backend.available_memory(np) == 600_000  # the group's limit less its use
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert backend.available_memory(np) == 2048 * 1024
    texts.clear()
    assert backend.available_memory(np) > 2**20  # pages that the kernel calls free
