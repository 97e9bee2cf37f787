import numpy as np
import pytest

from coala_core.config import SolveConfig
from coala_core.cvxnn.gates import ArrayRows, check_gates, sample_gates
from coala_core.cvxnn.problem import gate_patterns
from tests.problems import random_problem

X, Y, _ = random_problem(60, 5, 1, 0)


def distinct_patterns(x, directions):
    return {column.tobytes() for column in gate_patterns(x, directions).T}


@pytest.mark.parametrize("probe_gates", [0, 1, 7, 12])
def test_patterns_are_distinct_and_alive(probe_gates):
    directions = sample_gates(X, Y, SolveConfig(gates=12, probe_gates=probe_gates))
    assert directions.shape == (5, 12)
    assert len(distinct_patterns(X, directions)) == 12
    assert gate_patterns(X, directions).any(axis=0).all()


def test_first_gates_are_the_probe_and_its_negative():
    directions = sample_gates(X, Y, SolveConfig(gates=6, probe_gates=4))
    gram = X.T @ X
    probe = np.linalg.solve(gram + np.trace(gram) / 5 * np.eye(5), X.T @ Y)  # ridge of one mean eigenvalue
    np.testing.assert_allclose(directions[:, 0], probe)
    np.testing.assert_allclose(directions[:, 1], -probe)
    cosines = (X @ directions).T @ (X @ probe)
    cosines /= np.linalg.norm(X @ directions, axis=0) * np.linalg.norm(X @ probe)
    # A perturbation has 0.3 of the probe's pre-activations: the angle is at most asin(0.3), cosine 0.95.
    assert (np.abs(cosines[2:4]) > 0.95).all()


def test_same_seed_same_bytes_and_another_seed_other_gates():
    first, again, other = (sample_gates(X, Y, SolveConfig(gates=12, seed=seed)).tobytes() for seed in (3, 3, 4))
    assert first == again != other


def test_too_many_gates_says_how_many_exist():
    # Two rows on one feature and a bias give at most the patterns 01, 10, 11 besides the dead 00.
    x = np.array([[-1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="must find 5 distinct activation patterns, found 3 in .* on 2 rows; lower"):
        sample_gates(x, np.array([-1.0, 1.0]), SolveConfig(gates=5, probe_gates=0))


def test_balanced_labels_without_correlation_fall_back_to_random_gates():
    x = np.array([[1.0, 1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]])
    directions = sample_gates(x, np.array([1.0, -1.0, 1.0, -1.0]), SolveConfig(gates=3, probe_gates=2))
    assert len(distinct_patterns(x, directions)) == 3


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (np.ones((4, 2)), r"one direction per column with 5 entries, the last for the bias, got shape \(4, 2\)"),
        (np.ones((5, 0)), r"got shape \(5, 0\)"),
        (np.ones(5), r"got shape \(5,\)"),
        (np.full((5, 1), np.nan), r"`fit_head\(gates=...\)` must be finite"),
        (np.ones((5, 2)) * [1, 2], r"must give distinct activation patterns, got 1 from 2 directions; drop"),
    ],
)
def test_bad_gates_are_refused(directions, message):
    with pytest.raises(ValueError, match=message):
        check_gates(ArrayRows(X), directions, "fit_head")
