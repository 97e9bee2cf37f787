import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from coala_core.backend import asarray, namespace_of, to_numpy
from coala_core.config import SolveConfig
from coala_core.cvxnn import pcg as pcg_module
from coala_core.cvxnn import problem as problem_module
from coala_core.cvxnn.admm import cone_scale_squared, solve
from coala_core.cvxnn.direct import DualDirect
from coala_core.cvxnn.outcome import Status
from coala_core.cvxnn.pcg import KroneckerPreconditioner, Pcg, gate_overlaps
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.system import cone_metric
from tests.dense import dense_half, dense_system, optimum, zero_weight
from tests.problems import random_problem


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000), st.booleans())
def test_overlaps_are_traces_of_the_blocks(pairs, d, gates, seed, paired):
    x, _, h = random_problem(2 * pairs, d, gates, seed)
    problem = convex_problem(x, np.ones(pairs if paired else 2 * pairs), h, paired=paired)
    d, half = problem.shape[1], dense_half(problem)
    blocks = (half.T @ half).reshape(gates, d, gates, d)
    expected = np.trace(blocks, axis1=1, axis2=3) / problem.spectrum.sum()
    assert_allclose(gate_overlaps(problem), expected, atol=1e-9)


@pytest.mark.parametrize("paired", [False, True])
def test_overlaps_do_not_depend_on_the_blocks(monkeypatch, paired):
    x, y, h = random_problem(46, 4, 3, 0)
    problem = convex_problem(x, y[:23] if paired else y, h, paired=paired)
    whole = gate_overlaps(problem)
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 8 * 4 * 5)  # five rows, and a short last block
    assert_allclose(gate_overlaps(problem), whole, rtol=1e-12)


def kronecker_form(problem, metric, rho, scale):
    """I (x) H + (2/rho) c Q (x) Lambda, (P d, P d)."""
    diagonal = np.kron(np.eye(problem.shape[2]), np.diag(metric[:, 0]))
    return diagonal + 2.0 / rho * scale * np.kron(gate_overlaps(problem), np.diag(problem.spectrum))


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_preconditioner_is_the_inverse_of_the_kronecker_form(xp, scale):
    problem = convex_problem(*random_problem(30, 4, 3, 0))
    metric = cone_metric(problem, 0.3)
    on_device = convex_problem(*(xp.asarray(part) for part in random_problem(30, 4, 3, 0)))
    preconditioner = KroneckerPreconditioner(on_device, asarray(metric, xp))
    assert (preconditioner.scale.shape, float(preconditioner.scale)) == ((), 1.0)
    preconditioner.scale = preconditioner.scale * scale
    residual = on_device.axes.T @ xp.asarray(
        np.random.default_rng(0).standard_normal((4, 3))
    )  # axes may differ in sign
    for rho in (0.1, 5.0):
        preconditioner.refactor(rho)
        host = to_numpy(on_device.axes.T @ asarray(problem.axes, xp))  # from the host's axes to the device's
        dense = kronecker_form(problem, metric, rho, scale)
        expected = np.linalg.solve(dense, (host.T @ to_numpy(residual)).T.ravel()).reshape(3, 4).T
        assert_allclose(to_numpy(preconditioner.apply(residual)), host @ expected, rtol=1e-8, atol=1e-12)


def test_one_step_is_the_preconditioner_and_several_solve_the_system():
    problem = convex_problem(*random_problem(60, 5, 4, 1))
    residual = np.random.default_rng(0).standard_normal((5, 4))
    one, several = Pcg(problem, 0.1), Pcg(problem, 0.1, accuracy=1e-12)
    for rho in (1.0, 30.0):
        one.refactor(rho)
        several.refactor(rho)
        kron = kronecker_form(problem, one.metric, rho, 1.0)
        assert_allclose(one.apply(residual).T.ravel(), np.linalg.solve(kron, residual.T.ravel()), rtol=1e-9)
        expected = np.linalg.solve(dense_system(problem, 0.1, rho), residual.T.ravel())
        assert_allclose(several.apply(residual).T.ravel(), expected, rtol=1e-8, atol=1e-12)
        assert 3 < several.steps <= 20 + 10  # 20 unknowns, and some for rounding
    assert one.steps == 0


