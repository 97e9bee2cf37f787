"""Measure the convex solver beside its peers: `make bench-solver`, or `python -m tests.bench.solver --help`.

Every figure comes from a child process of its own, one after the other. A problem's peers get T seconds and 10 T,
T being our time to the problem's target gap in the same run.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from typing import Any

from tests.bench.processor import processor
from tests.bench.solver import children
from tests.bench.solver.bars import OURS, judge
from tests.bench.solver.extras import measure_costs, measure_growth, measure_path, measure_penalty
from tests.bench.solver.problems import (
    GROWTH,
    PROBLEMS,
    QUICK,
    QUICK_GROWTH,
    ROOT,
    SCRATCH,
    Problem,
    absent,
    folder_of,
    load_meta,
)
from tests.bench.solver.report import show
from tests.bench.solver.results import Results, Row, best_within, peer_row

RESULT = ROOT / "data" / "bench" / "solver.json"
QUICK_RESULT = SCRATCH / "quick.json"
MAX_SWEEPS = 100_000
EXTRAS = ("cost", "growth", "path", "penalty")
ENOUGH = {"S": 20.0}
"""A third budget, in seconds, where peers are meant to finish."""
MEMORY_SHARE = 0.75
"""Of the machine's memory that a peer may take."""


class Benchmark:
    """One run of the benchmark.

    Parameters
    ----------
    options : Namespace
        Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results = Results(QUICK_RESULT if options.quick else RESULT)
        self.problems = QUICK if options.quick else PROBLEMS
        self.growth = QUICK_GROWTH if options.quick else GROWTH

    def run(self, names: list[str]) -> None:
        """Measure the named problems and extras."""
        self.results.put("machine", describe_machine())
        for name in names:
            if name in self.problems:
                self.measure(self.problems[name])
            elif name in EXTRAS:
                self.measure_extra(name)
        # The bars are about full sizes.
        self.results.put("bars", [] if self.options.quick else judge(self.results.content))
        show(self.results.content)

    def measure_extra(self, name: str) -> None:
        """Measure what is about this project's solver alone."""
        if name == "growth" and not self.lacks(self.growth[0], "growth"):
            measure_growth(self.results, [problem for problem in self.growth if self.ready(problem)])
        elif name == "path" and self.ready(self.problems["M"]):
            measure_path(self.results, self.problems["M"])
        elif name == "penalty":
            known = [self.problems[key] for key in ("S", "M")]
            measure_penalty(self.results, [problem for problem in known if self.ready(problem)])
        elif name == "cost":
            for problem in self.problems.values():
                if problem.source == "problem_m" and self.ready(problem):
                    measure_costs(self.results, problem)

    def lacks(self, problem: Problem, name: str) -> bool:
        """Skip visibly what this place cannot measure."""
        why = absent(problem)
        if why:
            self.results.skip(name, why)
            say(f"{name}: {why}; skipped")
        return bool(why)

    def ready(self, problem: Problem) -> bool:
        """Prepare a problem unless it is."""
        if self.lacks(problem, problem.name):
            return False
        if (folder_of(problem) / "meta.json").exists():
            return True
        say(f"{problem.name}: preparing")
        why = children.prepare(problem.name, quick=self.options.quick)
        if why:
            self.results.skip(problem.name, f"could not be prepared: {why}")
            say(f"{problem.name}: could not be prepared: {why}")
        return not why

    def measure(self, problem: Problem) -> None:
        """Measure one problem at all its weights."""
        if not self.ready(problem):
            return
        peers = (*problem.peers, *problem.unfit) if self.options.peers else ()
        self.results.drop(problem.name, (OURS, f"{OURS} gated", *peers))
        for weight in load_meta(folder_of(problem))["weights"]:
            for gated in (False, True) if problem.gated else (False,):
                own = self.measure_ours(problem, weight, gated=gated)
                if own and self.options.peers:
                    self.measure_peers(problem, weight, own, gated=gated)

    def measure_ours(self, problem: Problem, weight: float, *, gated: bool) -> Row | None:
        """Solve to every tolerance; return the row of the target tolerance, with the best lower bound."""
        rows = []
        for tolerance in problem.tolerances:
            task = {
                "mode": "solve",
                "folder": str(folder_of(problem)),
                "backend": "cupy" if problem.device else "numpy",
                "streamed": problem.streamed,
                "weight": weight,
                "tolerance": tolerance,
                "activation": "gated_relu" if gated else "relu",
                "max_sweeps": MAX_SWEEPS,
                "max_seconds": problem.max_seconds,
            }
            base = {
                "problem": problem.name,
                "solver": f"{OURS} gated" if gated else OURS,
                "lasso_weight": weight,
                "tolerance": tolerance,
                "budget": None,
            }
            found = children.call_ours(task, 2.0 * problem.max_seconds)
            say(f"{problem.name} weight {weight:.4g} {base['solver']} {tolerance:g}: {brief(found)}")
            if "failed" in found:
                self.results.skip(f"{problem.name} {base['solver']} {weight:.4g} {tolerance:g}", found["failed"])
                continue
            rows.append({**base, **found})
            self.results.add(rows[-1:])
        target = next((row for row in rows if row["tolerance"] == problem.target), None)
        return target and {**target, "lower_bound": max(row["lower_bound"] for row in rows)}

    def measure_peers(self, problem: Problem, weight: float, own: Row, *, gated: bool) -> None:
        """Give every peer of the program T and 10 T seconds."""
        budgets = {"T": own["seconds"], "10T": min(10.0 * own["seconds"], self.options.peer_cap)}
        if problem.name in ENOUGH:
            budgets["enough"] = max(ENOUGH[problem.name], budgets["10T"])
        for solver in problem.peers:
            if (solver == "pyscnn R-FISTA") == gated:
                self.measure_peer(problem, weight, own, solver, budgets)
        for solver, why in problem.unfit.items():
            blank = dict.fromkeys(("seconds", "objective", "gap", "sweeps", "peak_mib"))
            key = {"problem": problem.name, "solver": solver, "lasso_weight": weight, "budget": "10T"}
            self.results.add([{**key, **blank, "note": f"not run: {why}"}])

    def measure_peer(self, problem: Problem, weight: float, own: Row, solver: str, budgets: dict[str, float]) -> None:
        """Run a peer for its longest budget, and for a shorter one where it tells nothing on the way."""
        found: dict[str, Any] = {"points": []}
        zero_objective = 0.5 * load_meta(folder_of(problem))["n"]
        for label, budget in sorted(budgets.items(), key=lambda item: -item[1]):
            is_first = budget == max(budgets.values())
            if is_first or (found["points"] and not best_within(found["points"], budget)):
                found = children.call_peer(self.peer_task(problem, weight, solver, budget))
            base = {"problem": problem.name, "solver": solver, "lasso_weight": weight, "budget": label}
            row = peer_row(base, found, budget, own["lower_bound"], zero_objective)
            self.results.add([row])
            say(f"{problem.name} weight {weight:.4g} {solver} {label} ({budget:.1f} s): {brief(row)}")

    def peer_task(self, problem: Problem, weight: float, solver: str, budget: float) -> dict[str, Any]:
        """Return the task of a peer's process."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return {
            "folder": str(folder_of(problem)),
            "solver": solver,
            "lasso_weight": weight,
            "seconds": budget,
            "dtype": "float64" if problem.name == "S" else "float32",
            "memory_gib": MEMORY_SHARE * memory,
        }


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": processor(),
        "cores": children.cores(),
        "python": platform.python_version(),
    }


def brief(found: Row) -> str:
    """Say in a line what came."""
    if found.get("failed") or found.get("seconds") is None:
        return str(found.get("failed") or found.get("note"))
    return f"{found['seconds']:.2f} s, objective {found['objective']:.6g}, gap {found['gap']:.1e}"


def say(text: str) -> None:
    """Tell where the benchmark is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def main() -> int:
    """Run what the command line asks for."""
    names = [*PROBLEMS, *EXTRAS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.solver", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="measure other solvers")
    parser.add_argument("--peer-cap", type=float, default=300.0, help="seconds that a peer gets at most")
    parser.add_argument("--quick", action="store_true", help="tiny problems, results in data/store/bench-solver")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        parser.error(f"--only must name some of {', '.join(names)}, got {', '.join(unknown)}")
    if options.peers and (why := children.install_peers()):
        say(f"the peers' environment could not be made ({why}); without peers")
        options.peers = False
    Benchmark(options).run(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
