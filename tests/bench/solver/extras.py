"""What is measured of our solver alone: a sweep against its products, over the rows, and a path against cold solves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tests.bench.solver import children
from tests.bench.solver.problems import Problem, folder_of, load_meta
from tests.bench.solver.results import Results, fit_growth

INTERVALS = 8
"""Checks in a run whose sweeps are timed."""
CHECK_EVERY = 25
"""Sweeps between two checks, as by default."""
LIMIT = 900.0
PATH_SWEEPS = 20_000
PENALTY_RATIOS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Fixed penalties, per unit of lasso weight."""
PENALTY_TOLERANCE = 1e-3
MOST_SWEEPS = 2_000


def measure_costs(results: Results, problem: Problem) -> None:
    """Set a sweep beside its two products and the roofline, at every weight."""
    meta = load_meta(folder_of(problem))
    for weight in meta["weights"]:
        found = _sweeps(problem, weight, with_limits=True)
        if found is not None:
            _add_cost(results, {"problem": problem.name, "lasso_weight": weight, **found, **_shape(meta)})


def _shape(meta: dict[str, Any]) -> dict[str, int]:
    return {name: meta[name] for name in ("d", "gates")}


def _add_cost(results: Results, row: dict[str, Any]) -> None:
    """Add a row with its ratios."""
    for name, cost in row["costs"].items():
        limits = row["limits"][name]
        cost["over_products"] = cost["sweep_s"] / limits["products_s"]
        cost["with_check_over_products"] = cost["sweep_and_share_of_check_s"] / limits["products_s"]
        cost["over_roofline"] = cost["sweep_s"] / limits["roofline_s"]
    results.add([row], "sweep_cost")


def measure_growth(results: Results, problems: Sequence[Problem]) -> None:
    """Time a sweep at several numbers of rows and fit a line."""
    rows = [found for problem in problems if (found := _sweeps(problem, None, with_limits=False))]
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


def measure_penalty(results: Results, problems: Sequence[Problem]) -> None:
    """Count the sweeps with the penalty that adapts and with fixed ones."""
    rows = []
    for problem in problems:
        for weight in load_meta(folder_of(problem))["weights"]:
            task = {**_task(problem), "mode": "penalty", "weight": weight, "tolerance": PENALTY_TOLERANCE}
            found = children.call_ours({**task, "ratios": PENALTY_RATIOS, "max_sweeps": MOST_SWEEPS}, LIMIT)
            if "failed" in found:
                results.skip(f"penalty, {problem.name}", found["failed"])
                continue
            fixed = {ratio: count for ratio, count in found["fixed"].items() if count is not None}
            ratio = found["adaptive"] / min(fixed.values()) if found["adaptive"] and fixed else None
            rows.append({"problem": problem.name, "lasso_weight": weight, **found, "over_best_fixed": ratio})
    results.put("penalty", rows)


def _sweeps(problem: Problem, weight: float | None, *, with_limits: bool) -> dict[str, Any] | None:
    """Run the timed sweeps."""
    task = {
        **_task(problem),
        "mode": "sweeps",
        "weight": weight or load_meta(folder_of(problem))["weights"][0],
        "check_every": CHECK_EVERY,
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
