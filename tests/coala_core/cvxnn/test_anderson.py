"""Anderson acceleration on linear fixed-point maps, whose limits are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from coala_core.backend import asarray, to_numpy
from coala_core.cvxnn import anderson
from coala_core.cvxnn.anderson import PATIENCE, WINDOW, Accelerator, shrink_columns
from coala_core.cvxnn.outcome import State

TAU2 = 0.3
SHAPES = (2, 3, 1), (2, 3, 1), (5, 2), (4,)  # u, v + lam, s + nu, F u


def allocate(shape, dtype):
    return np.full(shape, np.nan, dtype=dtype)


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


class Contraction:
    """z <- z + (A - I)(z - limit) on (v + lam, s + nu); u and F u are linear in what z was before."""

    def __init__(self, rates, seed=0, dtype=np.float64):
        rng = np.random.default_rng(seed)
        sizes = [int(np.prod(shape)) for shape in SHAPES]
        basis = np.linalg.qr(rng.standard_normal((sizes[1] + sizes[2],) * 2))[0]
        self.matrix = basis @ np.diag(np.resize(rates, len(basis))) @ basis.T
        self.limit = rng.standard_normal(len(basis))
        self.follow = rng.standard_normal((sizes[0], len(basis))), rng.standard_normal((sizes[3], len(basis)))
        self.offsets = rng.standard_normal(sizes[0]), rng.standard_normal(sizes[3])
        self.split, self.dtype = sizes[1], dtype

    def start(self):
        dtypes = np.float64, np.float64, self.dtype, self.dtype
        return State(*(np.zeros(shape, dtype) for shape, dtype in zip(SHAPES, dtypes, strict=True)))

    def advance(self, state):
        """One sweep, in place."""
        z = stacked(state)
        for part, matrix, offset in zip((state.u, state.fit), self.follow, self.offsets, strict=True):
            part[...] = (matrix @ z + offset).reshape(part.shape)
        z = self.limit + self.matrix @ (z - self.limit)
        state.v_lam[...] = z[: self.split].reshape(state.v_lam.shape)
        state.s_nu[...] = z[self.split :].reshape(state.s_nu.shape)

    def error(self, state):
        return np.linalg.norm(stacked(state) - self.limit)


def stacked(state):
    return np.concatenate([state.v_lam.ravel(), state.s_nu.ravel()]).astype(float)


def run(contraction, sweeps):
    """Accelerated sweeps; the accelerator, the state, the states after every sweep and where each began."""
    state = contraction.start()
    accelerator, ends, starts, moves = Accelerator(state, TAU2, allocate), [], [], []
    for _ in range(sweeps):
        moves.append(accelerator.settle(state))
        starts.append(State(*(part.copy() for part in state)))
        contraction.advance(state)
        accelerator.watch(state)
        ends.append(State(*(part.copy() for part in state)))
    return accelerator, state, ends, starts, moves


def plain_error(contraction, sweeps):
    state = contraction.start()
    for _ in range(sweeps):
        contraction.advance(state)
    return contraction.error(state)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Two rates are spanned by a window of ten steps up to the regularisation; three are, by a polynomial that is zero at
# all of them with larger weights, which the regularisation holds back. Measured: 4e-4 and 0.12.
@pytest.mark.parametrize(("rates", "gain"), [([0.2, 0.9], 1e-3), ([0.3, 0.8, 0.9], 0.2)])
def test_an_extrapolation_lands_near_the_limit(dtype, rates, gain):
    contraction = Contraction(rates, dtype=dtype)
    _, _, _, starts, moves = run(contraction, WINDOW + 1)
    assert moves == [False] * WINDOW + [True]
    assert contraction.error(starts[-1]) < gain * plain_error(contraction, WINDOW)


def test_three_windows_shorten_slow_convergence():
    # Plain sweeps leave 0.99^31 = 0.73 of the slowest part; measured: 0.0066 of what they leave.
    contraction = Contraction([0.2, 0.9, 0.99])
    _, state, _, _, moves = run(contraction, 3 * WINDOW + 1)
    assert [k for k, moved in enumerate(moves) if moved] == [WINDOW, 2 * WINDOW, 3 * WINDOW]
    assert contraction.error(state) < 0.02 * plain_error(contraction, 3 * WINDOW + 1)


def test_weights_make_the_combined_step_shortest():
    contraction = Contraction(np.linspace(-0.5, 0.95, 16))
    _, _, ends, starts, _ = run(contraction, WINDOW + 1)
    metric = np.concatenate([np.ones(contraction.split), np.full(10, TAU2)])
    steps = np.stack([stacked(end) - stacked(start) for end, start in zip(ends[:-1], starts[:-1], strict=True)])
    gram = steps @ np.diag(metric) @ steps.T
    gram += anderson.REGULARISATION * np.trace(gram) * np.eye(WINDOW)

    # By brute force over weights that sum to one, the last being what is left.
    def length(free):
        weights = np.append(free, 1.0 - free.sum())
        return weights @ gram @ weights / np.trace(gram)

    free = minimize(length, np.full(WINDOW - 1, 0.1), method="BFGS", options={"gtol": 1e-13, "maxiter": 5000}).x
    weights = np.append(free, 1.0 - free.sum())
    expected = sum(weight * stacked(end) for weight, end in zip(weights, ends[:-1], strict=True))
    assert_allclose(stacked(starts[-1]), expected, atol=1e-3 * np.abs(expected).max())
    assert length(free) < 0.6 * length(np.zeros(WINDOW - 1))  # than of the last step alone


def test_u_and_the_fit_follow_with_the_same_weights():
    contraction = Contraction([0.2, 0.5, 0.9, 0.99])
    _, _, ends, starts, _ = run(contraction, WINDOW + 1)
    parts = [np.stack([end[k].ravel() for end in ends[:-1]]) for k in range(4)]
    # Weights from v + lam and s + nu alone, u and F u by the same.
    z = np.hstack(parts[1:3])
    rows = np.vstack([z.T, np.ones(WINDOW)])
    weights = np.linalg.lstsq(rows, np.append(stacked(starts[-1]), 1.0), rcond=1e-12)[0]
    assert_allclose(z.T @ weights, stacked(starts[-1]), atol=1e-8)
    assert weights.sum() == pytest.approx(1.0)
    # Of one affine map, they are at the combination what they are at each end.
    assert_allclose(starts[-1].u.ravel(), parts[0].T @ weights, atol=1e-6)
    assert_allclose(starts[-1].fit, parts[3].T @ weights, atol=1e-6)


def test_step_length_is_measured_with_the_cone_scale():
    contraction = Contraction([0.5, 0.9])
    accelerator, _, ends, starts, _ = run(contraction, 4)
    last = State(*(end - start for end, start in zip(ends[-1], starts[-1], strict=True)))
    expected = np.sqrt((last.v_lam**2).sum() + TAU2 * (last.s_nu**2).sum())
    assert accelerator.step_length == pytest.approx(expected)
    for part, start in zip(accelerator.before, starts[-1], strict=True):
        assert_allclose(part, start)


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_the_plain_iterate_is_restored_after_a_step_too_long(share):
    contraction = Contraction([0.2, 0.9, 0.99])
    accelerator, state, ends, *_ = run(contraction, WINDOW)
    last = accelerator.step_length
    assert accelerator.settle(state)
    extrapolated = stacked(state)
    assert np.abs(extrapolated - stacked(ends[-1])).max() > 0.01
    state.v_lam[0, 0, 0] += share * PATIENCE * last  # a sweep of that length
    state.u[...], state.fit[...] = 5.0, -5.0
    accelerator.watch(state)
    assert accelerator.step_length == pytest.approx(share * PATIENCE * last)
    restored = share > 1
    assert accelerator.settle(state) == restored
    if restored:
        for part, plain in zip(state, ends[-1], strict=True):
            assert part.tobytes() == plain.tobytes()
    else:
        assert_allclose(np.abs(stacked(state) - extrapolated).max(), share * PATIENCE * last)
    # A restored window begins anew, an accepted one has its first step.
    for _ in range(WINDOW - 1 if restored else WINDOW - 2):
        assert not accelerator.ends_a_window
        accelerator.watch(state)
    assert accelerator.ends_a_window


def test_steps_that_are_not_numbers_are_taken_back():
    contraction = Contraction([0.2, 0.9, 0.99])
    accelerator, state, ends, *_ = run(contraction, WINDOW)
    accelerator.settle(state)
    state.v_lam[...] = np.nan
    accelerator.watch(state)
    assert accelerator.settle(state)
    assert state.v_lam.tobytes() == ends[-1].v_lam.tobytes()


def test_a_restart_forgets_the_window():
    contraction = Contraction([0.2, 0.9, 0.99])
    accelerator, state, *_ = run(contraction, WINDOW)
    accelerator.restart()
    assert not accelerator.settle(state)
    for _ in range(WINDOW - 1):
        contraction.advance(state)
        accelerator.watch(state)
        assert not accelerator.settle(state)
    contraction.advance(state)
    accelerator.watch(state)
    assert accelerator.settle(state)


def test_a_window_of_no_steps_stays_where_it_is():
    state = State(*(np.ones(shape) for shape in SHAPES))
    accelerator = Accelerator(state, TAU2, allocate)
    for _ in range(2 * WINDOW + 3):
        accelerator.settle(state)
        accelerator.watch(state)
    for part in state:
        assert_allclose(part, 1.0)


def test_both_libraries_extrapolate_alike(xp):
    contraction = Contraction([0.2, 0.9, 0.99], dtype=np.float32)
    _, _, ends, starts, _ = run(contraction, WINDOW + 1)
    state = State(*(asarray(part, xp) for part in contraction.start()))
    accelerator = Accelerator(state, TAU2, lambda shape, dtype: xp.empty(shape, dtype=dtype))
    for end in ends[:-1]:
        assert not accelerator.settle(state)
        for part, there in zip(state, end, strict=True):
            part[...] = asarray(there, xp)
        accelerator.watch(state)
    assert accelerator.settle(state)
    for part, expected in zip(state, starts[-1], strict=True):
        assert_allclose(to_numpy(part), expected, rtol=1e-3, atol=1e-4)
