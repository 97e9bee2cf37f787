import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from coala_core.backend import to_numpy
from coala_core.config import SolveConfig
from coala_core.cvxnn import admm
from coala_core.cvxnn.admm import (
    FIRST_BALANCE,
    balance_after,
    balanced_penalty,
    cone_scale_squared,
    solve,
    sweeps_until,
)
from coala_core.cvxnn.certificate import Certificate
from coala_core.cvxnn.linear import DualDirect, PrimalDirect
from coala_core.cvxnn.outcome import Status
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.sweeps import Sweeps
from tests.dense import optimum, zero_weight
from tests.problems import random_problem

TIGHT = SolveConfig(tolerance=1e-5, max_cone_violation=1e-5, max_sweeps=20_000)


def test_penalty_follows_the_errors_within_limits():
    assert balanced_penalty(1.0, 2.0, 1.0) == 1.0  # sqrt(2) < 1.5: near enough
    assert balanced_penalty(1.0, 16.0, 1.0) == pytest.approx(4.0)  # sqrt(16)
    assert balanced_penalty(1.0, 1 / 16.0, 1.0) == pytest.approx(0.25)
    assert balanced_penalty(1.0, 1e8, 1.0) == pytest.approx(10.0)  # one step is tenfold at most
    assert balanced_penalty(5e3, 1e8, 1.0) == pytest.approx(1e4)  # and the range has an end
    assert balanced_penalty(2.0, math.nan, 1.0) == balanced_penalty(2.0, 0.0, 1.0) == 2.0


def test_looks_at_the_penalty_become_rarer():
    sweeps = [FIRST_BALANCE]
    for _ in range(6):
        sweeps.append(balance_after(sweeps[-1]))
    # ceil((1.3 * 10 + 15) / 25) = 2, ceil((65 + 15) / 25) = 4, ceil(145 / 25) = 6, ceil(210 / 25) = 9, ...
    assert sweeps == [10, 50, 100, 150, 225, 325, 450]


@pytest.mark.parametrize(
    ("violation", "price", "errors"),
    [
        # (10 + 0.1 - 9.5) / 10 = 0.06 of a tolerance of 0.01; price 2 * 0.1 / 10 = 0.02 of it; violation 4e-3 of 1e-3.
        (4e-3, 0.1, (4.0, 6.0)),
        (1e-3, 0.1, (2.0, 6.0)),
        (0.0, 0.0, (0.0, 5.0)),
    ],
)
def test_errors_of_a_check_in_units_of_the_tolerances_by_hand(violation, price, errors):
    problem = convex_problem(*random_problem(60, 5, 4, 4))
    config = SolveConfig(tolerance=1e-2, max_cone_violation=1e-3)
    run = admm._Solve(problem, config, Sweeps(problem, 1.0, config, DualDirect(problem, 1.0)))
    run.best.offer(run.best.point, Certificate(9.5, 20.0, 0.0))  # the best bound, of an earlier check
    run.last = Certificate(9.0, 10.0, violation, price)
    assert run.errors() == pytest.approx(errors)


@pytest.mark.parametrize("back_end", [DualDirect, PrimalDirect])
@pytest.mark.parametrize(
    ("n", "d", "gates", "seed", "shares"),
    [(40, 4, 3, 0, (0.9, 0.2, 0.01)), (120, 8, 6, 1, (0.5, 0.05)), (80, 6, 4, 2, (0.3, 0.02)), (15, 20, 3, 3, (0.1,))],
)
def test_optimum_agrees_with_cvxpy_and_lies_between_the_bounds(long_xp, back_end, n, d, gates, seed, shares):
    x, y, h = random_problem(n, d, gates, seed)
    problem = convex_problem(long_xp.asarray(x), long_xp.asarray(y), long_xp.asarray(h))
    patterns = (x @ h >= 0).astype(float)
    for share in shares:
        weight = share * zero_weight(x, y, patterns)
        expected, _ = optimum(x, y, patterns, weight)
        found = solve(problem, weight, TIGHT, back_end=back_end(problem, cone_scale_squared(problem)))
        assert found.status is Status.CONVERGED
        assert found.certificate.upper_bound == pytest.approx(expected, rel=1e-4)
        assert found.certificate.lower_bound <= expected * (1 + 1e-7)
        assert found.certificate.upper_bound >= expected * (1 - 2e-5)
        assert float(problem.objective(found.u, weight)) == pytest.approx(found.certificate.upper_bound, rel=1e-12)
        assert problem.cone_violation(found.u) == pytest.approx(found.certificate.cone_violation)


