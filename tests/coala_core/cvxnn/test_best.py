import numpy as np
import pytest

from coala_core.config import SolveConfig
from coala_core.cvxnn.best import Best
from coala_core.cvxnn.certificate import Certificate
from coala_core.cvxnn.problem import convex_problem
from tests.problems import random_problem

CONFIG = SolveConfig(tolerance=1e-2, max_cone_violation=1e-3)
PROBLEM = convex_problem(*random_problem(20, 3, 2, 0))  # 20 labels of size 1: the zero head costs 10
POINT = np.zeros((2, 3, 2))


def offered(*points):
    """Hold what is left after offering (upper bound, cone violation, price) in turn, lower bound 1."""
    best = Best(PROBLEM, POINT, CONFIG)
    ends = [
        best.offer(POINT + mark, Certificate(1.0, upper, outside, price))
        for mark, (upper, outside, price) in enumerate(points, start=1)
    ]
    return best, int(best.point.flat[0]), ends


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([], 0),
        ([(11.0, 0.0, 0.0)], 0),  # worse than the zero head's 10
        ([(9.0, 0.0, 0.0), (8.0, 0.0, 0.0), (8.5, 0.0, 0.0)], 2),  # not merely the last one
        ([(9.0, 1e-3, 0.0), (5.0, 2e-3, 0.0)], 1),  # the lower one is too far outside the cones
        ([(5.0, 2e-3, 0.0), (9.0, 1e-3, 0.0)], 2),
        ([(5.0, 2e-3, 0.0)], 1),  # but better than nothing
        ([(8.0, 1e-4, 0.0), (7.5, 1e-3, 1.0)], 1),  # 7.5 + 1 for its violation
    ],
)
def test_the_best_acceptable_point_is_kept(points, kept):
    best, mark, ends = offered(*points)
    assert mark == kept
    assert best.certificate.upper_bound == (points[kept - 1][0] if kept else 10.0)
    assert not any(ends)


def test_bounds_gather_over_checks():
    best = Best(PROBLEM, POINT, CONFIG)
    for lower, expected in ((2.0, 2.0), (0.5, 2.0), (3.0, 3.0)):
        best.offer(POINT, Certificate(lower, 9.0, 0.0))
        assert best.certificate.lower_bound == expected


def test_proof_may_come_with_a_later_bound():
    # Gap of the first point with the second lower bound: (8 - 7.95) / 8 = 0.6 %, within 1 %.
    best = Best(PROBLEM, POINT, CONFIG)
    assert not best.offer(POINT + 1, Certificate(1.0, 8.0, 0.0))
    assert best.offer(POINT + 2, Certificate(7.95, 9.0, 0.0))
    assert (best.point == POINT + 1).all()


@pytest.mark.parametrize(
    ("certificate", "kept"),
    [
        (Certificate(9.95, 9.0, 0.5), 0),  # far outside the cones, but the bound proves the zero head
        (Certificate(9.0, 8.95, 1e-3, 0.01), 1),  # slightly below the bound, within both tolerances
        (Certificate(9.0, 8.95, 1e-3, 9.0), 0),  # its violation is worth too much
    ],
)
def test_what_counts_as_proven(certificate, kept):
    best = Best(PROBLEM, POINT, CONFIG)
    proven = best.offer(POINT + 1, certificate)
    assert proven == (kept == 1 or certificate.lower_bound == 9.95)
    assert bool(best.point.any()) == (kept == 1 or not proven)