@pytest.mark.parametrize("accuracy", [0.5, 0.2, 1e-3])
def test_conjugate_gradients_reduce_the_residual_as_asked(accuracy):
    problem = convex_problem(*random_problem(200, 10, 5, 1))
    pcg = Pcg(problem, 0.01, accuracy)
    pcg.refactor(2.0)
    matrix, residual = dense_system(problem, 0.01, 2.0), np.random.default_rng(0).standard_normal((10, 5))

    def length(r):
        return np.sqrt((r * pcg.preconditioner.apply(r)).sum())

    left = residual.T.ravel() - matrix @ pcg.apply(residual).T.ravel()
    assert length(left.reshape(5, 10).T) <= accuracy * length(residual) * (1 + 1e-9)
    # One step less would not have done.
    assert pcg.steps >= 1
    pcg.accuracy, taken = 1.0001 * length(left.reshape(5, 10).T) / length(residual), pcg.steps
    pcg.apply(residual)
    assert pcg.steps == taken


def test_a_residual_of_zero_costs_nothing():
    pcg = Pcg(convex_problem(*random_problem(60, 5, 4, 1)), 0.1, accuracy=0.2)
    assert not pcg.apply(np.zeros((5, 4))).any()
    assert pcg.steps == 0


def whole_steps(n, d, gates, rho_per_row, seed=0):
    """Steps from nothing to a millionth."""
    problem = convex_problem(*random_problem(n, d, gates, seed))
    pcg = Pcg(problem, cone_scale_squared(problem), accuracy=1e-6)
    pcg.refactor(rho_per_row * n)
    pcg.apply(np.random.default_rng(seed).standard_normal(problem.shape[1:]))
    return pcg.steps


@pytest.mark.parametrize("gates", [2, 5, 20])
@pytest.mark.parametrize(("n", "d"), [(200, 10), (1000, 10), (1000, 40), (3000, 40)])
def test_steps_are_bounded_and_fall_with_the_penalty(monkeypatch, n, d, gates):
    monkeypatch.setattr("coala_core.cvxnn.system.MOST_STEPS", 1000)
    # Measured: at most 63, 48 and 28 where rows are twice the unknowns dP; else at most 189, 85 and 35.
    bounds = (80, 60, 36) if n >= 2 * d * gates else (240, 105, 45)
    steps = [whole_steps(n, d, gates, rho) for rho in (1 / 4000, 10 / 4000, 100 / 4000)]
    assert steps[0] >= steps[1] >= steps[2]
    assert all(taken <= bound for taken, bound in zip(steps, bounds, strict=True))


@pytest.mark.parametrize(("d", "gates", "rho_per_row"), [(10, 5, 10 / 4000), (20, 3, 1 / 4000), (10, 5, 100 / 4000)])
def test_steps_do_not_grow_with_rows(d, gates, rho_per_row):
    few, many = whole_steps(400, d, gates, rho_per_row), whole_steps(4000, d, gates, rho_per_row)
    assert many <= 1.1 * few + 1


def test_conjugate_gradients_end_at_most_steps(monkeypatch):
    monkeypatch.setattr("coala_core.cvxnn.system.MOST_STEPS", 7)
    assert whole_steps(200, 10, 20, 1 / 4000) == 7


def scalar_pcg(xp, rho=2.0):
    """One axis, one gate on one of two rows: X'X = 2, F~'F~ = 1, Q = 1/2, and with tau^2 = 1/2 H = 2."""
    problem = convex_problem(xp.asarray([[1.0], [-1.0]]), xp.asarray([1.0, -1.0]), xp.asarray([[1.0]]))
    pcg = Pcg(problem, 0.5)
    pcg.refactor(rho)
    return pcg


def apply(pcg, residual):
    """The step for a residual."""
    return pcg.apply(namespace_of(pcg.last_step).asarray([[residual]])).item()


def tell(pcg, fitted):
    """||F~ step||^2 of the last step."""
    pcg.observe(namespace_of(pcg.last_step).asarray(float(fitted)))


def share(pcg):
    """What a last step of 1 adds to the next one."""
    zero, one = (namespace_of(pcg.last_step).asarray([[value]]) for value in (0.0, 1.0))
    return pcg.preconditioner.solve(zero, one, pcg.mean_quotient).item()


def observe(pcg, step, fitted):
    """The scale c after a step and its ||F~ step||^2; M = H + (2/rho) c."""
    diagonal = 2.0 + 2.0 / pcg.penalty * float(pcg.preconditioner.scale)
    assert apply(pcg, step * diagonal) == pytest.approx(step)
    tell(pcg, fitted)
    return float(pcg.preconditioner.scale)


@pytest.fixture
def no_momentum(monkeypatch):
    """Steps that do not depend on the one before."""
    monkeypatch.setattr(pcg_module, "MOST_MOMENTUM", 0.0)


