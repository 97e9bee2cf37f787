"""Products by the array library and by PyTorch: the same numbers, and the threads that belong to each."""

import numpy as np
import pytest
import threadpoolctl
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.config import SolveConfig
from coala_core.cvxnn import fit_head, products
from coala_core.cvxnn.products import LARGE, Products
from tests.problems import random_features

ROUTES = pytest.mark.parametrize("operations", [0, LARGE])
PRECISIONS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def blas_threads():
    """Threads of NumPy's and SciPy's linear algebra."""
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@ROUTES
@PRECISIONS
def test_products_agree_with_sums_over_the_inner_index(xp, operations, dtype):
    rng = np.random.default_rng(0)
    x, u, t = rng.standard_normal((40, 7)), rng.standard_normal((7, 3)), rng.standard_normal((40, 3))
    forward, backward = np.einsum("nd,dc->nc", x, u), np.einsum("nd,nc->dc", x, t)
    there = [asarray(part, xp, dtype) for part in (x, u, t)]
    tolerance = 100 * np.finfo(dtype).eps
    ways = Products(operations, xp)
    room = xp.full((40, 3), np.nan, dtype=dtype)
    found = ways.times(there[0], there[1], out=room)
    assert_allclose(to_numpy(found), forward, atol=tolerance)
    assert_allclose(to_numpy(room), forward, atol=tolerance)
    assert_allclose(to_numpy(ways.times(there[0][5:9], there[1])), forward[5:9], atol=tolerance)
    assert_allclose(to_numpy(ways.back(there[0], there[2])), backward, atol=tolerance)
    assert found.dtype == ways.back(there[0], there[2]).dtype == dtype


@ROUTES
@PRECISIONS
def test_product_of_a_symmetric_matrix(xp, operations, dtype):
    # [[2, 1, 0], [1, 3, -1], [0, -1, 1]] (1, 2, 3) = (4, 4, 1).
    matrix = xp.asarray([[2, 1, 0], [1, 3, -1], [0, -1, 1]], dtype=dtype)
    found = Products(operations, xp).symmetric(matrix, xp.asarray([1, 2, 3], dtype=dtype))
    assert_allclose(to_numpy(found), [4, 4, 1])


def test_only_large_products_of_numpy_are_given_away(xp):
    assert not Products(LARGE - 1, xp).is_large
    assert Products(LARGE, xp).is_large == (xp is np)


def test_threads_go_to_whoever_works():
    before = blas_threads()
    large, small = Products(LARGE, np), Products(0, np)
    with large.sweeping():
        assert blas_threads() == [1] * len(before)
        with large.factorising():
            assert blas_threads() == [products.tall_matmul_threads()] * len(before)
        assert blas_threads() == [1] * len(before)
    assert blas_threads() == before
    with small.sweeping(), small.factorising():
        assert blas_threads() == before


@pytest.mark.parametrize("linear", ["auto", "primal", "dual", "pcg"])
@pytest.mark.parametrize(("rows", "activation"), [("pointwise", "relu"), ("pairwise", "gated_relu")])
def test_a_solve_is_the_same_by_either_route(monkeypatch, linear, rows, activation):
    x, y = random_features(120, 6, 3)
    x = np.vstack([x[y > 0], x[y < 0]])
    y = np.sort(y)[::-1]
    # Up to 1,000 sweeps where the last digits of a processor's products fall badly.
    config = SolveConfig(
        gates=6,
        probe_gates=0,
        tolerance=1e-6,
        max_cone_violation=1e-6,
        max_sweeps=5000,
        linear=linear,
        rows=rows,
        activation=activation,
    )
    calls, by_torch = [], products.tall_matmul
    monkeypatch.setattr(products, "tall_matmul", lambda *given, **more: calls.append(1) or by_torch(*given, **more))
    solutions = []
    for threshold in (LARGE, 0):
        assert not calls
        monkeypatch.setattr(products, "LARGE", threshold)
        solutions.append(fit_head(x, y, config, lasso_weight=2.0))
    assert len(calls) > 2 * solutions[1].sweeps
    assert all(solution.gap <= 1e-6 for solution in solutions)
    # The optimum lies between the bounds of both, and F u is within (2 gap objective)^1/2 of its own there.
    assert solutions[0].upper_bound == pytest.approx(solutions[1].upper_bound, rel=3e-6)
    assert_allclose(solutions[0].head.score(x), solutions[1].head.score(x), atol=2e-2)
