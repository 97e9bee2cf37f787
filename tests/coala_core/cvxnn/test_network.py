import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.cvxnn.network import Head, network_objective, network_of
from coala_core.cvxnn.problem import convex_problem
from tests.dense import network_score, optimum
from tests.problems import random_problem


def test_pairs_become_neurons_by_hand():
    # v_1 = (3, 4) has norm 5: Theta (3, 4)/sqrt5, theta +sqrt5. w_2 = (0, 4): (0, 2), theta -2. The others are 0.
    u = np.zeros((2, 2, 2))
    u[0, :, 0] = 3, 4
    u[1, :, 1] = 0, 4
    first, second = network_of(u)
    assert_allclose(first, np.array([[3 / np.sqrt(5), 0], [4 / np.sqrt(5), 2]]))
    assert_allclose(second, [np.sqrt(5), -2])


def test_network_and_convex_objective_agree_on_the_cones():
    problem = convex_problem(*random_problem(40, 4, 4, 1))
    value, u = optimum(problem.features, problem.labels, problem.patterns, 1.0)
    first, second = network_of(u)
    assert network_objective(problem.features, problem.labels, first, second, 1.0) == pytest.approx(value, rel=1e-6)


def test_network_leaves_the_convex_objective_outside_the_cones():
    x, y, h = random_problem(40, 4, 4, 1)
    problem = convex_problem(x, y, h)
    u = np.random.default_rng(0).standard_normal((2, 4, 4))
    assert problem.cone_violation(u) > 0.1
    network = network_objective(problem.features, problem.labels, *network_of(u), 1.0)
    assert abs(network - problem.objective(u, 1.0)) > 1.0


def test_score_is_the_two_layer_network():
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((3, 5)), rng.standard_normal(3), rng.standard_normal(3)
    head = Head(*(part.astype(np.float32) for part in parts))
    embeddings = rng.standard_normal((7, 5)).astype(np.float32)
    assert_allclose(
        head.score(embeddings), network_score(head.first_weight, head.first_bias, head.second_weight, embeddings)
    )
    assert head.hidden(embeddings).shape == (7, 3)
    assert (head.hidden(embeddings) >= 0).all()


def test_no_neurons_score_zero():
    head = Head(np.zeros((0, 5), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32))
    assert head.score(np.ones((4, 5), np.float32)).tolist() == [0.0] * 4


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"must have shapes \(m, d\), \(m,\), \(m,\), got \(3, 5\), \(2,\), \(3,\)"):
        Head(np.zeros((3, 5), np.float32), np.zeros(2, np.float32), np.zeros(3, np.float32))
    head = Head(np.zeros((3, 5), np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"must have 5 columns, got shape \(2, 4\); embed with the settings"):
        head.score(np.zeros((2, 4), np.float32))
