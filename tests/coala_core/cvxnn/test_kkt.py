"""Optimality conditions of eq. (4) at what a tight solve returns, gate by gate on the features as they came."""

import numpy as np
import pytest

from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import cone_scale_squared, solve
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.outcome import Status
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.zero import zero_head_weight
from tests.problems import random_problem

TIGHT = SolveConfig(tolerance=1e-9, max_cone_violation=1e-9, max_sweeps=100_000, check_every=100)
CLOSE = 1e-4  # of the weight, for forces; a gap of 1e-9 means errors of about its root in the vectors


def solved(paired, share, linear="auto"):
    """Features, y before Delta, patterns; vectors (2, d, P) and multipliers (2, n, P) of a tight solve; the weight."""
    x, y, h = random_problem(60, 5, 4, 4)
    problem = convex_problem(x, np.ones(30) if paired else y, h, paired=paired)
    weight = share * zero_head_weight(problem)
    found = solve(problem, weight, TIGHT.model_copy(update={"linear": linear}))
    assert found.status is Status.CONVERGED
    after = found.warm_start
    scale = after.penalty_ratio * weight * cone_scale_squared(problem)
    multipliers = -scale * np.minimum(np.stack(np.split(after.state.s_nu, 2, axis=1)), 0.0)
    return x, y, (x @ h >= 0).astype(float), problem.axes @ found.u, multipliers, weight


def test_a_tight_gated_solve_meets_the_optimality_conditions():
    x, y, h = random_problem(60, 5, 4, 4)
    problem = convex_problem(x, y, h, kind=GatedProblem)
    weight = 0.8 * zero_head_weight(problem)
    found = solve(problem, weight, TIGHT)
    assert found.status is Status.CONVERGED
    vectors, patterns = problem.axes @ found.u[0], (x @ h >= 0).astype(float)
    r = y - sum(pattern * (x @ v) for pattern, v in zip(patterns.T, vectors.T, strict=True))
    sizes = np.linalg.norm(vectors, axis=0)
    assert 1 <= (sizes > 0).sum() < 4
    for pattern, v, size in zip(patterns.T, vectors.T, sizes, strict=True):
        force = x.T @ (pattern * r)
        if size > 0.0:
            assert np.linalg.norm(force - weight * v / size) <= CLOSE * weight
        else:
            assert np.linalg.norm(force) <= weight * (1.0 + CLOSE)


def residual_of(x, y, patterns, vectors, paired):
    """r = Delta'(y - Delta sum_i D_i X (v_i - w_i)), on the rows, by a loop over the gates."""
    prediction = np.zeros(len(x))
    for i, pattern in enumerate(patterns.T):
        prediction += pattern * (x @ (vectors[0, :, i] - vectors[1, :, i]))
    if not paired:
        return y - prediction
    misfit = 1.0 - (prediction[:30] - prediction[30:])
    return np.concatenate([misfit, -misfit])


@pytest.mark.parametrize(("paired", "linear"), [(False, "auto"), (True, "auto"), (False, "pcg"), (True, "dual")])
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_tight_solve_meets_the_optimality_conditions(paired, linear, share):
    x, y, patterns, vectors, multipliers, weight = solved(paired, share, linear)
    r = residual_of(x, y, patterns, vectors, paired)
    assert (multipliers >= 0.0).all()
    alive = 0
    for half, side in ((0, 1.0), (1, -1.0)):
        for i, pattern in enumerate(patterns.T):
            v, mu, signs = vectors[half, :, i], multipliers[half, :, i], 2.0 * pattern - 1.0
            slack = signs * (x @ v)  # E_i X v_i
            force = side * x.T @ (pattern * r) + x.T @ (signs * mu)  # X'D_i r + X'E_i mu_i
            size = np.linalg.norm(v)
            assert slack.min() >= -1e-8 * max(1.0, np.abs(slack).max())
            if size > 0.0:
                alive += 1
                assert np.linalg.norm(force - weight * v / size) <= CLOSE * weight
            else:
                assert np.linalg.norm(force) <= weight * (1.0 + CLOSE)
            # A multiplier only where the cone is tight.
            assert (mu * np.abs(slack)).max() <= CLOSE * weight * max(size, 1e-3)
    assert alive >= 2
    assert multipliers.max() > 0.01 * weight  # the cones matter here
