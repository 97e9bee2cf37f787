"""What is measured of our solver alone: a sweep against its products, over the rows, and a path against cold solves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tests.bench.solver import children
from tests.bench.solver.problems import Problem, folder_of, load_meta
from tests.bench.solver.results import Results, fit_growth

INTERVALS = 6
"""Checks in a run whose sweeps are timed."""
LIMIT = 900.0
PATH_SWEEPS = 20_000


def measure_cost(results: Results, problem: Problem) -> None:
    """Set a sweep beside its two products and the roofline."""
    found = _sweeps(problem, with_limits=True)
    if found is None:
        return
    meta = load_meta(folder_of(problem))
    row = {"problem": problem.name, **found, "d": meta["d"], "gates": meta["gates"]}
    for name, cost in found["costs"].items():
        limits = found["limits"][name]
        cost["over_products"] = cost["sweep_s"] / limits["products_s"]
        cost["over_roofline"] = cost["sweep_s"] / limits["roofline_s"]
    results.add([row], "sweep_cost")


def measure_growth(results: Results, problems: Sequence[Problem]) -> None:
    """Time a sweep at several numbers of rows and fit a line."""
    rows = [found for problem in problems if (found := _sweeps(problem, with_limits=False))]
    if len(rows) < 3:
        return
    common = set.intersection(*(set(row["costs"]) for row in rows))
    sizes = [row["n"] for row in rows]
    fits = {name: fit_growth(sizes, [1e3 * row["costs"][name]["sweep_s"] for row in rows]) for name in sorted(common)}
    results.put("growth", {"rows": rows, "fits": fits})


def measure_path(results: Results, problem: Problem) -> None:
    """Time ten weights in a path, and three of them cold."""
    task = {**_task(problem), "mode": "path", "max_sweeps": PATH_SWEEPS}
    found = children.call_ours(task, LIMIT)
    if "failed" in found:
        results.skip("path", found["failed"])
        return
    results.put("path", found)


def _sweeps(problem: Problem, *, with_limits: bool) -> dict[str, Any] | None:
    """Run the timed sweeps."""
    task = {
        **_task(problem),
        "mode": "sweeps",
        "weight": load_meta(folder_of(problem))["weights"][0],
        "check_every": problem.checked_sweeps,
        "intervals": INTERVALS,
        "limits": with_limits,
    }
    found = children.call_ours(task, LIMIT)
    if "failed" in found:
        sys.stderr.write(f"{problem.name}: sweeps were not timed: {found['failed']}\n")
        return None
    return found


def _task(problem: Problem) -> dict[str, Any]:
    """Return what every task on a problem holds."""
    return {
        "folder": str(folder_of(problem)),
        "backend": "cupy" if problem.device else "numpy",
        "streamed": problem.streamed,
    }
