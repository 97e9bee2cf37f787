import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import linear
from coala_core.cvxnn.admm import cone_scale_squared, solve
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.linear import Switching, choose_back_end
from coala_core.cvxnn.memory import GIB, needed_bytes
from coala_core.cvxnn.outcome import Status
from coala_core.cvxnn.pcg import ACCURACY, WINDOW, Pcg
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.cvxnn.zero import zero_head_weight
from tests.dense import dense_system, optimum
from tests.problems import random_problem


def hollow_problem(n, d, gates):
    """A problem of any size that takes no memory: every array is one number seen many times."""
    one = np.ones(1)
    shapes = {"features": (n, d), "labels": (n,), "patterns": (n, gates), "spectrum": (d,), "axes": (d, d)}
    return ConvexProblem(**{name: np.broadcast_to(one, shape) for name, shape in shapes.items()})


def test_a_small_problem_gets_the_cheaper_dense_system():
    assert isinstance(choose_back_end(convex_problem(*random_problem(100, 60, 20, 0)), 1.0), DualDirect)
    assert isinstance(choose_back_end(convex_problem(*random_problem(400, 5, 4, 0)), 1.0), PrimalDirect)


@pytest.mark.parametrize(("name", "kind"), [("primal", PrimalDirect), ("dual", DualDirect), ("pcg", Pcg)])
def test_every_back_end_can_be_had_by_name(name, kind):
    problem = convex_problem(*random_problem(40, 5, 4, 0))
    assert type(choose_back_end(problem, 1.0, name)) is kind
    config = SolveConfig(linear=name, tolerance=1e-4)
    assert solve(problem, 1.0, config).certificate.upper_bound == pytest.approx(
        solve(problem, 1.0, SolveConfig(tolerance=1e-4)).certificate.upper_bound, rel=2e-4
    )


