"""The updates of the small side against their formulas, column by column."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.cvxnn.updates import (
    preconditioned_step,
    relax,
    shrink_columns,
    small_residual,
    split_residual,
    take_step,
)

RNG = np.random.default_rng(0)
U, V, V_LAM, PULL = RNG.standard_normal((4, 2, 5, 3))
METRIC = 1.0 + RNG.random((5, 1))


def test_shrink_columns_scales_long_and_drops_short(xp):
    # Norms 5 and 0.5; threshold 1 leaves 4/5 of the first column and nothing of the second.
    z = xp.asarray([[[3.0, 0.3], [4.0, 0.4]]] * 2)
    assert_allclose(shrink_columns(z, 1.0)[0].tolist(), [[2.4, 0.0], [3.2, 0.0]])
    assert_allclose(shrink_columns(z, 0.0).tolist(), z.tolist())


def test_shrink_columns_is_the_proximal_map(xp):
    z = RNG.standard_normal((2, 3, 4))
    best = to_numpy(shrink_columns(asarray(z, xp), 0.8))

    def value(v):
        return 0.5 * ((v - z) ** 2).sum() + 0.8 * np.linalg.norm(v, axis=1).sum()

    assert all(value(best) <= value(best + 0.1 * RNG.standard_normal(z.shape)) for _ in range(50))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("threshold", [0.5, 1e6])
def test_what_is_not_finite_is_not_shrunk_away(xp, bad, threshold):
    # A solve has to notice it: a column dropped for it would look like a solution.
    z = V.copy()
    z[1, 2, 0] = bad
    found = to_numpy(shrink_columns(asarray(z, xp), threshold))
    assert not np.isfinite(found[1, :, 0]).all()
    assert np.isfinite(found[0]).all()


def test_small_residual_is_the_gradient_over_rho(xp):
    # H u - (v - lambda) - pull, with lambda = v_lam - v.
    expected = np.empty_like(U)
    for half, axis, gate in np.ndindex(U.shape):
        where = half, axis, gate
        lam = V_LAM[where] - V[where]
        expected[where] = METRIC[axis, 0] * U[where] - (V[where] - lam) - PULL[where]
    found = small_residual(*(asarray(part, xp) for part in (METRIC, U, V, V_LAM, PULL)))
    assert_allclose(to_numpy(found), expected, atol=1e-14)


def test_relax_moves_in_place(xp):
    there = xp.array(asarray(V_LAM, xp))
    assert relax(there, asarray(U, xp), asarray(V, xp), 1.6) is None
    assert_allclose(to_numpy(there), 1.6 * U + (1 - 1.6) * V + (V_LAM - V), atol=1e-14)


def test_steps_along_sum_and_difference_undo_each_other(xp):
    # With H = I and the b-system's inverse the identity, the step is the residual itself.
    residual, ones = asarray(PULL, xp), xp.ones((5, 1))
    u = xp.array(asarray(U, xp))
    take_step(u, *split_residual(residual, ones))
    assert_allclose(to_numpy(u), U - PULL, atol=1e-14)
    # One half alone counts equally in both: r_a = r_b = r / sqrt2, and H = 2 halves r_a.
    lone = xp.asarray([[[4.0]], [[0.0]]])
    sum_step, difference = split_residual(lone, xp.asarray([[2.0]]))
    assert sum_step.item() == pytest.approx(np.sqrt(2.0))
    assert difference.item() == pytest.approx(2.0 * np.sqrt(2.0))
    u = xp.asarray([[[1.0]], [[1.0]]])
    take_step(u, sum_step, 0.0 * difference)
    assert_allclose(u.tolist(), [[[0.0]], [[0.0]]], atol=1e-15)


@pytest.mark.parametrize(("quotient", "share"), [(1.0, 0.0), (4.0, 0.0), (0.36, 0.25), (0.0, 0.5), (-1.0, 0.5)])
def test_preconditioned_step_by_hand(xp, quotient, share):
    # mu = 0.36: (1 - 0.6) / (1 + 0.6) = 1/4; the most here is 1/2. M = 2 + 3 * 0.5 * 4 = 8.
    rotated, metric, coupling, last = (xp.asarray([[value]]) for value in (16.0, 2.0, 4.0, 10.0))
    scale, mu = xp.asarray(0.5), xp.asarray(quotient)
    found = preconditioned_step(rotated, metric, coupling, last, scale, mu, 3.0, 0.5)
    assert found.item() == pytest.approx(2.0 + 10.0 * share)
