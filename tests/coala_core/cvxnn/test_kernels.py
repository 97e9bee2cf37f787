"""The entrywise part of a sweep against plain loops over the entries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.cvxnn.kernels import move, take_back

SIZES = st.integers(1, 6), st.integers(1, 6)
SEEDS = st.integers(0, 2**32 - 1)


def entries(rows, columns, seed):
    """A product, signs and z; some entries of z are exactly zero."""
    rng = np.random.default_rng(seed)
    product, z = 10.0 * rng.standard_normal((2, rows, columns))
    z[rng.random((rows, columns)) < 0.2] = 0.0
    return product, np.where(rng.random((rows, columns)) < 0.5, -1.0, 1.0), z


def moved_by_a_loop(product, signs, z, relaxation):
    """E alpha X u, and s + nu after the relaxed cone update: E alpha X u + (1 - alpha) s + nu, entry by entry."""
    signed, ahead = np.empty_like(product), np.empty_like(product)
    for i, j in np.ndindex(product.shape):
        signed[i, j] = signs[i, j] * product[i, j]
        s, nu = (z[i, j], 0.0) if z[i, j] > 0 else (0.0, z[i, j])
        ahead[i, j] = signed[i, j] + (1 - relaxation) * s + nu
    return signed, ahead


def taken_by_a_loop(z, signs, residual, shares, scale):
    """E tau^2 (s - nu) + 2 D c r / rho, entry by entry, where D is 1 for the sign +1 and 0 for the sign -1."""
    taken = np.empty_like(signs)
    for i, j in np.ndindex(signs.shape):
        s, nu = (0.0, 0.0) if z is None else (max(z[i, j], 0.0), min(z[i, j], 0.0))
        active = 1.0 if signs[i, j] > 0 else 0.0
        taken[i, j] = signs[i, j] * scale * (s - nu) + 2 * active * shares[j] * residual[i]
    return taken


def run_move(xp, dtype, product, signs, z, relaxation):
    """`move` on copies in a precision."""
    arrays = [None if part is None else xp.array(asarray(part, xp, dtype)) for part in (product, signs, z)]
    assert move(*arrays, relaxation, xp.full(product.shape, np.nan, dtype=dtype)) is None
    assert all(part is None or part.dtype == dtype for part in arrays)
    return [None if part is None else to_numpy(part) for part in (arrays[0], arrays[2])]


def run_take_back(xp, dtype, z, signs, residual, shares, scale):
    """`take_back` in a precision, into buffers that hold rubbish."""
    arrays = [None if part is None else asarray(part, xp, dtype) for part in (z, signs, residual, shares)]
    out, work = xp.full((2, *signs.shape), np.nan, dtype=dtype)
    found = take_back(*arrays, scale, out, work)
    assert found is out or np.shares_memory(found, out)
    if z is not None:
        assert_allclose(to_numpy(arrays[0]), z.astype(dtype))  # s + nu is not touched
    return to_numpy(found)


@settings(max_examples=60, deadline=None)
@given(*SIZES, SEEDS, st.floats(1.0, 1.99))
def test_move_agrees_with_a_loop(rows, columns, seed, relaxation):
    product, signs, z = entries(rows, columns, seed)
    signed, ahead = moved_by_a_loop(product, signs, z, relaxation)
    found = run_move(np, np.float64, product, signs, z, relaxation)
    assert_allclose(found[0], signed, rtol=0)
    assert_allclose(found[1], ahead, rtol=1e-12, atol=1e-12)
    assert_allclose(run_move(np, np.float64, product, signs, None, relaxation)[0], signed, rtol=0)


@settings(max_examples=60, deadline=None)
@given(*SIZES, SEEDS, st.floats(0.0, 10.0), st.floats(1e-3, 1e3))
def test_take_back_agrees_with_a_loop(rows, columns, seed, scale, penalty):
    _, signs, z = entries(rows, columns, seed)
    rng = np.random.default_rng(seed)
    residual, shares = rng.standard_normal(rows), rng.choice([-0.5, 0.5], columns) / penalty
    for cones in (z, None):
        expected = taken_by_a_loop(cones, signs, residual, shares, scale)
        found = run_take_back(np, np.float64, cones, signs, residual, shares, scale)
        # Rounding is relative to what is added up: in an inactive row the residual comes in and goes out again.
        size = np.abs(np.outer(residual, shares)).max() + scale * np.abs(z).max()
        assert_allclose(found, expected, rtol=1e-12, atol=1e-14 * size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cones", [True, False])
def test_both_libraries_in_both_precisions(xp, dtype, cones):
    product, signs, z = entries(40, 7, 3)
    z = z if cones else None
    residual, shares = np.linspace(-1, 1, 40), np.repeat([0.5, -0.5], [4, 3]) / 0.3
    tolerance = 40 * np.finfo(dtype).eps
    found = run_move(xp, dtype, product, signs, z, 1.6)
    assert_allclose(found[0], signs * product, rtol=tolerance)
    if cones:
        assert_allclose(found[1], moved_by_a_loop(product, signs, z, 1.6)[1], atol=40 * tolerance)
    back = run_take_back(xp, dtype, z, signs, residual, shares, 0.7)
    assert_allclose(back, taken_by_a_loop(z, signs, residual, shares, 0.7), atol=40 * tolerance)


def test_one_entry_by_hand():
    # X u = 3 with sign -1, so E X u = -3; s + nu = 2 means s = 2: 2 + 1.5 (-3 - 2) = -5.5.
    signed, ahead = run_move(np, np.float64, np.array([[1.5 * 3.0]]), np.array([[-1.0]]), np.array([[2.0]]), 1.5)
    assert (signed.item(), ahead.item()) == (-4.5, -5.5)
    # An inactive row takes back nothing of the residual: E tau^2 |z| = -0.5 * 5.5. An active one 2 * 0.25 * 4 more.
    more = np.array([[-5.5]]), np.array([4.0]), np.array([0.25])
    assert run_take_back(np, np.float64, more[0], np.array([[-1.0]]), *more[1:], 0.5).item() == -2.75
    assert run_take_back(np, np.float64, more[0], np.array([[1.0]]), *more[1:], 0.5).item() == 2.75 + 2.0
