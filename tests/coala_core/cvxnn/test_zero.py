import numpy as np
import pytest

from coala_core.config import SolveConfig
from coala_core.cvxnn import fit_head, fit_path, sample_gates
from coala_core.cvxnn.features import fit_standardiser
from coala_core.cvxnn.problem import convex_problem
from coala_core.cvxnn.zero import zero_head_weight
from tests.dense import optimum, zero_weight
from tests.problems import random_features, random_problem


@pytest.mark.parametrize(("n", "d", "gates", "seed"), [(40, 4, 3, 0), (120, 8, 6, 1), (12, 20, 4, 2), (300, 3, 5, 3)])
def test_weight_is_just_above_the_longest_projection(n, d, gates, seed):
    x, y, h = random_problem(n, d, gates, seed)
    exact = zero_weight(x, y, (x @ h >= 0).astype(float))
    weight = zero_head_weight(convex_problem(x, y, h))
    assert exact * (1 - 1e-7) <= weight <= exact * (1 + 1e-5)


def test_cvxpy_agrees_that_the_optimum_is_zero_from_there_on():
    x, y, h = random_problem(50, 5, 4, 7)
    problem = convex_problem(x, y, h)
    weight = zero_head_weight(problem)
    at_zero = 0.5 * y @ y
    assert optimum(x, y, problem.patterns, 1.01 * weight)[0] == pytest.approx(at_zero, rel=1e-7)
    assert optimum(x, y, problem.patterns, 0.97 * weight)[0] < at_zero * (1 - 1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_head_has_no_neurons_above_and_some_below(seed):
    features, labels = random_features(60, 5, seed)
    config = SolveConfig(gates=6, probe_gates=2, tolerance=1e-5, max_sweeps=5000)
    z = fit_standardiser(features).apply(features)
    weight = zero_head_weight(convex_problem(z, labels, sample_gates(z, labels, config)))
    above = fit_head(features, labels, config, lasso_weight=1.001 * weight)
    below = fit_head(features, labels, config, lasso_weight=0.97 * weight)
    assert len(above.head.second_weight) == 0
    assert above.head.score(features).tolist() == [0.0] * 60
    assert above.upper_bound == pytest.approx(30.0)  # 1/2 * 60 labels of size 1
    assert len(below.head.second_weight) > 0
    assert below.upper_bound < 30.0


def test_features_that_tell_nothing_apart_are_refused():
    features = np.ones((4, 2))
    with pytest.raises(ValueError, match="must tell the two classes apart at all"):
        fit_path(features, np.array([1, -1, 1, -1]), SolveConfig(gates=1, probe_gates=0))