def test_auto_gives_way_to_several_steps_where_no_dense_system_fits():
    problem = convex_problem(*random_problem(400, 20, 20, 0))
    needed = {name: needed_bytes(name, problem) for name in ("primal", "dual", "pcg")}
    assert needed["pcg"] < needed["dual"] < needed["primal"]
    lean = choose_back_end(problem, 1.0, "auto", needed["pcg"] / GIB)
    assert isinstance(lean, Switching)
    assert (lean.pcg.accuracy, lean.other().accuracy) == (None, ACCURACY)
    roomy = choose_back_end(problem, 1.0, "auto", needed["dual"] / GIB)
    assert isinstance(roomy, DualDirect) or isinstance(roomy.other(), DualDirect)


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        # 16 * 60,000^2 + 8 * 60,000 * 500 + 4 * 60,000 * 10 bytes; pcg: blocks of 16 MiB / 4,000 bytes
        # = 4,194 rows, 16 * 4,194 * 510 + 8 * (13 * 5,000 + 10^2) bytes.
        ("dual", 1.0, r"must fit into 1 GiB, got 60000 rows, 500 axes and 10 gates that need 53\.9 GiB; set "
                      r"`solve.linear` to 'pcg', which needs 0\.0324 GiB"),
        # 8 * 5,000^2 + 16 * 60,000 * 500 + 24 * 600,000 bytes: one matrix, two copies of X.
        ("primal", 0.2, r"'primal'\)` must fit into 0\.2 GiB, .* need 0\.647 GiB; set `solve.linear` to 'pcg'"),
        ("pcg", 0.01, r"'pcg'\)` must fit into 0\.01 GiB, .*; lower `solve.gates`, or raise `solve.max_memory_gib`"),
        ("auto", 0.01, r"'pcg'\)` must fit into 0\.01 GiB, .* raise `solve.max_memory_gib`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_allocated(name, limit, message):
    problem = hollow_problem(60_000, 500, 10)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            choose_back_end(problem, 1.0, name, limit)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def switching(problem):
    """A switching back end and the list of direct ones that it built."""
    built = []

    def build():
        built.append(DualDirect(problem, 0.1))
        return built[-1]

    return Switching(Pcg(problem, 0.1), build), built


def sweep(back_end, residual, curvature):
    """One sweep's step, whose ||F~ step||^2 makes its curvature a given share of what M has along it."""
    step = back_end.apply(residual)
    own, coupled = back_end.pcg.preconditioner.energies(back_end.pcg.last_step)
    strength, coupled = 2.0 / back_end.penalty, float(back_end.pcg.preconditioner.scale) * coupled
    back_end.observe((curvature * (own + strength * coupled) - own) / strength)
    return step


@pytest.mark.parametrize(
    ("poor", "good", "switches"),
    # The median of ten: of six or more poor ones poor; of five and five their mean, (0.01 + 0.9) / 2 = 0.46, is not.
    [(10, 0, True), (6, 4, True), (5, 5, False), (0, 10, False)],
)
def test_switch_where_the_median_curvature_of_a_window_is_poor(poor, good, switches):
    problem = convex_problem(*random_problem(80, 6, 5, 1))
    back_end, built = switching(problem)
    back_end.refactor(0.003)  # the coupling is strong: H alone is 1 / 1,000 of M
    rng = np.random.default_rng(0)
    curvatures = rng.permutation([0.01] * poor + [0.9] * good)
    for curvature in np.tile(curvatures, linear.PATIENCE):
        assert not built
        sweep(back_end, rng.standard_normal((6, 5)), curvature)
    assert (back_end.current is not back_end.pcg) == switches == bool(built)


@pytest.mark.parametrize("share", [0.99, 1.01])
def test_what_counts_as_poor(share):
    back_end, built = switching(convex_problem(*random_problem(80, 6, 5, 1)))
    back_end.refactor(0.003)
    for residual in np.random.default_rng(0).standard_normal((2 * linear.PATIENCE * WINDOW, 6, 5)):
        if not built:
            sweep(back_end, residual, share * linear.POOR)
    assert bool(built) == (share < 1)


def test_a_switch_keeps_the_penalty_and_the_next_step_is_exact():
    problem = convex_problem(*random_problem(80, 6, 5, 1))
    back_end, built = switching(problem)
    back_end.refactor(0.003)
    residual = np.random.default_rng(0).standard_normal((6, 5))
    for _ in range(linear.PATIENCE * WINDOW):
        sweep(back_end, residual, 0.01)
    for rho in (0.003, 0.1):  # and it follows the next one
        expected = np.linalg.solve(dense_system(problem, 0.1, rho), residual.T.ravel()).reshape(5, 6).T
        assert_allclose(back_end.apply(residual), expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
        back_end.observe(np.asarray(0.0))
        back_end.refactor(0.1)
    assert len(built) == 1


def test_poor_windows_must_follow_one_another():
    back_end, built = switching(convex_problem(*random_problem(80, 6, 5, 1)))
    back_end.refactor(0.003)
    residual = np.random.default_rng(0).standard_normal((6, 5))
    for curvature in (0.01, 0.9, 0.01, 0.9):
        for _ in range(WINDOW):
            sweep(back_end, residual, curvature)
    assert not built


def test_a_change_of_the_penalty_begins_a_new_window():
    back_end, built = switching(convex_problem(*random_problem(80, 6, 5, 1)))
    residual = np.random.default_rng(0).standard_normal((6, 5))
    for rho in (0.003, 0.004):
        back_end.refactor(rho)
        for _ in range(WINDOW - 1):
            sweep(back_end, residual, 0.01)
    assert not built


def test_auto_switches_to_a_dense_system_in_a_solve_with_many_gates_on_few_rows(monkeypatch):
    monkeypatch.setattr(linear, "CHEAP", 0.0)  # where a dense system would be too much at once
    problem = convex_problem(*random_problem(40, 30, 30, 0))
    weight = 0.022 * zero_head_weight(problem)  # the last of the usual path
    back_end = choose_back_end(problem, cone_scale_squared(problem))
    # Measured: 150 sweeps of the dense system alone; one step of the preconditioner a sweep stalls at a gap of 20 %.
    config = SolveConfig(penalty=1.0, tolerance=1e-3, max_sweeps=500)
    found = solve(problem, weight, config, back_end=back_end)
    assert isinstance(back_end.current, DualDirect)
    assert found.status is Status.CONVERGED
    expected, _ = optimum(problem.features, problem.labels, problem.patterns, weight)
    assert found.certificate.lower_bound <= expected * (1 + 1e-7)
    assert found.certificate.upper_bound == pytest.approx(expected, rel=2e-3)


# Operations relative to the two products of a sweep, 16 n d P (8 n d P if gated):
# primal: ((n (dP)^2 / 2 + 4 * 0.8 (dP)^3) / 300 + 0.8 (dP)^2) / products, and
# dual: ((2 n^2 d + 4 * 0.8 n^3) / 300 + products / 2 + 0.8 n^2) / products.
@pytest.mark.parametrize(
    ("size", "name", "cost"),
    [
        # M, products 3.686e8: ((1.843e10 + 2.048e11) / 300 + 1.843e8 + 1.28e7) / 3.686e8
        ((4000, 576, 10), "dual", 2.553),
        # and by unknowns: ((0.5 * 4000 * 5760^2 + 3.2 * 5760^3) / 300 + 0.8 * 5760^2) / 3.686e8
        ((4000, 576, 10), "primal", 6.20),
        # book2dial, products 8.900e8: ((4.290e9 + 2.293e10) / 300 + 4.450e8 + 2.97e6) / 8.900e8
        ((1928, 577, 50), "dual", 0.605),
        # S, products 5.04e5: ((1.654e6 + 3.704e6) / 300 + 8.82e3) / 5.04e5
        ((300, 21, 5), "primal", 0.0529),
        # and by rows: ((3.78e6 + 8.64e7) / 300 + 2.52e5 + 7.2e4) / 5.04e5
        ((300, 21, 5), "dual", 1.239),
    ],
)
def test_cost_of_a_dense_system_by_hand(size, name, cost):
    assert linear.relative_cost(name, hollow_problem(*size)) == pytest.approx(cost, rel=2e-3)


class Recorded(Pcg):
    """A preconditioner of nothing."""

    def __init__(self, problem, cone_scale_squared, accuracy=None):
        self.accuracy = accuracy


@pytest.fixture
def recorded(monkeypatch):
    """Names of the dense back ends that are built, of which none is."""
    names = []
    for name, kind in (("primal", "PrimalDirect"), ("dual", "DualDirect")):
        monkeypatch.setattr(linear, kind, lambda problem, scale, name=name: names.append(name))
    monkeypatch.setattr(linear, "Pcg", Recorded)
    return names


@pytest.mark.parametrize(("size", "name"), [((300, 21, 5), "primal"), ((1928, 577, 50), "dual")])
def test_a_cheap_dense_system_is_taken_at_once(recorded, size, name):
    choose_back_end(hollow_problem(*size), 1.0, max_memory_gib=8.0)
    assert recorded == [name]


@pytest.mark.parametrize(
    ("size", "gib", "name"),
    [
        ((4000, 576, 10), 8.0, "dual"),  # M: 2.55 against 6.2 of the primal system
        # 8,000 rows of the dual system would need 16 * 8,000^2 + 8 * 8,000 * 21 bytes = 0.96 GiB; primal fits, at
        # ((0.5 * 8000 * 1050^2 + 3.2 * 1050^3) / 300 + 0.8 * 1050^2) / (16 * 8000 * 1050) = 2.79e7 / 1.344e8 = 0.21.
        ((8000, 21, 50), 0.5, None),
        # L: the primal set-up alone is 0.5 * 131,212 * 7,690^2 / 300 of 16 * 131,212 * 7,690 operations: 0.8; with four
        # inversions of 7,690 it is 1.1, and the dual system of 131,212 rows is 257 GiB.
        ((131_212, 769, 10), 8.0, "primal"),
        # Neither fits: several steps.
        ((131_212, 769, 10), 0.5, "pcg"),
        # As many rows as unknowns, 60,000: 3.2 * 60,000^3 / 300 of 16 * 60,000^2 operations, 40; not worth it.
        ((60_000, 600, 100), 100.0, "pcg"),
    ],
)
def test_what_the_preconditioner_would_give_way_to(recorded, size, gib, name):
    back_end = choose_back_end(hollow_problem(*size), 1.0, max_memory_gib=gib)
    if name is None:
        assert recorded == ["primal"]
        return
    assert (type(back_end), recorded, back_end.pcg.accuracy) == (Switching, [], None)
    other = back_end.other()
    assert recorded == ([] if name == "pcg" else [name])
    if name == "pcg":
        assert other.accuracy == ACCURACY
