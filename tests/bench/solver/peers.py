"""Other solvers on a prepared problem, one process each: `.venv-peers/bin/python -m tests.bench.solver.peers TASK`.

The task is JSON: folder, solver, lasso_weight, seconds (the budget, set-up included, reading the arrays and importing
excluded), dtype, memory_gib. The answer lists the points found with the seconds at which they were there.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

from tests.bench.solver import measure
from tests.bench.solver.peers_cvxpy import solve_with_cvxpy
from tests.bench.solver.peers_pyscnn import solve_with_pyscnn

SOLVERS = {
    "pyscnn AL": solve_with_pyscnn,
    "pyscnn R-FISTA": solve_with_pyscnn,
    "Clarabel": solve_with_cvxpy,
    "SCS": solve_with_cvxpy,
}


def limit_memory(gib: float) -> None:
    """Let allocations fail beyond so much, before the machine runs out."""
    limit = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Solve and tell what came of it; running out of memory is an outcome."""
    judge, gates = measure.load_judge(Path(task["folder"]), task["lasso_weight"])
    try:
        found = SOLVERS[task["solver"]](task, judge, gates)
    except MemoryError:
        found = {"points": [], "note": f"out of memory ({task['memory_gib']:.0f} GiB)"}
    return {**found, "peak_mib": measure.peak_mib()}


if __name__ == "__main__":
    _task = measure.read_task()
    limit_memory(_task["memory_gib"])
    measure.answer(run(_task))
