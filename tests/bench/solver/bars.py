"""The bars that the figures have to clear, each with the figure and whether it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.bench.solver.results import Row

OURS = "coala"
SECONDS_ON_M = {1e-3: 8.0, 1e-4: 15.0}
AHEAD = 1.1
"""No peer within 10 % of our objective in ten times our time."""
SAME_OPTIMUM = 1e-5
PEAK_ON_L_MIB = 3 * 1024
OVER_PRODUCTS = 1.5
ADAPTIVE_OVER_FIXED = 2.0
LINEAR = 0.15
"""Largest relative deviation from a straight line."""


def judge(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every bar whose figures are there: bar, figure, limit, met."""
    rows = content["rows"]
    found = [*_time_on_m(rows), *_peers_on_m(rows), *_optimum_on_s(rows), *_memory_on_l(rows)]
    for cost in content["sweep_cost"]:
        if cost["problem"] in ("M", "L"):
            for name, figures in cost["costs"].items():
                weight = f"{cost['lasso_weight']:.4g}"
                bar = f"{cost['problem']}, weight {weight}: sweep over its two products, {name}"
                found.append(_bar(bar, figures["over_products"], OVER_PRODUCTS))
    for row in content.get("penalty", []):
        bar = (
            f"{row['problem']}, weight {row['lasso_weight']:g}: sweeps with the penalty that adapts over the best fixed"
        )
        found.append(_bar(bar, row["over_best_fixed"], ADAPTIVE_OVER_FIXED))
    if "path" in content:
        path = content["path"]
        found.append(
            _bar(
                "M: seconds of ten weights in a path over three cold ones", path["seconds"] / path["cold_seconds"], 1.0
            )
        )
    for name, fit in content.get("growth", {"fits": {}})["fits"].items():
        found.append(_bar(f"cost of a sweep, {name}: deviation from a line in n", fit["largest_deviation"], LINEAR))
    return found


def _bar(bar: str, figure: float | None, limit: float, *, met: bool | None = None) -> dict[str, Any]:
    """State one bar; a figure is to stay at or below its limit unless `met` says otherwise."""
    is_met = figure is not None and figure <= limit if met is None else met
    return {"bar": bar, "figure": figure, "limit": limit, "met": is_met}


def _of(rows: list[Row], **wanted: Any) -> Iterator[Row]:
    """Rows with these values."""
    return (row for row in rows if all(row.get(name) == value for name, value in wanted.items()))


def _time_on_m(rows: list[Row]) -> Iterator[dict[str, Any]]:
    for tolerance, limit in SECONDS_ON_M.items():
        for row in _of(rows, problem="M", solver=OURS, tolerance=tolerance):
            in_cones = row["converged"] and row["cone_violation"] <= tolerance
            name = f"M, weight {row['lasso_weight']:g}: seconds to certified gap {tolerance:g}"
            yield _bar(name, row["seconds"], limit, met=in_cones and row["seconds"] <= limit)


def _peers_on_m(rows: list[Row]) -> Iterator[dict[str, Any]]:
    for row in _of(rows, problem="M", budget="10T"):
        if row["solver"] == "pyscnn R-FISTA":  # solves the gated program
            continue
        for own in _of(rows, problem="M", solver=OURS, tolerance=1e-3, lasso_weight=row["lasso_weight"]):
            ratio = row["objective"] / own["objective"]
            name = f"M, weight {row['lasso_weight']:g}: {row['solver']}'s objective in 10 T over ours"
            yield _bar(name, ratio, AHEAD, met=ratio > AHEAD)


def _optimum_on_s(rows: list[Row]) -> Iterator[dict[str, Any]]:
    for row in _of(rows, problem="S", solver="Clarabel", budget="enough"):
        for own in _of(rows, problem="S", solver=OURS, tolerance=1e-6, lasso_weight=row["lasso_weight"]):
            if row["gap"] is not None:
                difference = abs(own["convex_objective"] - row["convex_objective"]) / abs(row["convex_objective"])
                yield _bar(
                    f"S, weight {row['lasso_weight']:g}: distance to Clarabel's optimum", difference, SAME_OPTIMUM
                )


def _memory_on_l(rows: list[Row]) -> Iterator[dict[str, Any]]:
    for row in _of(rows, problem="L", solver=OURS):
        name = f"L, weight {row['lasso_weight']:.0f}: MiB to certified gap {row['tolerance']:g}"
        is_met = row["converged"] and row["peak_mib"] < PEAK_ON_L_MIB
        yield _bar(name, row["peak_mib"], PEAK_ON_L_MIB, met=is_met)
