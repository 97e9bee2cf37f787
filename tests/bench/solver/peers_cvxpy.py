"""CVXPY with Clarabel and with SCS on the ReLU program, stated as it is written."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bench.solver.measure import Clock, Floats, Judge

SCS_ACCURACY = 1e-7


def solve_with_cvxpy(task: dict[str, Any], judge: Judge, gates: Floats) -> dict[str, Any]:
    """State, compile and solve; the solver gets the seconds that stating and compiling have left."""
    import cvxpy as cp

    clock = Clock()
    problem, v, w = _state(cp, judge)
    name = task["solver"].upper()
    # An iterate that time cut short is a point too.
    data, chain, inverse = problem.get_problem_data(name, solver_opts={"accept_unknown": True})
    compiled = clock.seconds()
    left = task["seconds"] - compiled
    note = f"compiling took {compiled:.1f} s"
    if left <= 0.0:
        return {"points": [], "note": f"{note}, longer than the budget"}
    options: dict[str, Any] = {"time_limit": left}
    if name == "SCS":
        options = {
            "time_limit_secs": left,
            "eps_abs": SCS_ACCURACY,
            "eps_rel": SCS_ACCURACY,
            "max_iters": 10**9,
        }
    raw = chain.solve_via_data(problem, data, False, False, options)
    seconds = clock.seconds()
    try:
        problem.unpack_results(raw, chain, inverse)
    except cp.error.SolverError as error:
        return {"points": [], "note": f"{note}, {type(error).__name__}"}
    if v.value is None:
        return {"points": [], "note": f"{note}, status {problem.status}"}
    sweeps = problem.solver_stats.num_iters
    shape = gates.shape[::-1]  # (P, d)
    found = judge.relu(v.value.reshape(shape).T, w.value.reshape(shape).T)
    return {"points": [{"seconds": seconds, "sweeps": sweeps, **found}], "note": f"{note}, {problem.status}"}


def _state(cp: Any, judge: Judge) -> tuple[Any, Any, Any]:
    """Write down the program in v and w, both (P d,)."""
    d, gates = judge.x.shape[1], judge.patterns.shape[1]
    v, w = cp.Variable(d * gates), cp.Variable(d * gates)
    forward = np.hstack([pattern[:, None] * judge.x for pattern in judge.patterns.T])  # F~, (n, d P)
    decay, cones = [], []
    for gate, pattern in enumerate(judge.patterns.T):
        signed = (2.0 * pattern - 1.0)[:, None] * judge.x  # E_i X
        for half in (v, w):
            part = half[gate * d : (gate + 1) * d]
            decay.append(cp.norm(part))
            cones.append(signed @ part >= 0)
    loss = 0.5 * cp.sum_squares(forward @ (v - w) - judge.labels)
    return cp.Problem(cp.Minimize(loss + judge.lasso_weight * cp.sum(cp.hstack(decay))), cones), v, w
