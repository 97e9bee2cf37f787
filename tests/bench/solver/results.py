"""Rows of the benchmark and the file that they are kept in, which is whole after every child process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
SLACK = 1.1
"""A point counts as found within a budget that it exceeds by up to 10 %: an iteration is not cut short."""
FEASIBLE = 1e-3
"""Cone violation up to which a peer's point counts as inside the cones."""
_KEY = ("problem", "solver", "lasso_weight", "tolerance", "budget")


class Results:
    """The JSON file of the benchmark.

    Parameters
    ----------
    path : Path
        Read if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        empty: dict[str, Any] = {"rows": [], "sweep_cost": [], "skipped": {}}
        self.content = {**empty, **(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})}

    def put(self, section: str, value: Any) -> None:
        """Set a whole section."""
        self.content[section] = value
        self._write()

    def add(self, rows: Iterable[Row], section: str = "rows") -> None:
        """Append rows, each in place of one with the same key."""
        for row in rows:
            kept = [old for old in self.content[section] if _key(old) != _key(row)]
            self.content[section] = [*kept, row]
        self._write()

    def drop(self, problem: str, solvers: Sequence[str]) -> None:
        """Forget a problem's rows of some solvers, and that it was skipped."""
        self.content["rows"] = [
            row for row in self.content["rows"] if row["problem"] != problem or row["solver"] not in solvers
        ]
        skipped = self.content["skipped"]
        self.content["skipped"] = {name: why for name, why in skipped.items() if name.split()[0] != problem}

    def skip(self, problem: str, why: str) -> None:
        """Note that a problem was not measured."""
        self.content["skipped"][problem] = why
        self._write()

    def _write(self) -> None:
        """Replace the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(unfinished, self.path)  # noqa: PTH105  the atomic rename


def _key(row: Row) -> tuple[Any, ...]:
    """What tells rows apart; weights by four digits, for the last ones of a computed weight depend on the machine."""
    found = {name: row.get(name) for name in _KEY}
    weight = found["lasso_weight"]
    return tuple({**found, "lasso_weight": weight if weight is None else f"{weight:.4g}"}.values())


def best_within(points: Sequence[Row], budget: float) -> Row | None:
    """Return the point of the lowest network objective that was there in time, with the best one inside the cones."""
    timely = [point for point in points if point["seconds"] <= SLACK * budget]
    if not timely:
        return None
    inside = [point["convex_objective"] for point in timely if point["cone_violation"] <= FEASIBLE]
    return {**min(timely, key=lambda point: point["objective"]), "objective_in_cones": min(inside, default=None)}


def peer_row(base: Row, found: Row, budget: float, lower_bound: float | None, zero_objective: float) -> Row:
    """Make the row of a peer at a budget.

    Parameters
    ----------
    base : dict
        The key's columns.
    found : dict
        What the child said: points, and note, peak_mib or failed.
    budget : float
        Seconds.
    lower_bound : float, optional
        Ours, from which the gap is taken; below zero only outside the cones.
    zero_objective : float
        Objective of the zero network, which stands where nothing came in time.
    """
    note = found.get("failed") or found.get("note")
    row = {**base, "budget_s": budget, "peak_mib": found.get("peak_mib"), "note": note}
    best = best_within(found["points"], budget)
    if best is None:
        none = {"objective": zero_objective, "seconds": None, "gap": None, "sweeps": None}
        return {**row, **none, "note": f"none within {base['budget']}: {note}"}
    gap = None
    if lower_bound is not None:
        gap = (best["objective"] - lower_bound) / max(1.0, abs(best["objective"]))
    return {**row, **best, "gap": gap}


def fit_growth(rows: Sequence[int], milliseconds: Sequence[float]) -> dict[str, float]:
    """Fit milliseconds per sweep = a + b rows by least squares of relative deviations, and rows to a power.

    Returns
    -------
    dict
        a_ms, b_ms_per_row, largest_deviation (relative), exponent (slope of the logarithms).
    """
    n, ms = np.asarray(rows, dtype=np.float64), np.asarray(milliseconds, dtype=np.float64)
    design = np.stack([np.ones_like(n), n], axis=1)
    (a, b), *_ = np.linalg.lstsq(design / ms[:, None], np.ones_like(ms), rcond=None)
    deviation = np.abs(a + b * n - ms) / ms
    exponent = np.polyfit(np.log(n), np.log(ms), 1)[0]
    return {
        "a_ms": float(a),
        "b_ms_per_row": float(b),
        "largest_deviation": float(deviation.max()),
        "exponent": float(exponent),
    }
