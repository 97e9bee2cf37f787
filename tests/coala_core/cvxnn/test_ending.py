"""Solves that end before they are done: deadline, interruption, non-finite iterates."""

import numpy as np
import pytest

from coala_core.config import SolveConfig
from coala_core.cvxnn import Status, fit_head, fit_path, halt, solve
from coala_core.cvxnn.admm import cone_scale_squared
from coala_core.cvxnn.certificate import measure
from coala_core.cvxnn.halt import Halt
from coala_core.cvxnn.linear import DualDirect
from coala_core.cvxnn.looks import Duals
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.updates import shrink_columns
from tests.dense import optimum
from tests.problems import random_features, random_problem

PROBLEM = convex_problem(*random_problem(80, 6, 4, 2))
OPTIMUM, _ = optimum(PROBLEM.features, PROBLEM.labels, PROBLEM.patterns, 1.0)
ENDLESS = SolveConfig(tolerance=1e-12, max_cone_violation=1e-3, max_sweeps=100_000, backend="numpy")
FEATURES, LABELS = random_features(90, 5, 0)


class After:
    """True from the n-th time it is asked."""

    def __init__(self, times):
        self.times, self.asked = times, 0

    def __call__(self):
        self.asked += 1
        return self.asked >= self.times


class Clock:
    """A clock that moves by one second each time it is read."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(halt, "monotonic", Clock())


def assert_certified(found, problem, weight, best):
    """What is claimed about the point holds for it."""
    again = measure(problem, weight, found.u, Duals(np.zeros((len(problem.features), 2 * problem.shape[2])), 1.0))
    assert found.certificate.upper_bound == pytest.approx(again.upper_bound, rel=1e-12)
    assert found.certificate.cone_violation == pytest.approx(again.cone_violation)
    assert found.certificate.lower_bound <= best * (1 + 1e-9)


@pytest.mark.parametrize("sweeps", [1, 7, 25, 60])
def test_a_word_between_sweeps_ends_the_solve_with_a_certificate(sweeps):
    found = solve(PROBLEM, 1.0, ENDLESS, halt=Halt(stop=After(sweeps)))
    assert (found.status, found.sweeps) == (Status.INTERRUPTED, sweeps)
    assert found.history[-1].sweep == sweeps
    assert_certified(found, PROBLEM, 1.0, OPTIMUM)


def test_a_deadline_ends_the_solve_between_sweeps(clock):
    # Read at 1 for the deadline 41, then once a sweep: at 41 after 40 sweeps.
    found = solve(PROBLEM, 1.0, ENDLESS.model_copy(update={"max_seconds": 40.0}))
    assert (found.status, found.sweeps) == (Status.OUT_OF_TIME, 40)
    assert "raise `solve.max_seconds`" in found.status
    assert [record.sweep for record in found.history] == [25, 40]
    assert_certified(found, PROBLEM, 1.0, OPTIMUM)


def test_the_best_checked_point_is_returned_not_the_last():
    tau2, last = cone_scale_squared(PROBLEM), 110
    # At a fixed penalty the sweeps are the same however often they are checked.
    fixed = ENDLESS.model_copy(update={"penalty": 10.0})
    config = fixed.model_copy(update={"check_every": 1, "max_cone_violation": 0.02})
    ranked = {}
    for sweeps in range(1, last + 1):
        after = solve(PROBLEM, 1.0, fixed.model_copy(update={"max_sweeps": sweeps})).warm_start
        v = shrink_columns(after.state.v_lam, 1.0 / after.penalty_ratio)  # at a weight of 1
        nu = np.minimum(np.stack(np.split(after.state.s_nu, 2, axis=1)), 0)
        price = -after.penalty_ratio * tau2 * (nu * np.maximum(-PROBLEM.apply_g(v), 0)).sum()
        if PROBLEM.cone_violation(v) <= 0.02:
            ranked[PROBLEM.objective(v, 1.0) + price] = (sweeps, v)
    sweep, expected = ranked[min(ranked)]
    found = solve(PROBLEM, 1.0, config, halt=Halt(stop=After(last)))
    assert sweep < last
    assert found.u.tobytes() == expected.tobytes()


def test_converged_is_said_where_the_last_check_proves_it():
    free = solve(PROBLEM, 1.0, SolveConfig())
    found = solve(PROBLEM, 1.0, SolveConfig(), halt=Halt(stop=After(free.sweeps)))
    assert (free.status, found.status) == (Status.CONVERGED, Status.CONVERGED)


class Failing(DualDirect):
    """A back end that returns NaN from some step on."""

    def __init__(self, problem, cone_scale, sweeps):
        super().__init__(problem, cone_scale)
        self.left = sweeps

    def apply(self, residual):
        self.left -= 1
        return super().apply(residual) if self.left >= 0 else np.full_like(residual, np.nan)


def test_the_best_point_before_a_non_finite_iterate_is_returned():
    with np.errstate(invalid="ignore"):
        found = solve(PROBLEM, 1.0, ENDLESS, back_end=Failing(PROBLEM, cone_scale_squared(PROBLEM), 60))
    sound = DualDirect(PROBLEM, cone_scale_squared(PROBLEM))
    before = solve(PROBLEM, 1.0, ENDLESS.model_copy(update={"max_sweeps": 50}), back_end=sound)
    assert (found.status, found.sweeps) == (Status.NOT_FINITE, 75)  # NaN from sweep 61, seen at the next check
    assert "check the scale of the features" in found.status
    assert found.u.tobytes() == before.u.tobytes()
    assert found.certificate == before.certificate
    assert found.u.any()
    assert_certified(found, PROBLEM, 1.0, OPTIMUM)


def test_a_head_is_returned_when_interrupted():
    config = ENDLESS.model_copy(update={"gates": 6, "probe_gates": 2})
    solution = fit_head(FEATURES, LABELS, config, lasso_weight=2.0, stop=After(30))
    assert (solution.status, solution.sweeps) == (Status.INTERRUPTED, 30)
    assert np.mean(np.sign(solution.head.score(FEATURES)) == LABELS) > 0.8
    assert solution.warm_start is not None


def test_an_interrupted_path_keeps_what_it_has():
    config = SolveConfig(gates=6, probe_gates=2, backend="numpy")
    whole = fit_path(FEATURES, LABELS, config)
    assert whole.unsolved == ()
    first, second = (solution.sweeps for solution in whole.solutions[:2])
    # Asked once after every sweep and once between weights: in the middle of the third weight.
    path = fit_path(FEATURES, LABELS, config, stop=After(first + second + 2 + 5))
    assert [solution.status for solution in path.solutions] == [*[Status.CONVERGED] * 2, Status.INTERRUPTED]
    assert [solution.sweeps for solution in path.solutions] == [first, second, 5]
    weights = [solution.lasso_weight for solution in whole.solutions]
    assert [solution.lasso_weight for solution in path.solutions] + list(path.unsolved) == weights
    for ours, theirs in zip(path.solutions[:2], whole.solutions, strict=False):
        assert ours.head.first_weight.tobytes() == theirs.head.first_weight.tobytes()


def test_a_path_interrupted_between_weights_starts_no_other():
    config = SolveConfig(gates=6, probe_gates=2, backend="numpy")
    first = fit_path(FEATURES, LABELS, config).solutions[0].sweeps
    path = fit_path(FEATURES, LABELS, config, stop=After(first + 1))
    assert [solution.status for solution in path.solutions] == [Status.CONVERGED]
    assert len(path.unsolved) == len(config.path) - 1


def test_a_path_out_of_time_has_at_least_one_head(clock):
    # The deadline has passed at the first look: one sweep of the first weight, and none of the others.
    config = SolveConfig(gates=6, probe_gates=2, backend="numpy", max_seconds=0.5)
    path = fit_path(FEATURES, LABELS, config)
    assert [(s.status, s.sweeps) for s in path.solutions] == [(Status.OUT_OF_TIME, 1)]
    assert len(path.unsolved) == len(config.path) - 1
    assert path.solutions[0].lower_bound <= path.solutions[0].upper_bound