def test_steps_carry_on_by_what_the_curvature_says_by_hand(xp):
    # M = 2 + 1 at rho = 2. As good as exact at first: no share of the step before.
    pcg = scalar_pcg(xp)
    assert apply(pcg, 6.0) == pytest.approx(2.0)
    assert share(pcg) == 0.0
    # The step of 2 has the curvature (2 * 4 + 1.2) / (3 * 4) = 0.7667 of M's: the mean moves a tenth of the way to it.
    tell(pcg, 1.2)
    root = np.sqrt(1.0 - 0.1 * (1.0 - 9.2 / 12.0))
    assert share(pcg) == pytest.approx((1.0 - root) / (1.0 + root))
    # c fell to 0.98 with it: M = 2.98.
    expected = 5.0 / 2.98 + 2.0 * (1.0 - root) / (1.0 + root)
    assert apply(pcg, 5.0) == pytest.approx(expected)


def test_momentum_is_bounded_and_forgets_nothing_over_what_is_rounding(xp):
    pcg = scalar_pcg(xp, rho=1e-6)  # M = 2 + 2e6 c
    for _ in range(200):
        apply(pcg, 1.0)
        tell(pcg, 1e-20)  # after the first, of the same size: heard
    assert share(pcg) == pcg_module.MOST_MOMENTUM
    before = share(pcg)
    tell(pcg, 1e-40)
    assert share(pcg) == before


def test_a_step_that_was_not_finite_is_gone_with_the_next_penalty(xp):
    pcg = scalar_pcg(xp)
    observe(pcg, 1.0, 1.0)
    assert np.isnan(apply(pcg, np.nan))
    tell(pcg, np.nan)
    pcg.refactor(2.0)  # as at the next weight of a path
    scale = float(pcg.preconditioner.scale)
    assert apply(pcg, 3.0) == pytest.approx(3.0 / (2.0 + scale))
    assert observe(pcg, 1.0, 40.0) == pytest.approx(1.02 * 40.0)  # and larger curvatures are heard


def test_momentum_takes_a_slow_part_out_sooner(xp):
    # M = 2 + 98 c, and the system 2 + 98 * 0.01 = 2.98: a plain step leaves 1 - 2.98 / 100 of the error.
    pcg, b, steps = scalar_pcg(xp, rho=2.0 / 98.0), 1.0, 60
    for _ in range(steps):
        step = apply(pcg, 2.98 * b)
        tell(pcg, 0.01 * step**2)
        pcg.preconditioner.scale = xp.ones(())  # held
        b -= step
    # Twice the steps at the least, once the mean has seen the curvature.
    assert abs(b) < (1.0 - 0.0298) ** (1.5 * steps)


@pytest.mark.usefixtures("no_momentum")
def test_scale_follows_the_largest_curvature_by_hand(xp):
    # At rho = 2: M = 2 + c, as Q Lambda = 1.
    pcg = scalar_pcg(xp)
    assert apply(pcg, 3.0) == pytest.approx(3.0 / 3.0)
    # ||F~ step||^2 three times what Q (x) Lambda says: c = 1.02 * 3.
    assert observe(pcg, 2.0, 12.0) == pytest.approx(1.02 * 3)
    assert apply(pcg, 3.0) == pytest.approx(3.0 / (2.0 + 3.06))
    # A smaller curvature lets it sink by 2 percent a sweep, a new largest one lifts it at once.
    assert observe(pcg, 1.0, 0.5) == pytest.approx(0.98 * 3.06)
    assert observe(pcg, 1.0, 2.8) == pytest.approx(0.98**2 * 3.06)
    assert observe(pcg, 0.1, 0.05) == pytest.approx(1.02 * 5.0)
    assert observe(pcg, 1.0, 1e4) == 50.0  # no matter how large
    for _ in range(300):
        lowest = observe(pcg, 1.0, 1e-3)
    assert lowest == pytest.approx(0.5, rel=0.02)  # and no matter how small: 50 * 0.98^300 = 0.12


@pytest.mark.usefixtures("no_momentum")
def test_a_curvature_that_is_rounding_is_not_heard(xp):
    pcg = scalar_pcg(xp)
    observe(pcg, 1.0, 1.0)
    before = float(pcg.preconditioner.scale)
    # Both parts at 1e-11 of the largest ||F~ step||^2, their quotient by chance 40.
    assert observe(pcg, np.sqrt(2.5e-13), 1e-11) <= before
    assert float(pcg.quotients[-1]) == 1.0
    assert observe(pcg, np.sqrt(2.5e-10), 1e-8) == pytest.approx(40.8)  # 1e-8 is heard
    assert np.isfinite(observe(pcg, 0.0, 0.0))


