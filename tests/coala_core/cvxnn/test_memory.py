import tracemalloc
from functools import partial

import numpy as np
import pytest

from coala_core.backend import available_memory
from coala_core.cvxnn import direct
from coala_core.cvxnn.direct import DualDirect, PrimalDirect
from coala_core.cvxnn.memory import GIB, memory_limit, needed_bytes
from coala_core.cvxnn.pcg import Pcg
from coala_core.cvxnn.problem import convex_problem
from tests.problems import random_problem


def peak_of(kind, problem):
    """Most bytes that building, preparing for two penalties and taking steps ever held."""
    residual = np.random.default_rng(0).standard_normal(problem.shape[1:])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    back_end = kind(problem, 0.01)
    for rho in (1.0, 50.0):
        back_end.refactor(rho)
        back_end.apply(residual)
        back_end.apply(residual)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


def make(n, d, gates, paired):
    """A problem whose own copies, which every back end shares, are there."""
    x, y, h = random_problem(n, d, gates, 0)
    problem = convex_problem(x, y[: n // 2] if paired else y, h, paired=paired)
    assert problem.single.column_signs.shape == problem.column_signs.shape == (n, 2 * gates)
    return problem


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(
    ("kind", "name", "n", "d", "gates"),
    [
        (DualDirect, "dual", 1200, 40, 6),
        (DualDirect, "dual", 600, 100, 3),
        (PrimalDirect, "primal", 1200, 40, 20),
        (PrimalDirect, "primal", 2000, 25, 40),
    ],
)
def test_estimate_agrees_with_what_is_allocated(monkeypatch, paired, kind, name, n, d, gates):
    monkeypatch.setattr(direct, "SINGLE_FROM", 10**6)  # the estimate is of an inverse in float64
    problem = make(n, d, gates, paired)
    assert needed_bytes(name, problem) == pytest.approx(peak_of(kind, problem), rel=0.2)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("accuracy", [None, 0.2])
@pytest.mark.parametrize(("n", "d", "gates"), [(6000, 40, 5), (2000, 100, 20), (500, 200, 50)])
def test_estimate_of_the_preconditioner_covers_what_is_allocated(paired, accuracy, n, d, gates):
    problem = make(n, d, gates, paired)
    # Blocks of rows are read from memory here, and copied where they come from a file.
    assert peak_of(partial(Pcg, accuracy=accuracy), problem) <= needed_bytes("pcg", problem)


def test_limit_is_the_configured_one_or_half_of_what_is_available():
    assert memory_limit(2.5, np) == 2.5 * 1024**3
    # 100 MiB of free memory may come and go between the two looks.
    assert memory_limit(None, np) == pytest.approx(available_memory(np) / 2, abs=0.1 * GIB)
    assert 2**20 < available_memory(np) < 2**50
