"""The linear probe against CVXPY, and what it may and may not look at."""

import cvxpy
import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.baselines import PROBE_STRENGTHS, fit_linear_probe
from coala_core.pairs import PairFeatures


def make_pairs(name, n, signal, seed, width=4, noise=1.0):
    """Pairs whose chosen responses are shifted by `signal` in the first feature, on an uneven scale."""
    rng = np.random.default_rng(seed)
    shift = np.zeros(width)
    shift[0] = signal
    scale = np.logspace(0, 2, width)
    return PairFeatures(
        pair_ids=[f"{name}-{i:03d}" for i in range(n)],
        groups=[f"{name}-{i}" for i in range(n)],
        chosen=((noise * rng.normal(size=(n, width)) + shift) * scale + 50).astype(np.float32),
        rejected=(noise * rng.normal(size=(n, width)) * scale + 50).astype(np.float32),
        chosen_length=np.ones(n, dtype=int),
        rejected_length=np.ones(n, dtype=int),
    )


def test_probe_minimises_the_bradley_terry_objective():
    train, validation = make_pairs("train", 80, 1.0, 0), make_pairs("validation", 40, 1.0, 1)
    probe = fit_linear_probe(train, validation)
    scale = np.concatenate([train.chosen, train.rejected]).astype(float).std(axis=0)
    rows = (train.chosen.astype(float) - train.rejected) / scale
    weights = cvxpy.Variable(4)
    # scikit-learn: 1/2 ||w||^2 + C sum of losses; each pair enters twice with the same loss
    loss = 2 * probe.strength * cvxpy.sum(cvxpy.logistic(-rows @ weights))
    cvxpy.Problem(cvxpy.Minimize(loss + cvxpy.sum_squares(weights) / 2)).solve(solver=cvxpy.CLARABEL)
    assert_allclose(probe.direction * scale, weights.value, atol=1e-3)
    held_out = probe.score(validation.chosen) - probe.score(validation.rejected)
    assert probe.validation_loss == pytest.approx(np.log1p(np.exp(-held_out)).mean())


def test_probe_orders_what_a_line_can_order():
    train, validation = make_pairs("train", 80, 6.0, 0), make_pairs("validation", 40, 6.0, 1)
    test = make_pairs("test", 200, 6.0, 2)
    probe = fit_linear_probe(train, validation)
    assert (probe.score(test.chosen) > probe.score(test.rejected)).mean() > 0.98


def test_validation_pairs_choose_the_strength():
    train = make_pairs("train", 40, 1.0, 0, width=30)
    alike = make_pairs("validation", 200, 6.0, 1, width=30, noise=0.5)
    opposite = make_pairs("validation", 200, -6.0, 1, width=30, noise=0.5)
    assert fit_linear_probe(train, alike).strength > PROBE_STRENGTHS[0]
    # where every direction learnt is wrong, the weakest one loses least
    assert fit_linear_probe(train, opposite).strength == PROBE_STRENGTHS[0]


def test_probe_is_deterministic_and_blind_to_the_order_of_rows():
    train, validation = make_pairs("train", 50, 1.0, 0), make_pairs("validation", 20, 1.0, 1)
    order = np.random.default_rng(3).permutation(50)
    shuffled = PairFeatures(
        [train.pair_ids[i] for i in order],
        [train.groups[i] for i in order],
        *(getattr(train, name)[order] for name in ("chosen", "rejected", "chosen_length", "rejected_length")),
    )
    first, again = fit_linear_probe(train, validation), fit_linear_probe(shuffled, validation)
    assert first.direction.tobytes() == again.direction.tobytes()


def test_constant_features_are_harmless():
    train, validation = make_pairs("train", 50, 1.0, 0), make_pairs("validation", 20, 1.0, 1)
    for pairs in (train, validation):
        pairs.chosen[:, 3] = pairs.rejected[:, 3] = 7
    probe = fit_linear_probe(train, validation)
    assert np.isfinite(probe.direction).all()
    assert probe.direction[3] == 0
