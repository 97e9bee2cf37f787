"""The pass over the rows against explicit F and G, in blocks of every size and in both precisions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.backend import asarray, to_numpy
from coala_core.cvxnn import problem as problem_module
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.cvxnn.rows import RowPass
from tests.dense import dense_g, dense_pair, rows_of, stack_columns, unstack_columns
from tests.problems import on_device, random_problem

TAU2, RELAXATION, PENALTY = 0.3, 1.6, 0.7
ROWS, AXES, GATES = 46, 5, 3
KINDS = [(ConvexProblem, False), (ConvexProblem, True), (GatedProblem, False), (GatedProblem, True)]
each_kind = pytest.mark.parametrize(("kind", "paired"), KINDS)


def make(xp, kind, paired, rows=ROWS):
    """The problem on a library, and its twin on the host with explicit matrices."""
    x, y, h = random_problem(rows, AXES, GATES, 4)
    y = np.random.default_rng(0).standard_normal(rows // 2) if paired else y
    on_host = convex_problem(x, y, h, paired=paired, kind=kind)
    return on_device(on_host, xp), on_host


def random_state(problem, seed=1):
    """u (halves, d, P), s + nu as (halves, n, P), and a fit of no meaning."""
    rng = np.random.default_rng(seed)
    n, d, gates = problem.shape
    u = rng.standard_normal((problem.halves, d, gates))
    s_nu = rng.standard_normal((problem.halves, n if problem.cone_rows else 0, gates))
    return u, s_nu, rng.standard_normal(len(problem.labels))


def expected_pass(problem, u, s_nu):
    """What one sweep does to s + nu and to F u, and what it takes back, by explicit matrices."""
    f, g = dense_pair(problem)
    stacked, z = stack_columns(u), stack_columns(s_nu)
    s, nu = np.maximum(z, 0), np.minimum(z, 0)
    z = RELAXATION * g @ stacked + (1 - RELAXATION) * s + nu if len(g) else z
    fit = f @ stacked
    s, nu = np.maximum(z, 0), np.minimum(z, 0)
    pull = f.T @ (problem.labels - fit) / PENALTY + TAU2 * g.T @ (s - nu)
    halves, gates = problem.halves, problem.shape[2]
    return fit, unstack_columns(z, halves, gates), unstack_columns(pull, halves, gates)


def run(xp, problem, state, dtype, **options):
    """`advance` from a state: fit, s + nu, pull and change, on the host."""
    u, s_nu, fit = state
    u, s_nu, fit = asarray(u, xp), xp.array(asarray(rows_of(s_nu), xp, dtype)), xp.array(asarray(fit, xp, dtype))
    rows = RowPass(problem, TAU2, RELAXATION, dtype)
    pull, change = rows.advance(u, s_nu, fit, PENALTY, **options)
    assert (fit.dtype, s_nu.dtype, pull.dtype) == (dtype, dtype, np.float64)
    return to_numpy(fit), to_numpy(s_nu), to_numpy(pull), float(change)


@each_kind
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_advance_agrees_with_explicit_matrices(xp, kind, paired, dtype, tolerance):
    problem, on_host = make(xp, kind, paired)
    state = random_state(on_host)
    fit, z, pull = expected_pass(on_host, *state[:2])
    found = run(xp, problem, state, dtype)
    assert_allclose(found[0], fit, atol=tolerance * np.abs(fit).max())
    assert_allclose(found[1], rows_of(z), atol=tolerance * np.abs(z).max(initial=1.0))
    assert_allclose(found[2], pull, atol=tolerance * np.abs(pull).max())
    assert found[3] == pytest.approx(((fit - state[2]) ** 2).sum(), rel=tolerance)


@each_kind
@pytest.mark.parametrize("rows_a_block", [1, 7, 23, 1000])  # of 46 rows or 23 pairs: the last block is short, or whole
def test_blocks_of_any_size_give_the_same(xp, monkeypatch, kind, paired, rows_a_block):
    problem, on_host = make(xp, kind, paired)
    state = random_state(on_host)
    whole = run(xp, problem, state, np.float64)
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 8 * AXES * rows_a_block)
    # A cache is what blocks are for, so a device takes all rows at once.
    assert len(list(problem.blocks())) == (-(-len(on_host.labels) // rows_a_block) if xp is np else 1)
    for found, expected in zip(run(xp, problem, state, np.float64), whole, strict=True):
        assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max(initial=0.0))


def test_float32_takes_twice_the_rows_in_a_block_and_agrees(monkeypatch):
    problem, on_host = make(np, ConvexProblem, paired=True)
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 8 * AXES * 5)
    assert (problem.block_rows(np.float64), problem.block_rows(np.float32)) == (5, 10)
    state = random_state(on_host)
    _, _, pull = expected_pass(on_host, *state[:2])
    assert_allclose(run(np, problem, state, np.float32)[2], pull, atol=1e-5 * np.abs(pull).max())


@each_kind
def test_blocks_hold_every_row_once_with_its_sign(monkeypatch, kind, paired):
    problem, on_host = make(np, kind, paired)
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 8 * AXES * 9)
    matrix = np.zeros((len(problem.labels), ROWS))  # Delta, or the identity
    for block in problem.blocks():
        for rows, sign in block.slabs:
            matrix[np.arange(block.targets.start, block.targets.stop), np.arange(rows.start, rows.stop)] += sign
    assert_allclose(matrix, np.hstack([np.eye(23), -np.eye(23)]) if paired else np.eye(ROWS))


@each_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_the_way_back_the_rows_advance_alike(xp, kind, paired, dtype):
    problem, on_host = make(xp, kind, paired)
    state = random_state(on_host)
    there_and_back, there = run(xp, problem, state, dtype), run(xp, problem, state, dtype, back=False)
    for k in (0, 1, 3):
        assert_allclose(there[k], there_and_back[k], rtol=0)
    assert not there[2].any()


@each_kind
def test_the_way_back_alone_is_that_of_the_sweep_before(monkeypatch, kind, paired):
    problem, on_host = make(np, kind, paired)
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 8 * AXES * 9)
    u, s_nu, fit = random_state(on_host)
    s_nu = rows_of(s_nu)
    rows = RowPass(problem, TAU2, RELAXATION, np.float64)
    pull, _ = rows.advance(u, s_nu, fit, PENALTY)
    s_nu_before, fit_before = s_nu.copy(), fit.copy()
    assert_allclose(rows.pull(s_nu, fit, PENALTY), pull, rtol=1e-12)
    assert_allclose(s_nu, s_nu_before, rtol=0)
    assert_allclose(fit, fit_before, rtol=0)
    assert_allclose(rows.advance(u, s_nu, fit, PENALTY)[1], 0.0, atol=1e-20)  # the fit is u's already


@each_kind
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_adjoint_of_the_cones(xp, monkeypatch, kind, paired, dtype, tolerance):
    problem, on_host = make(xp, kind, paired)
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 8 * AXES * 9)
    _, s, _ = random_state(on_host)
    found = to_numpy(RowPass(problem, TAU2, RELAXATION, dtype).cone_adjoint(asarray(rows_of(s), xp, dtype)))
    assert found.shape == (on_host.halves, AXES, GATES)
    if kind is GatedProblem:
        assert not found.any()
    else:
        expected = unstack_columns(dense_g(on_host.features, on_host.patterns).T @ stack_columns(s), 2, GATES)
        assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
