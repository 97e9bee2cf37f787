import math

import numpy as np
import pytest

from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import solve
from coala_core.cvxnn.continuation import LONGEST_STEP, Continuation
from coala_core.cvxnn.outcome import State, WarmStart
from coala_core.cvxnn.prepare import prepare
from coala_core.cvxnn.zero import zero_head_weight
from tests.problems import random_features

SHAPES = ((2, 3, 4), (2, 3, 4), (5, 8), (5,))


def end(seed: int, ratio: float, dtype: type[np.floating] = np.float64) -> WarmStart:
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal(shape) for shape in SHAPES]
    return WarmStart(State(parts[0], parts[1], parts[2].astype(dtype), parts[3].astype(dtype)), ratio)


def copies(start: WarmStart) -> list[np.ndarray]:
    return [part.copy() for part in start.state]


def test_the_first_start_is_cold_and_the_second_is_the_first_end() -> None:
    continuation, first = Continuation(), end(0, 2.0)
    assert continuation.start(8.0) is None
    continuation.add(8.0, first)
    assert continuation.start(4.0) is first
    continuation.forget()
    assert continuation.start(4.0) is None


@pytest.mark.parametrize(("weight", "step"), [(2.0, 1.0), (math.sqrt(8.0), 0.5), (0.01, LONGEST_STEP)])
def test_with_one_penalty_the_start_is_on_the_line_in_log_weight(weight: float, step: float) -> None:
    older, newer = end(0, 2.0), end(1, 2.0)
    behind, ahead = copies(older), copies(newer)
    continuation = Continuation()
    continuation.add(8.0, older)
    continuation.add(4.0, newer)
    start = continuation.start(weight)
    assert start is not None and start.penalty_ratio == 2.0
    for found, one, two in zip(start.state, behind, ahead, strict=True):
        np.testing.assert_allclose(found, two + step * (two - one), rtol=1e-12, atol=1e-12)


def test_duals_follow_the_newer_penalty() -> None:
    # v = 3 of length 3.5 with a threshold 1 / ratio = 1/2 leaves a dual of 1/2, a quarter of it under four times the
    # penalty per weight; nu = -8 becomes -2, s = 8 stays. A step of 1 then doubles the newer state less this.
    older = WarmStart(
        State(np.zeros((2, 1, 1)), np.array([[[3.5]], [[0.2]]]), np.array([[-8.0, 8.0]]), np.zeros(1)), 2.0
    )
    newer = WarmStart(State(*(np.zeros_like(part) for part in older.state)), 8.0)
    continuation = Continuation()
    continuation.add(8.0, older)
    continuation.add(4.0, newer)
    start = continuation.start(2.0)
    assert start is not None and start.penalty_ratio == 8.0
    np.testing.assert_allclose(start.state.v_lam.ravel(), [-(3.0 + 0.125), -0.05])
    np.testing.assert_allclose(start.state.s_nu.ravel(), [2.0, -8.0])


def test_an_older_end_in_single_precision_takes_a_newer_one_in_double() -> None:
    continuation = Continuation()
    continuation.add(8.0, end(0, 2.0, np.float32))
    continuation.add(4.0, end(1, 2.0))
    start = continuation.start(2.0)
    assert start is not None and start.state.s_nu.dtype == np.float32


def test_a_start_near_the_solution_costs_fewer_sweeps() -> None:
    features, labels = random_features(300, 12, 3)
    config = SolveConfig(gates=6, probe_gates=2, tolerance=1e-6, max_cone_violation=1e-6, check_every=5)
    prepared = prepare(features, labels, config, None, "fit_path", None)
    top = zero_head_weight(prepared.problem)
    sweeps = {}
    for name, continued in (("plain", False), ("line", True)):
        continuation, last, sweeps[name] = Continuation(), None, 0
        for share in 0.6 * 0.85 ** np.arange(8):
            start = continuation.start(share * top) if continued else last
            outcome = solve(prepared.problem, share * top, config, back_end=prepared.back_end, warm_start=start)
            continuation.add(share * top, outcome.warm_start)
            last, sweeps[name] = outcome.warm_start, sweeps[name] + outcome.sweeps
    assert sweeps["line"] < sweeps["plain"], sweeps
