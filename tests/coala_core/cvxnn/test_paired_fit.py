"""`fit_head` and `fit_path` on pairs, by every back end."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import Status, admm, fit_head, fit_path, sample_gates
from coala_core.cvxnn.features import fit_standardiser
from tests.dense import DenseBackEnd, gated_optimum, gated_score, optimum
from tests.problems import random_features

ROWS, SIGNS = random_features(90, 5, 3)
FEATURES = np.vstack([ROWS[SIGNS > 0], ROWS[SIGNS < 0]])
PAIR_LABELS = np.repeat([1.0, -1.0], 45)
CONFIG = SolveConfig(
    gates=6, probe_gates=3, rows="pairwise", tolerance=1e-4, max_cone_violation=1e-5, max_sweeps=5000, backend="numpy"
)


def test_every_weight_of_a_path_agrees_with_cvxpy():
    z = fit_standardiser(FEATURES).apply(FEATURES)
    patterns = (z @ sample_gates(z, PAIR_LABELS, CONFIG) >= 0).astype(float)
    path = fit_path(FEATURES, PAIR_LABELS, CONFIG)
    for solution in path.solutions[::3]:
        expected, _ = optimum(z, np.ones(45), patterns, solution.lasso_weight, paired=True)
        assert solution.status is Status.CONVERGED
        assert solution.lower_bound <= expected * (1 + 1e-7)
        assert solution.upper_bound == pytest.approx(expected, rel=2e-4)
        assert solution.network_objective == pytest.approx(solution.upper_bound, rel=1e-3)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
def test_back_ends_agree(monkeypatch, activation):
    gates = np.random.default_rng(0).standard_normal((6, 4))
    config = CONFIG.model_copy(update={"activation": activation, "tolerance": 1e-7})

    def score(linear):
        solution = fit_head(FEATURES, PAIR_LABELS, config.model_copy(update={"linear": linear}), **given)
        assert solution.status is Status.CONVERGED
        return solution.head.score(FEATURES)

    given = {"gates": gates, "lasso_weight": 1.0}
    scores = [score(linear) for linear in ("primal", "dual", "pcg", "auto")]
    monkeypatch.setattr(admm, "choose_back_end", lambda problem, scale, *_: DenseBackEnd(problem, scale))
    expected = score("auto")
    for found in scores:
        assert_allclose(found, expected, atol=1e-4)


def test_order_of_the_pairs_does_not_matter_and_their_sides_do():
    gates = np.random.default_rng(0).standard_normal((6, 4))
    fit = [fit_head(f, PAIR_LABELS, CONFIG, gates=gates, lasso_weight=1.0) for f in shuffled(FEATURES)]
    assert_allclose(fit[1].head.score(FEATURES), fit[0].head.score(FEATURES), atol=1e-4)
    assert np.abs(fit[2].head.score(FEATURES) - fit[0].head.score(FEATURES)).max() > 0.1
    chosen, rejected = np.split(fit[0].head.score(FEATURES), 2)
    assert np.mean(chosen > rejected) > 0.75


def shuffled(features):
    """As given, the pairs in another order, and the rejected responses alone in another order."""
    order = np.random.default_rng(1).permutation(45)
    chosen, rejected = np.split(features, 2)
    return features, np.vstack([chosen[order], rejected[order]]), np.vstack([chosen, rejected[order]])


def test_pairs_and_gates_together():
    rows, labels = FEATURES, PAIR_LABELS
    config = CONFIG.model_copy(update={"activation": "gated_relu", "tolerance": 1e-5})
    z = fit_standardiser(rows).apply(rows)
    patterns = (z @ sample_gates(z, labels, config) >= 0).astype(float)
    solution = fit_head(rows, labels, config, lasso_weight=1.0)
    expected, _ = gated_optimum(z, np.ones(45), patterns, 1.0, paired=True)
    assert solution.lower_bound <= expected * (1 + 1e-7)
    assert expected * (1 - 1e-7) <= solution.upper_bound <= expected * (1 + 2e-5)
    chosen, rejected = np.split(gated_score(solution.head, rows), 2)
    assert 0.5 * ((chosen - rejected - 1) ** 2).sum() < solution.upper_bound
