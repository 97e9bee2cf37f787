"""The parts of `make bench-solver` that compute: objectives, fits, rows, bars."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from coala_core.cvxnn import Record
from tests.bench.solver.bars import judge
from tests.bench.solver.measure import Clock, Judge
from tests.bench.solver.ours import cost_per_sweep
from tests.bench.solver.report import number, show
from tests.bench.solver.results import Results, best_within, fit_growth, peer_row

BLANK = Record(
    sweep=0,
    primal_residual=0.0,
    dual_residual=0.0,
    penalty=1.0,
    objective=0.0,
    lower_bound=0.0,
    upper_bound=0.0,
    gap=0.0,
    cone_violation=0.0,
    refactorisations=1,
    bits=64,
)


def plain_objectives(x, y, gates, beta, v, w):
    """The same three figures, row by row and neuron by neuron."""
    network, convex, worst, largest = 0.0, 0.0, 0.0, 0.0
    for row, target in zip(x, y, strict=True):
        at_network = at_convex = 0.0
        for i in range(gates.shape[1]):
            gate = 1.0 if row @ gates[:, i] >= 0 else 0.0
            for sign, column in ((1.0, v[:, i]), (-1.0, w[:, i])):
                z = float(row @ column)
                at_network += sign * max(z, 0.0)
                at_convex += sign * gate * z
                worst, largest = max(worst, -(2 * gate - 1) * z), max(largest, abs(z))
        network += 0.5 * (at_network - target) ** 2
        convex += 0.5 * (at_convex - target) ** 2
    decay = beta * sum(math.sqrt(float(c @ c)) for part in (v, w) for c in part.T)
    return network + decay, convex + decay, worst / largest


def test_judge_agrees_with_plain_loops():
    rng = np.random.default_rng(0)
    x, gates, v, w = (rng.standard_normal(shape) for shape in ((7, 3), (3, 2), (3, 2), (3, 2)))
    y = np.sign(rng.standard_normal(7))
    found = Judge(x, y, gates, 0.7).relu(v, w)
    wanted = plain_objectives(x, y, gates, 0.7, v, w)
    assert (found["objective"], found["convex_objective"], found["cone_violation"]) == pytest.approx(wanted)


def test_the_two_objectives_agree_on_the_cones():
    # One row, one gate that is open there, v on its side: relu(x v) = x v = 2, so 1/2 (2 - 1)^2 + 3 * 2 = 6.5.
    found = Judge(np.array([[1.0]]), np.array([1.0]), np.array([[1.0]]), 3.0).relu(np.array([[2.0]]), np.zeros((1, 1)))
    assert found == {"objective": 6.5, "convex_objective": 6.5, "cone_violation": 0.0}


def test_a_gated_point_has_no_cones_to_leave():
    # The gate is open in the first row alone: prediction (2, 0), misfit (1, 1), so 1/2 (1 + 1) + 3 * 2 = 7.
    judge_ = Judge(np.array([[1.0], [-1.0]]), np.array([1.0, -1.0]), np.array([[1.0]]), 3.0)
    assert judge_.gated(np.array([[2.0]])) == {"objective": 7.0, "convex_objective": 7.0, "cone_violation": 0.0}


def test_a_paused_clock_stands_still(monkeypatch):
    now = iter([0.0, 1.0, 5.0, 6.0])  # made, paused, resumed, read
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock()
    with clock:
        pass
    assert clock.seconds() == 2.0  # 6 - 0, less the 4 between


def test_growth_finds_a_line():
    fit = fit_growth([10, 20, 40], [7.0, 12.0, 22.0])  # 2 + n / 2
    assert (fit["a_ms"], fit["b_ms_per_row"]) == pytest.approx((2.0, 0.5))
    assert fit["largest_deviation"] < 1e-12


def test_growth_tells_a_square_from_a_line():
    fit = fit_growth([1, 2, 4, 8], [1.0, 4.0, 16.0, 64.0])
    assert fit["exponent"] == pytest.approx(2.0)
    assert fit["largest_deviation"] > 0.15


def points():
    return [
        {"seconds": 1.0, "objective": 9.0, "convex_objective": 9.5, "cone_violation": 1e-1, "sweeps": 5},
        {"seconds": 2.0, "objective": 5.0, "convex_objective": 6.0, "cone_violation": 1e-4, "sweeps": 8},
        {"seconds": 9.0, "objective": 4.0, "convex_objective": 4.5, "cone_violation": 1e-2, "sweeps": 20},
    ]


def test_the_best_timely_point_wins():
    best = best_within(points(), 2.0)
    assert best is not None
    assert (best["objective"], best["objective_in_cones"], best["sweeps"]) == (5.0, 6.0, 8)
    late = best_within(points(), 10.0)
    assert late is not None
    assert (late["objective"], late["objective_in_cones"]) == (4.0, 6.0)  # the last one is outside the cones
    assert best_within(points(), 0.5) is None


def test_a_peers_gap_is_taken_from_our_lower_bound():
    key = {"problem": "S", "solver": "SCS", "lasso_weight": 1.0, "budget": "T"}
    row = peer_row(key, {"points": points(), "note": "done", "peak_mib": 7.0}, 2.0, 4.0, 150.0)
    assert row["gap"] == pytest.approx(1.0 / 5.0)
    assert (row["peak_mib"], row["note"], row["budget_s"]) == (7.0, "done", 2.0)


def test_a_peer_without_a_point_has_the_zero_network():
    key = {"problem": "S", "solver": "SCS", "lasso_weight": 1.0, "budget": "T"}
    row = peer_row(key, {"points": [], "failed": "killed"}, 2.0, 4.0, 150.0)
    assert (row["objective"], row["gap"], row["note"]) == (150.0, None, "none within T: killed")


def test_results_are_replaced_row_by_row(tmp_path):
    path = tmp_path / "solver.json"
    results = Results(path)
    row = {"problem": "M", "solver": "coala", "lasso_weight": 1.0, "tolerance": 1e-3, "budget": None}
    results.add([{**row, "seconds": 2.0}, {**row, "tolerance": 1e-4, "seconds": 3.0}])
    results.add([{**row, "seconds": 1.0}])
    results.skip("L", "absent")
    again = Results(path)
    assert sorted(kept["seconds"] for kept in again.content["rows"]) == [1.0, 3.0]
    assert again.content["skipped"] == {"L": "absent"}
    # A weight that is a share of a computed one differs in its last digits on another machine: the same row.
    again.add([{**row, "lasso_weight": 1.0 + 1e-7, "seconds": 0.5}, {**row, "lasso_weight": 1.1, "seconds": 0.6}])
    assert sorted(kept["seconds"] for kept in again.content["rows"]) == [0.5, 0.6, 3.0]
    again.drop("M", ["coala"])
    again.drop("L", [])
    again.put("machine", {"cores": 2})
    assert json.loads(path.read_text()) == {"rows": [], "sweep_cost": [], "skipped": {}, "machine": {"cores": 2}}


def test_a_sweeps_cost_leaves_factorisations_out():
    history = tuple(
        replace(BLANK, sweep=sweep, bits=bits, penalty=penalty)
        for sweep, bits, penalty in ((10, 32, 1.0), (20, 32, 2.0), (30, 32, 2.0), (40, 64, 2.0), (50, 64, 2.0))
    )
    swept = {10: 4.5, 20: 5.25, 30: 8.0, 40: 8.75, 50: 9.75}
    checked = {10: 5.0, 20: 5.5, 30: 8.5, 40: 9.0, 50: 10.0}
    costs = cost_per_sweep(swept, checked, history)
    # The penalty changed before sweep 20 and the precision before 40: 20 to 30 and 40 to 50 are left.
    float32, float64 = costs["float32"], costs["float64"]
    assert (float32["sweep_s"], float32["check_s"]) == pytest.approx((0.25, 0.5))  # (8.0 - 5.5) / 10, 8.5 - 8.0
    assert float32["sweep_and_share_of_check_s"] == pytest.approx(0.3)  # (8.5 - 5.5) / 10
    assert (float64["sweep_s"], float64["check_s"]) == pytest.approx((0.075, 0.25))
    assert (costs["float32"]["clean_intervals"], costs["float32"]["intervals"]) == (1, 2)


def test_a_sweep_is_timed_where_the_back_end_has_settled():
    # Sweeps of 0.1 s before sweep 20, of 0.3 s after it, when a dense system has taken over; checks take 0.5 s.
    swept = {10: 1.0, 20: 2.5, 30: 6.0, 40: 9.5}
    checked = {sweep: at + 0.5 for sweep, at in swept.items()}
    history = tuple(replace(BLANK, sweep=sweep) for sweep in swept)
    costs = cost_per_sweep(swept, checked, history)["float64"]
    assert (costs["sweep_s"], costs["median_sweep_s"]) == pytest.approx((0.3, 0.3))
    assert (costs["clean_intervals"], costs["intervals"]) == (3, 3)


def content():
    key = {"problem": "M", "lasso_weight": 30.0}
    figures = {"seconds": 7.0, "objective": 100.0, "gap": 1e-3, "sweeps": 40, "peak_mib": 90.0, "cone_violation": 9e-4}
    ours = {**key, **figures, "solver": "coala", "tolerance": 1e-3, "budget": None, "converged": True}
    peer = {**key, **figures, "solver": "SCS", "budget": "10T", "budget_s": 70.0, "objective": 109.0}
    return {"rows": [ours, peer], "sweep_cost": [], "skipped": {}, "bars": []}


def test_bars_hold_only_what_was_measured():
    time_bar, peer_bar = judge(content())
    assert (time_bar["figure"], time_bar["met"]) == (7.0, True)
    assert (peer_bar["figure"], peer_bar["met"]) == (1.09, False)  # within 10 %


@pytest.mark.parametrize("spoilt", [{"seconds": 8.1}, {"converged": False}, {"cone_violation": 2e-3}])
def test_a_bar_is_missed(spoilt):
    measured = content()
    measured["rows"][0].update(spoilt)
    assert not judge(measured)[0]["met"]


def test_the_tables_show_every_row(capsys):
    measured = content()
    measured["bars"] = judge(measured)
    measured["skipped"] = {"L": "needs a file"}
    show(measured)
    printed = capsys.readouterr().out
    assert "SCS" in printed
    assert "L was not measured: needs a file" in printed


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [(None, 4, "-"), (131_212, 4, "131,212"), (1234.5, 4, "1,234"), (56.31871, 7, "56.31871"), (0.00123, 2, "0.0012")],
)
def test_numbers(value, digits, written):
    assert number(value, digits) == written