@pytest.mark.usefixtures("no_momentum")
def test_quality_is_the_median_quotient_of_a_window_by_hand(xp):
    # At rho = 2 a step of 1 has curvature 2 + fitted, where M, which made it, has 2 + c.
    pcg, quotients = scalar_pcg(xp), []
    for fitted in [0.1] * 4 + [5.0] + [1.0] * 4:
        quotients.append((2.0 + fitted) / (2.0 + float(pcg.preconditioner.scale)))
        observe(pcg, 1.0, fitted)
        assert not pcg.is_full
    # c sinks by 2 percent from 1, then it is 1.02 * 5 = 5.1 and sinks again.
    assert quotients[:2] == pytest.approx([2.1 / 3.0, 2.1 / 2.98])
    assert quotients[5:7] == pytest.approx([3.0 / 7.1, 3.0 / (2.0 + 0.98 * 5.1)])
    quotients.append(3.0 / (2.0 + float(pcg.preconditioner.scale)))
    observe(pcg, 1.0, 1.0)
    assert pcg.is_full
    assert pcg.quality() == pytest.approx(np.median(quotients))
    assert not pcg.is_full  # a window is judged once


@pytest.mark.usefixtures("no_momentum")
def test_a_penalty_has_a_window_of_its_own(xp):
    pcg = scalar_pcg(xp)
    for _ in range(pcg_module.WINDOW - 1):
        observe(pcg, 1.0, 1.0)
    pcg.refactor(0.02)
    observe(pcg, 1.0, 1.0)
    assert not pcg.is_full


def test_several_steps_learn_nothing(xp):
    pcg = scalar_pcg(xp)
    pcg.accuracy = 0.2
    assert observe(pcg, 1.0, 30.0) == 1.0
    assert not pcg.quotients


def test_energies_are_quadratic_forms():
    problem = convex_problem(*random_problem(30, 4, 3, 0))
    preconditioner = KroneckerPreconditioner(problem, cone_metric(problem, 0.3))
    parts = [kronecker_form(problem, preconditioner.metric, 2.0, c) for c in (0.0, 1.0)]
    rotated = preconditioner.solve(np.random.default_rng(0).standard_normal((4, 3)), np.zeros((4, 3)), np.ones(()))
    flat = preconditioner.turn_back(rotated).T.ravel()
    own, coupled = preconditioner.energies(rotated)
    assert own == pytest.approx(flat @ parts[0] @ flat)
    assert coupled == pytest.approx(flat @ (parts[1] - parts[0]) @ flat)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("accuracy", [None, pcg_module.ACCURACY])
@pytest.mark.parametrize("share", [0.3, 0.03])
def test_inexact_sweeps_are_certified_and_hardly_more_at_one_penalty(long_xp, paired, accuracy, share):
    x, y, h = random_problem(80, 6, 4, 2)
    y = np.ones(40) if paired else y
    problem = convex_problem(long_xp.asarray(x), long_xp.asarray(y), long_xp.asarray(h), paired=paired)
    patterns = (x @ h >= 0).astype(float)
    weight = share * zero_weight(x, np.repeat([1.0, -1.0], 40) if paired else y, patterns)
    config = SolveConfig(penalty=10.0, tolerance=1e-5, max_cone_violation=1e-5, max_sweeps=20_000)
    tau2 = cone_scale_squared(problem)
    back_ends = Pcg(problem, tau2, accuracy), DualDirect(problem, tau2)
    found, direct = (solve(problem, weight, config, back_end=back_end) for back_end in back_ends)
    expected, _ = optimum(x, y, patterns, weight, paired=paired)
    assert found.status is Status.CONVERGED
    assert found.certificate.lower_bound <= expected * (1 + 1e-7)
    assert found.certificate.upper_bound == pytest.approx(expected, rel=1e-4)
    # The certificate does not rest on the back end: a plain float64 evaluation of the point gives the same.
    assert float(problem.objective(found.u, weight)) == pytest.approx(found.certificate.upper_bound, rel=1e-9)
    # Measured: at most 950 for 900 and 925 for 825.
    assert found.sweeps <= 1.3 * direct.sweeps + config.check_every


@pytest.mark.parametrize("paired", [False, True])
def test_one_step_a_sweep_converges_at_a_penalty_that_follows(paired):
    x, y, h = random_problem(80, 6, 4, 2)
    y = np.ones(40) if paired else y
    problem = convex_problem(x, y, h, paired=paired)
    patterns = (x @ h >= 0).astype(float)
    weight = 0.1 * zero_weight(x, np.repeat([1.0, -1.0], 40) if paired else y, patterns)
    config = SolveConfig(tolerance=1e-4, max_cone_violation=1e-4, max_sweeps=5000)
    found = solve(problem, weight, config, back_end=Pcg(problem, cone_scale_squared(problem)))
    expected, _ = optimum(x, y, patterns, weight, paired=paired)
    assert found.status is Status.CONVERGED
    assert found.certificate.lower_bound <= expected * (1 + 1e-7)
    assert found.certificate.upper_bound == pytest.approx(expected, rel=1e-3)
