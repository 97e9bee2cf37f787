"""Anderson acceleration on linear fixed-point maps, whose limits are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.cvxnn import anderson
from coala_core.cvxnn.anderson import EVERY, MEMORY, PATIENCE, REST, SAMPLE, WINDOW, Accelerator
from coala_core.cvxnn.outcome import State

TAU2 = 0.3


def allocate(shape, dtype):
    return np.full(shape, np.nan, dtype=dtype)


class Contraction:
    """z <- z + (A - I)(z - limit) on (v + lam, s + nu); u and F u are linear in what z was before."""

    def __init__(self, rates, seed=0, dtype=np.float64, rows=5):
        rng = np.random.default_rng(seed)
        self.shapes = (2, 3, 1), (2, 3, 1), (rows, 2), (4,)  # u, v + lam, s + nu, F u
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        basis = np.linalg.qr(rng.standard_normal((sizes[1] + sizes[2],) * 2))[0]
        self.matrix = basis @ np.diag(np.resize(rates, len(basis))) @ basis.T
        self.limit = rng.standard_normal(len(basis))
        self.follow = rng.standard_normal((sizes[0], len(basis))), rng.standard_normal((sizes[3], len(basis)))
        self.offsets = rng.standard_normal(sizes[0]), rng.standard_normal(sizes[3])
        self.split, self.dtype = sizes[1], dtype

    def start(self):
        dtypes = np.float64, np.float64, self.dtype, self.dtype
        return State(*(np.zeros(shape, dtype) for shape, dtype in zip(self.shapes, dtypes, strict=True)))

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


def flat(state):
    return np.concatenate([part.ravel() for part in state]).astype(float)


def copied(state):
    return State(*(part.copy() for part in state))


def run(contraction, sweeps):
    """Accelerated sweeps; the accelerator, the state, the states after every sweep and where each began."""
    state = contraction.start()
    accelerator, ends, starts, moves = Accelerator(state, TAU2, allocate), [], [], []
    for _ in range(sweeps):
        moves.append(accelerator.settle(state))
        starts.append(copied(state))
        contraction.advance(state)
        accelerator.watch(state)
        ends.append(copied(state))
    return accelerator, state, ends, starts, moves


def plain_error(contraction, sweeps):
    state = contraction.start()
    for _ in range(sweeps):
        contraction.advance(state)
    return contraction.error(state)


def step_length(contraction, end, start):
    """In the metric of the two penalties."""
    step = (stacked(end) - stacked(start)) ** 2
    return np.sqrt(step[: contraction.split].sum() + TAU2 * step[contraction.split :].sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
# Four changes span two rates up to the ridge; three they do by larger weights, which it holds back. Measured: 0.0018 of
# what plain sweeps leave, and 0.32.
@pytest.mark.parametrize(("rates", "gain"), [([0.2, 0.9], 5e-3), ([0.3, 0.8, 0.9], 0.5)])
def test_an_extrapolation_lands_near_the_limit(dtype, rates, gain):
    contraction = Contraction(rates, dtype=dtype)
    _, _, _, starts, moves = run(contraction, EVERY + 1)
    assert moves == [False] * EVERY + [True]
    assert contraction.error(starts[-1]) < gain * plain_error(contraction, EVERY)


def test_extrapolations_shorten_slow_convergence():
    # Plain sweeps leave 0.99^31 = 0.73 of the slowest part.
    contraction = Contraction([0.2, 0.9, 0.99])
    _, state, _, _, moves = run(contraction, 31)
    assert [k for k, moved in enumerate(moves) if moved] == list(range(EVERY, 31, EVERY))
    assert contraction.error(state) < 1e-3 * plain_error(contraction, 31)


def test_the_memory_gives_the_shortest_step_by_brute_force():
    # Rates enough that nothing is solved within the run; past MEMORY the oldest changes are dropped.
    contraction = Contraction(np.linspace(-0.5, 0.98, 16))
    _, _, ends, starts, moves = run(contraction, 4 * EVERY + MEMORY + 2)
    scale = np.sqrt(np.concatenate([np.ones(contraction.split), np.full(10, TAU2)]))
    steps = np.stack([scale * (stacked(end) - stacked(start)) for end, start in zip(ends, starts, strict=True)])
    moved = [k for k, move in enumerate(moves) if move]
    assert moved[0] == EVERY
    assert moved[-1] > MEMORY + EVERY
    for k in moved:
        changes = np.diff(steps[:k], axis=0)[-MEMORY:]
        ridge = anderson.REGULARISATION * (changes**2).sum()
        # Least squares with a ridge, as rows of their own.
        rows = np.vstack([changes.T, np.sqrt(ridge) * np.eye(len(changes))])
        gamma = np.linalg.lstsq(rows, np.append(steps[k - 1], np.zeros(len(changes))), rcond=None)[0]
        # u and F u follow with the same gamma.
        moves_of_ends = np.diff(np.stack([flat(end) for end in ends[:k]]), axis=0)[-MEMORY:]
        expected = flat(ends[k - 1]) - gamma @ moves_of_ends
        assert_allclose(flat(starts[k]), expected, atol=1e-6 * np.abs(expected).max())


def test_a_sample_of_the_rows_serves_as_well():
    contraction = Contraction([0.2, 0.5, 0.9, 0.99], rows=SAMPLE + 100)
    _, state, _, starts, _ = run(contraction, 16)
    assert contraction.error(state) < 0.05 * plain_error(contraction, 16)  # measured: 0.028
    again = run(contraction, 16)[3]
    assert flat(starts[-1]).tobytes() == flat(again[-1]).tobytes()


def test_where_the_sweep_began_is_kept():
    contraction = Contraction([0.5, 0.9])
    accelerator, _, _, starts, _ = run(contraction, EVERY + 1)
    for part, start in zip(accelerator.before, starts[-1], strict=True):
        assert_allclose(part, start)


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_the_plain_iterate_is_restored_after_a_step_too_long(share):
    contraction = Contraction([0.2, 0.9, 0.99])
    accelerator, state, ends, starts, _ = run(contraction, EVERY)
    last = step_length(contraction, ends[-1], starts[-1])
    assert accelerator.settle(state)
    extrapolated = stacked(state)
    assert np.abs(extrapolated - stacked(ends[-1])).max() > 0.01
    state.v_lam[0, 0, 0] += share * PATIENCE * last  # a sweep of that length
    state.u[...], state.fit[...] = 5.0, -5.0
    accelerator.watch(state)
    restored = share > 1
    assert accelerator.settle(state) == restored
    if restored:
        for part, plain in zip(state, ends[-1], strict=True):
            assert part.tobytes() == plain.tobytes()
    else:
        assert_allclose(np.abs(stacked(state) - extrapolated).max(), share * PATIENCE * last)
    # What was restored begins anew, what was accepted has its first sweep of the next EVERY.
    for _ in range(EVERY - 1 if restored else EVERY - 2):
        assert not accelerator.is_about_to_extrapolate
        accelerator.watch(state)
    assert accelerator.is_about_to_extrapolate


def test_steps_that_are_not_numbers_are_taken_back():
    contraction = Contraction([0.2, 0.9, 0.99])
    accelerator, state, ends, *_ = run(contraction, EVERY)
    accelerator.settle(state)
    state.v_lam[...] = np.nan
    accelerator.watch(state)
    assert accelerator.settle(state)
    assert state.v_lam.tobytes() == ends[-1].v_lam.tobytes()
    # Nothing of them is left in the memory.
    for _ in range(EVERY):
        contraction.advance(state)
        accelerator.watch(state)
        moved = accelerator.settle(state)
    assert moved
    assert np.isfinite(flat(state)).all()


def test_a_restart_forgets_the_memory():
    contraction = Contraction([0.2, 0.9, 0.99])
    accelerator, state, *_ = run(contraction, EVERY)
    accelerator.restart()
    assert not accelerator.settle(state)
    for _ in range(EVERY - 1):
        contraction.advance(state)
        accelerator.watch(state)
        assert not accelerator.settle(state)
    contraction.advance(state)
    accelerator.watch(state)
    assert accelerator.settle(state)


def test_sweeps_that_change_nothing_stay_where_they_are():
    state = State(*(np.ones(shape) for shape in Contraction([0.5]).shapes))
    accelerator = Accelerator(state, TAU2, allocate)
    for _ in range(2 * MEMORY + 3):
        accelerator.settle(state)
        accelerator.watch(state)
    for part in state:
        assert_allclose(part, 1.0)


def test_both_libraries_extrapolate_alike(xp):
    contraction = Contraction([0.2, 0.9, 0.99], dtype=np.float32)
    _, _, ends, starts, _ = run(contraction, EVERY + 1)
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


class Wandering(Contraction):
    """Steps in directions of their own, each longer than the last by a share, whatever the state is."""

    def __init__(self, growth):
        super().__init__([0.5])
        self.growth, self.length, self.rng = growth, 1.0, np.random.default_rng(0)

    def advance(self, state):
        step = [self.rng.standard_normal(part.shape) for part in (state.v_lam, state.s_nu)]
        norm = np.sqrt((step[0] ** 2).sum() + TAU2 * (step[1] ** 2).sum())
        self.length *= self.growth
        state.v_lam[...] += self.length / norm * step[0]
        state.s_nu[...] += self.length / norm * step[1]


@pytest.mark.parametrize("growth", [1.001, 0.999])
def test_extrapolations_rest_while_steps_do_not_become_shorter(growth):
    _, _, _, _, moves = run(Wandering(growth), 3 * REST + EVERY + 1)
    moved = [k for k, move in enumerate(moves) if move]
    # The second window of extrapolations ends after 2 * WINDOW * EVERY sweeps, and is the first to be compared.
    end = 2 * WINDOW * EVERY
    resting = range(end + 1, end + REST + 1) if growth > 1.0 else range(0)
    assert moved == [k for k in range(EVERY, len(moves), EVERY) if k not in resting]
