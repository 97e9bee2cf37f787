import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import linear
from coala_core.cvxnn.admm import solve
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.linear import Switching, choose_back_end
from coala_core.cvxnn.memory import GIB, needed_bytes
from coala_core.cvxnn.pcg import Pcg
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
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


def test_auto_falls_to_conjugate_gradients_where_a_dense_system_does_not_fit():
    problem = convex_problem(*random_problem(400, 20, 20, 0))
    needed = {name: needed_bytes(name, problem) for name in ("primal", "dual", "pcg")}
    assert needed["pcg"] < min(needed["primal"], needed["dual"])
    assert type(choose_back_end(problem, 1.0, "auto", needed["pcg"] / GIB)) is Pcg
    assert type(choose_back_end(problem, 1.0, "auto", needed["dual"] / GIB)) is not Pcg


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        # 16 * 60,000^2 + 8 * 60,000 * 500 + 4 * 60,000 * 10 bytes; pcg 4 * 60,000 * 510 + 16 * 600,000 + 104 * 5,000.
        ("dual", 1.0, r"must fit into 1 GiB, got 60000 rows, 500 axes and 10 gates that need 53\.9 GiB; set "
                      r"`solve.linear` to 'pcg', which needs 0\.123 GiB"),
        # 8 * 5,000^2 + 16 * 60,000 * 500 + 24 * 600,000 bytes: one matrix, two copies of X.
        ("primal", 0.2, r"'primal'\)` must fit into 0\.2 GiB, .* need 0\.647 GiB; set `solve.linear` to 'pcg'"),
        ("pcg", 0.01, r"'pcg'\)` must fit into 0\.01 GiB, .*; lower `solve.gates`, or raise `solve.max_memory_gib`"),
        ("auto", 0.01, r"'pcg'\)` must fit into 0\.01 GiB, .* raise `solve.max_memory_gib`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_allocated(name, limit, message):
    problem = hollow_problem(60_000, 500, 10)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        choose_back_end(problem, 1.0, name, limit)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def switching(problem, worth):
    """A switching back end and the list of direct ones that it built."""
    built = []

    def build():
        built.append(DualDirect(problem, 0.1))
        return built[-1]

    return Switching(Pcg(problem, 0.1), build, worth), built


def test_switch_happens_when_steps_cost_more_than_a_factorisation_and_keeps_the_penalty():
    problem = convex_problem(*random_problem(80, 6, 5, 1))
    back_end, built = switching(problem, worth=1.5)
    rng = np.random.default_rng(0)
    back_end.refactor(0.3)
    rights = rng.standard_normal((linear.PATIENCE + 2, 2, 6, 5))
    for k, right in enumerate(rights, start=1):
        u = back_end.solve(right)
        assert len(built) == (k >= linear.PATIENCE)
    exact = DualDirect(problem, 0.1)
    exact.refactor(0.3)
    assert_allclose(u, exact.solve(rights[-1]), rtol=1e-8, atol=1e-10)


def test_cheap_steps_do_not_switch():
    problem = convex_problem(*random_problem(80, 6, 5, 1))
    back_end, built = switching(problem, worth=50.0)
    back_end.refactor(0.3)
    for right in np.random.default_rng(0).standard_normal((20, 2, 6, 5)):
        back_end.solve(right)
    assert not built


def test_the_choice_at_the_sizes_of_the_benchmark():
    # M: 4,000 rows, 576 axes, 10 gates: steps first. Real features: 2,400 rows, 50 gates: a factorisation at once.
    assert linear._steps_worth("dual", hollow_problem(4000, 576, 10)) > linear.USUAL_STEPS
    assert linear._steps_worth("dual", hollow_problem(2400, 577, 50)) < linear.USUAL_STEPS
    # L: 131,212 rows, 769 axes: 0.5 n (dP)^2 = 3.9e12 operations of set-up, 4e9 in a step, so 6.5 steps for the set-up.
    assert 2 * linear.USUAL_STEPS < linear._steps_worth("primal", hollow_problem(131_212, 769, 10)) < 8
    assert linear._steps_worth("dual", hollow_problem(131_212, 769, 10)) > 1000
