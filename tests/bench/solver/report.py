"""The tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.solver.problems import PROBLEMS
from tests.bench.solver.results import Row

_WIDTH = 170


def show(content: dict[str, Any]) -> None:
    """Print everything that was measured, in this run or before."""
    console = Console(width=_WIDTH)
    console.print(f"convex solver and peers, {content.get('machine', {}).get('cores')} threads")
    console.print(_rows_table(content["rows"]))
    if content["sweep_cost"]:
        console.print(
            "cost of a sweep after set-up, best interval between two checks", _cost_table(content["sweep_cost"])
        )
    if "growth" in content:
        console.print("cost of a sweep over the number of rows", _growth_table(content["growth"]))
    if "path" in content:
        path = content["path"]
        cold = ", ".join(f"{row['weight']:.4g} in {row['seconds']:.1f} s" for row in path["cold"])
        console.print(f"path of {path['weights']} weights {path['seconds']:.1f} s; cold: {cold}")
    if content.get("penalty"):
        console.print(
            "sweeps to 1e-3 with the penalty that adapts, and with fixed ones", _penalty_table(content["penalty"])
        )
    if content["bars"]:
        console.print("bars", _bars_table(content["bars"]))
    for problem, why in content["skipped"].items():
        console.print(f"[bold]{problem} was not measured[/bold]: {why}")


def _rows_table(rows: list[Row]) -> Table:
    """One line per problem, weight, solver and tolerance or budget."""
    names = ("problem", "weight", "solver", "to", "seconds", "objective", "in cones", "gap", "cone", "sweeps", "MiB")
    table = _table((*names, "note"))
    for row in sorted(rows, key=_place):
        inside = row.get("objective_in_cones") if row.get("budget") else row.get("convex_objective")
        goal = f"{row['tolerance']:.0e}" if row.get("tolerance") else f"{row['budget']} {number(row.get('budget_s'))} s"
        table.add_row(
            row["problem"],
            number(row["lasso_weight"]),
            row["solver"],
            goal,
            number(row["seconds"]),
            number(row["objective"], 7),
            number(inside, 7),
            number(row["gap"], 2),
            number(row.get("cone_violation"), 2),
            number(row["sweeps"]),
            number(row["peak_mib"]),
            (row.get("note") or row.get("status") or "")[:48],
        )
    return table


def _place(row: Row) -> tuple[int, float, bool]:
    """Order rows by problem and weight, gated ones last; equals keep their order."""
    gated = "gated" in row["solver"] or row["solver"] == "pyscnn R-FISTA"
    return list(PROBLEMS).index(row["problem"]), row["lasso_weight"], gated


def _cost_table(rows: list[Row]) -> Table:
    """Sweeps against products and roofline."""
    names = (
        "problem",
        "weight",
        "n",
        "d",
        "P",
        "precision",
        "sweep ms",
        "products ms",
        "ratio",
        "check ms",
        "ratio with its share",
        "roofline ms",
        "ratio",
    )
    table = _table((*names, "copy GB/s", "matmul GFLOP/s"))
    for row in rows:
        for precision, cost in row["costs"].items():
            limits = row["limits"][precision]
            table.add_row(
                row["problem"],
                *(number(row[name]) for name in ("lasso_weight", "n", "d", "gates")),
                precision,
                number(1e3 * cost["sweep_s"]),
                number(1e3 * limits["products_s"]),
                number(cost["over_products"], 3),
                number(1e3 * cost["check_s"]),
                number(cost["with_check_over_products"], 3),
                number(1e3 * limits["roofline_s"]),
                number(cost["over_roofline"], 3),
                number(limits["copy_gb_per_s"], 3),
                number(limits["matmul_gflop_per_s"]),
            )
    return table


def _growth_table(growth: dict[str, Any]) -> Table:
    """Sweeps over the number of rows, with the line fitted to them."""
    table = _table(("n", *(f"ms, {name}" for name in growth["fits"]), "MiB"))
    for row in growth["rows"]:
        costs = (number(1e3 * row["costs"][name]["sweep_s"]) for name in growth["fits"])
        table.add_row(number(row["n"]), *costs, number(row["peak_mib"]))
    lines = (f"{fit['a_ms']:.3g} + {fit['b_ms_per_row']:.3g} n" for fit in growth["fits"].values())
    table.add_row("fit", *lines, "")
    table.add_row("off by", *(f"{fit['largest_deviation']:.1%}" for fit in growth["fits"].values()), "")
    table.add_row("power", *(f"{fit['exponent']:.2f}" for fit in growth["fits"].values()), "")
    return table


def _penalty_table(rows: list[dict[str, Any]]) -> Table:
    """Sweeps by penalty."""
    ratios = list(rows[0]["fixed"])
    table = _table(("problem", "weight", "adapts", *(f"fixed at {ratio}" for ratio in ratios)))
    for row in rows:
        counts = (number(row["fixed"][ratio]) for ratio in ratios)
        table.add_row(row["problem"], number(row["lasso_weight"]), number(row["adaptive"]), *counts)
    return table


def _bars_table(bars: list[dict[str, Any]]) -> Table:
    """What was asked for."""
    table = _table(("bar", "figure", "limit", "met"))
    for bar in bars:
        table.add_row(bar["bar"], number(bar["figure"]), number(bar["limit"]), "yes" if bar["met"] else "NO")
    return table


def _table(names: tuple[str, ...]) -> Table:
    table = Table()
    for name in names:
        table.add_column(name, justify="left" if name in ("problem", "solver", "note", "bar") else "right")
    return table


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with so many significant digits, or a dash."""
    if value is None:
        return "-"
    if isinstance(value, int) or (abs(value) >= 1e3 and digits <= 4):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