def test_every_lower_bound_on_the_way_holds():
    x, y, h = random_problem(60, 5, 4, 4)
    problem = convex_problem(x, y, h)
    expected, _ = optimum(x, y, problem.patterns, 0.5)
    found = solve(problem, 0.5, TIGHT.model_copy(update={"check_every": 1, "max_sweeps": 5000}))
    assert found.status is Status.CONVERGED
    bounds = [record.lower_bound for record in found.history]
    assert bounds == sorted(bounds)
    assert max(bounds) <= expected * (1 + 1e-7)


def test_out_of_sweeps_is_a_status_with_a_remedy():
    seen = []
    found = solve(
        convex_problem(*random_problem(60, 5, 4, 4)),
        0.1,
        SolveConfig(tolerance=1e-9, max_sweeps=37, check_every=25),
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    assert found.status is Status.OUT_OF_SWEEPS
    assert "raise `solve.max_sweeps`" in found.status
    assert [record.sweep for record in found.history] == [25, 37]
    assert seen == [(25, 37, "sweeps"), (37, 37, "sweeps")]
    assert found.sweeps == 37


def test_non_finite_iterate_is_a_status_and_the_zero_point():
    problem = convex_problem(*random_problem(30, 4, 3, 0))
    problem.labels[3] = np.nan
    found = solve(problem, 1.0, SolveConfig())
    assert found.status is Status.NOT_FINITE
    assert not found.u.any()


def test_warm_start_continues_where_the_last_solve_ended():
    problem = convex_problem(*random_problem(80, 6, 4, 2))
    cold = solve(problem, 1.0, TIGHT)
    again = solve(problem, 1.0, TIGHT, warm_start=cold.warm_start)
    assert again.sweeps <= TIGHT.check_every < cold.sweeps
    assert again.certificate.upper_bound == pytest.approx(cold.certificate.upper_bound, rel=3e-5)


def test_relaxation_does_not_change_the_answer():
    problem = convex_problem(*random_problem(60, 5, 4, 6))
    values = [
        solve(problem, 0.7, TIGHT.model_copy(update={"relaxation": alpha})).certificate.upper_bound
        for alpha in (1.0, 1.8)
    ]
    assert values[0] == pytest.approx(values[1], rel=5e-5)


def test_order_of_rows_does_not_matter():
    x, y, h = random_problem(60, 5, 4, 8)
    order = np.random.default_rng(0).permutation(60)
    first, second = (
        solve(convex_problem(*data), 0.7, SolveConfig(max_sweeps=50, tolerance=1e-9))
        for data in ((x, y, h), (x[order], y[order], h))
    )
    assert first.certificate.upper_bound == pytest.approx(second.certificate.upper_bound, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "expected"), [(30.0, 857.48), (1.0, 56.3187)])
def test_problem_m(weight, expected):
    source = Path(__file__).parents[4] / "shared" / "problem_m.py"
    if not source.exists():
        pytest.skip("../shared/problem_m.py is absent")
    spec = importlib.util.spec_from_file_location("problem_m", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y = module.problem_m()
    h = np.random.default_rng(0).standard_normal((x.shape[1], 10)).astype(np.float32)
    found = solve(convex_problem(x, y, h), weight, SolveConfig(tolerance=1e-3, max_cone_violation=1e-4))
    assert to_numpy(module.gates_m(x)).shape == (4000, 10)
    assert found.status is Status.CONVERGED
    assert found.certificate.lower_bound <= expected * (1 + 1e-5)
    assert found.certificate.upper_bound == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("shortfall", "before", "passed", "expected"),
    [
        # 100 -> 10 took 20 sweeps: as many again to 1.
        (10.0, 100.0, 20, 20),
        # 8 -> 2 is two halvings in 12 sweeps; one more takes 6.
        (2.0, 8.0, 12, 6),
        (1.1, 100.0, 25, 5),  # never sooner than five
        (90.0, 100.0, 25, 25),  # 1,068 by this pace: at the latest
        (100.0, 90.0, 25, 25),  # it grew
        (3.0, math.inf, 25, 25),  # the first check knows no pace
        (math.nan, 10.0, 25, 25),
        (0.5, 10.0, 25, 25),
    ],
)
def test_the_next_check_is_when_the_tolerance_should_be_reached(shortfall, before, passed, expected):
    assert sweeps_until(shortfall, before, passed, 25) == expected
    assert sweeps_until(shortfall, before, passed, 3) == 3


def test_checks_come_closer_towards_the_end_and_are_never_farther_apart_than_asked():
    problem = convex_problem(*random_problem(80, 6, 4, 2))
    found = solve(problem, 1.0, SolveConfig(tolerance=1e-6, max_cone_violation=1e-6, check_every=50, penalty=5.0))
    apart = np.diff([0, *(record.sweep for record in found.history)])
    assert found.status is Status.CONVERGED
    assert apart[0] == 50
    assert 5 <= min(apart) < 50
    assert max(apart) <= 50
