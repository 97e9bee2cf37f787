"""Columns stretched to suit the multipliers, against the condition that their lengths must meet."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.cvxnn import looks
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.looks import Duals, Look, Pull
from coala_core.cvxnn.problem import ConvexProblem, column_norms, convex_problem
from tests.problems import on_device, random_problem

WEIGHT = 1.3
KINDS = [(ConvexProblem, False), (ConvexProblem, True), (GatedProblem, False), (GatedProblem, True)]


def make(kind, paired):
    x, y, h = random_problem(40, 4, 3, 2)
    problem = convex_problem(x, np.ones(20) if paired else y, h, paired=paired, kind=kind)
    rng = np.random.default_rng(0)
    point = rng.standard_normal((problem.halves, 4, 3))
    point[0, :, 1] = 0.0
    return problem, point, Duals(rng.standard_normal((problem.cone_rows, problem.halves * 3)), 0.2)


@pytest.mark.parametrize(("kind", "paired"), KINDS)
def test_stretched_columns_are_pulled_along_themselves_by_the_weight(xp, monkeypatch, kind, paired):
    # u_j'(F'r + G'mu)_j = beta ||u_j|| for every column is what makes the Lagrangian least over their lengths.
    monkeypatch.setattr(looks, "STIFFNESS", 1e-13)
    problem, point, duals = make(kind, paired)
    duals = Duals(asarray(duals.s_nu, xp), duals.scale)
    there, point = on_device(problem, xp), asarray(point, xp)
    stretched = Look(there, point, duals).stretched(WEIGHT)
    pull = Pull(there, duals, stretched, None)
    along = to_numpy((point * pull.of(0)).sum(axis=1))
    alive = to_numpy(column_norms(point)) > 0.0
    assert_allclose(along[alive], WEIGHT * to_numpy(column_norms(point))[alive], rtol=1e-6)
    # Directions are those of the point, and what is zero stays zero.
    unit = [to_numpy(u / xp.maximum(column_norms(u)[:, None, :], 1e-300)) for u in (point, stretched)]
    assert_allclose(np.abs((unit[0] * unit[1]).sum(axis=1)), alive.astype(float), atol=1e-12)


def test_a_column_that_hardly_counts_keeps_its_length():
    problem, point, duals = make(ConvexProblem, False)
    point[1, :, 2] *= 1e-5
    stretched = Look(problem, point, duals).stretched(WEIGHT)
    assert_allclose(stretched[1, :, 2], point[1, :, 2], rtol=1e-2)
    lengths = column_norms(stretched) / np.maximum(column_norms(point), 1e-300)
    assert np.abs(lengths - 1.0).max() > 0.1  # others do not


def test_the_zero_point_has_nothing_to_stretch():
    problem, point, duals = make(ConvexProblem, False)
    look = Look(problem, 0.0 * point, duals)
    assert not look.stretched(WEIGHT).any()
    assert float(look.square) == pytest.approx(float(problem.labels @ problem.labels))
    assert float(look.outside) == float(look.largest) == float(look.price) == 0.0


def test_any_vector_stands_for_a_residual():
    problem, point, duals = make(ConvexProblem, True)
    fit = np.random.default_rng(3).standard_normal(20).astype(np.float32)
    pull = Pull(problem, duals, point, fit)
    mu = np.stack(np.split(0.2 * np.maximum(-duals.s_nu, 0.0), 2, axis=1))
    for which, residual in enumerate((problem.labels - problem.apply_f(point), problem.labels - fit)):
        assert_allclose(pull.residuals[which], residual, atol=1e-12)
        expected = problem.apply_f_adjoint(residual) + problem.apply_g_adjoint(mu)
        assert_allclose(pull.of(which), expected, atol=1e-11)
    assert len(Pull(problem, duals, point, None).residuals) == 1
