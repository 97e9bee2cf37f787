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


def test_cholesky_solves_a_known_system(xp):
    # [[4, 2], [2, 3]] x = [8, 7] has x = [5/4, 3/2]: 4 * 5/4 + 2 * 3/2 = 8, 2 * 5/4 + 3 * 3/2 = 7.
    factor = backend.cholesky(xp.asarray([[4.0, 2.0], [2.0, 3.0]]))
    assert_allclose(backend.to_numpy(backend.cholesky_solve(factor, xp.asarray([8.0, 7.0]))), [1.25, 1.5])


def test_cholesky_solves_several_right_sides(xp):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((7, 7))
    matrix, right = root @ root.T + np.eye(7), rng.standard_normal((7, 3))
    factor = backend.cholesky(xp.asarray(matrix.copy()))
    solved = backend.to_numpy(backend.cholesky_solve(factor, xp.asarray(right)))
    assert_allclose(matrix @ solved, right, atol=1e-12)


def test_numpy_cholesky_factorises_in_place():
    matrix = np.array([[4.0, 2.0], [2.0, 5.0]])
    factor = backend.cholesky(matrix)
    assert np.shares_memory(matrix, factor)
    assert_allclose(np.tril(factor), [[2.0, 0.0], [1.0, 2.0]])


def test_numpy_is_always_there():
    assert backend.resolve_backend("numpy") is np
    backend.free_memory(np)


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse_times_matrix_is_the_identity(xp, dtype):
    root = np.random.default_rng(0).standard_normal((7, 7))
    matrix = root @ root.T + np.eye(7)
    inverted = backend.inverse(xp.array(matrix, dtype=dtype))  # a copy: it may be overwritten
    assert inverted.dtype == dtype
    vector = xp.asarray(np.arange(7.0))
    found = backend.symmetric_product(inverted, vector)
    assert found.dtype == np.float64
    assert_allclose(matrix @ backend.to_numpy(found), np.arange(7.0), atol=1e4 * np.finfo(dtype).eps)


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
