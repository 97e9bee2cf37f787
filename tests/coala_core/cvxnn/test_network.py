import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.cvxnn.network import Head, network_objective, network_of
from coala_core.cvxnn.problem import convex_problem
from tests.dense import gated_score, network_score, optimum
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


def test_gated_pairs_become_neurons_by_hand():
    # u_1 = (3, 4) has norm 5: Theta (3, 4)/sqrt5, theta sqrt5. u_2 = 0 drops out, u_3 = (0, 4): (0, 2), theta 2.
    first, second = network_of(np.array([[[3.0, 0.0, 0.0], [4.0, 0.0, 4.0]]]))
    assert_allclose(first, np.array([[3 / np.sqrt(5), 0], [4 / np.sqrt(5), 2]]))
    assert_allclose(second, [np.sqrt(5), 2])


def test_gated_score_by_hand():
    # Gate x >= 2, response 3x - 9: rows 1 (closed), 2 (on the gate: 6 - 9 = -3) and 4 (12 - 9 = 3), times 2.
    parts = [np.array(part, np.float32) for part in ([[3.0]], [-9.0], [2.0])]
    head = Head(*parts, gate_weight=np.array([[1.0]]), gate_bias=np.array([-2.0]))
    rows = np.array([[1.0], [2.0], [4.0]])
    assert head.hidden(rows).tolist() == [[0.0], [-3.0], [3.0]]
    assert head.score(rows).tolist() == [0.0, -6.0, 6.0]


def test_gated_score_is_the_gated_network():
    rng = np.random.default_rng(0)
    parts = [part.astype(np.float32) for part in (rng.standard_normal((3, 5)), *rng.standard_normal((2, 3)))]
    head = Head(*parts, gate_weight=rng.standard_normal((3, 5)), gate_bias=rng.standard_normal(3))
    embeddings = rng.standard_normal((9, 5)).astype(np.float16)
    assert_allclose(head.score(embeddings), gated_score(head, embeddings))


@pytest.mark.parametrize(
    ("gates", "got"),
    [
        ({"gate_weight": np.zeros((3, 5))}, r"\(3, 5\), None"),
        ({"gate_bias": np.zeros(3)}, r"None, \(3,\)"),
        ({"gate_weight": np.zeros((3, 4)), "gate_bias": np.zeros(3)}, r"\(3, 4\), \(3,\)"),
        ({"gate_weight": np.zeros((3, 5)), "gate_bias": np.zeros(2)}, r"\(3, 5\), \(2,\)"),
    ],
)
def test_gates_must_be_one_per_neuron(gates, got):
    message = rf"must have shapes \(3, 5\), \(3,\) or both be left out, got {got}; take all arrays from one head"
    with pytest.raises(ValueError, match=message):
        Head(np.zeros((3, 5), np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32), **gates)


def test_network_objective_behind_gates_by_hand():
    # Rows 3, -1, Theta 1, theta 2, active on the second row only: scores 0, -2, misfit -1, -3: 5, and 0.1 * 5 / 2.
    x, y, active = np.array([[3.0], [-1.0]]), np.array([1.0, 1.0]), np.array([[0.0], [1.0]])
    found = network_objective(x, y, np.array([[1.0]]), np.array([2.0]), 0.1, active=active)
    assert found == pytest.approx(5.25)
