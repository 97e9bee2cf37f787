import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.cvxnn import anderson
from coala_core.cvxnn.anderson import Accelerator, shrink_columns, state_of


def test_shrink_columns_scales_long_and_drops_short(xp):
    # Norms 5 and 0.5; threshold 1 leaves 4/5 of the first column and nothing of the second.
    z = xp.asarray([[[3.0, 0.3], [4.0, 0.4]]] * 2)
    assert_allclose(shrink_columns(z, 1.0)[0].tolist(), [[2.4, 0.0], [3.2, 0.0]])
    assert_allclose(shrink_columns(z, 0.0).tolist(), z.tolist())


def test_shrink_columns_is_the_proximal_map():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 3, 4))
    best = shrink_columns(z, 0.8)

    def value(v):
        return 0.5 * ((v - z) ** 2).sum() + 0.8 * np.linalg.norm(v, axis=1).sum()

    assert all(value(best) <= value(best + 0.1 * rng.standard_normal(z.shape)) for _ in range(50))


def test_state_splits_its_point():
    rng = np.random.default_rng(0)
    point = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4))
    state = state_of(*point, 0.5)
    assert_allclose(state.v + state.lam, point[0])
    assert_allclose(state.s + state.nu, point[1])
    assert (state.s >= 0).all()
    assert (state.nu <= 0).all()
    assert (np.linalg.norm(state.lam, axis=1) <= 0.5 + 1e-12).all()


def linear_map(rates, limit):
    """A fixed-point map on the first block whose error shrinks by `rates`; the second block stays."""

    def advance(state):
        u_lam = limit + rates * (state.v + state.lam - limit)
        return state_of(u_lam, state.s + state.nu, 0.3)

    return advance


def run(advance, start, sweeps, *, accelerated):
    accelerator, state = Accelerator(1.0, 0.3), start
    for _ in range(sweeps):
        state = advance(accelerator.start_of_next(state) if accelerated else state)
    return state.v + state.lam


def test_slow_linear_convergence_is_shortened():
    rng = np.random.default_rng(1)
    limit, rates = rng.standard_normal((2, 3, 1)), np.array([0.2, 0.9, 0.99])[:, None]
    start = state_of(np.zeros((2, 3, 1)), np.ones((2, 4, 1)), 0.3)
    plain, accelerated = (
        np.linalg.norm(run(linear_map(rates, limit), start, 30, accelerated=flag) - limit) for flag in (False, True)
    )
    # Three rates are spanned by a window of ten steps, up to the regularisation; plain leaves 0.99^30 = 0.74.
    assert accelerated < 0.02 * plain


def test_a_bad_extrapolation_is_taken_back(monkeypatch):
    limit, rates = np.ones((2, 3, 1)), np.array([0.2, 0.9, 0.99])[:, None]
    far = (np.full((2, 3, 1), 1e3), np.zeros((2, 4, 1)))
    monkeypatch.setattr(Accelerator, "_combine", lambda self: far)
    accelerator, advance = Accelerator(1.0, 0.3), linear_map(rates, limit)
    state = state_of(np.zeros((2, 3, 1)), np.ones((2, 4, 1)), 0.3)
    for _ in range(anderson.WINDOW):
        state = advance(accelerator.start_of_next(state))
    extrapolated = accelerator.start_of_next(state)
    assert_allclose(extrapolated.v + extrapolated.lam, far[0])
    restored = accelerator.start_of_next(advance(extrapolated))
    assert restored.v + restored.lam == pytest.approx(state.v + state.lam)
