"""This project's solver on a prepared problem, one process per task: `python -m tests.bench.solver.ours TASK`.

The task is JSON: mode ("solve", "sweeps" or "path"), folder, backend, streamed, and what the mode needs. Seconds run
from the call of `fit_head` or `fit_path`, so that they include set-up and, where features are streamed, reading.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from coala_core.backend import resolve_backend
from coala_core.config import SolveConfig
from coala_core.cvxnn import Record, Solution, Status, fit_head, fit_path
from tests.bench.solver.measure import answer, peak_mib, read_task
from tests.bench.solver.roofline import measure_limits, waiting

UNREACHABLE = 1e-12
"""Tolerance of runs whose sweeps are counted."""
PATH_COLD = (0, 4, 9)
"""Weights of the path that are solved cold too."""


def load_features(task: dict[str, Any]) -> Any:
    """Raw features as `fit_head` takes them: an array, or a memory map, of which it reads blocks of rows."""
    path = Path(task["folder"]) / "features.npy"
    return np.load(path, mmap_mode="r" if task["streamed"] else None)


def load(task: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Features, labels and gates."""
    folder = Path(task["folder"])
    return load_features(task), np.load(folder / "labels.npy"), np.load(folder / "gates.npy")


def configure(task: dict[str, Any], gates: int, **settings: Any) -> SolveConfig:
    """Build the default configuration with this task's settings."""
    return SolveConfig(gates=gates, probe_gates=0, backend=task["backend"], **settings)


def to_tolerance(task: dict[str, Any], gates: Any, **settings: Any) -> SolveConfig:
    """Build the configuration of a solve to the task's tolerance, which the cone violation must meet too."""
    tolerance = task["tolerance"]
    bounds = {"tolerance": tolerance, "max_cone_violation": tolerance, "max_sweeps": task["max_sweeps"]}
    return configure(task, gates.shape[1], **bounds, **settings)


def solve(task: dict[str, Any]) -> dict[str, Any]:
    """Solve at one weight to one tolerance.

    `objective` is that of the two-layer network, as for the peers; on the cones it is the convex one.
    """
    features, labels, gates = load(task)
    config = to_tolerance(task, gates, max_seconds=task["max_seconds"], activation=task["activation"])
    loaded_mib, taken = peak_mib(), [device_mib(task["backend"])]

    def note(done: int, total: int, what: str) -> None:
        taken.append(device_mib(task["backend"]))

    started = time.perf_counter()
    solution = fit_head(features, labels, config, gates=gates, lasso_weight=task["weight"], progress=note)
    seconds = time.perf_counter() - started
    # CuPy's pool only grows while a solve runs, so its size at the last check is the most it took by then.
    return {"seconds": seconds, "loaded_mib": loaded_mib, **describe(solution), "device_mib": taken[-1]}


def describe(solution: Solution) -> dict[str, Any]:
    """What is known about a solution."""
    return {
        "status": solution.status.name,
        "converged": solution.status is Status.CONVERGED,
        "objective": solution.network_objective,
        "convex_objective": solution.upper_bound,
        "lower_bound": solution.lower_bound,
        "gap": solution.gap,
        "cone_violation": solution.cone_violation,
        "sweeps": solution.sweeps,
        "refactorisations": solution.refactorisations,
        "peak_mib": peak_mib(),
    }


def device_mib(backend: str) -> float | None:
    """Memory that CuPy's pool has taken from the device, None without one."""
    xp = resolve_backend(backend)
    return None if xp is np else xp.get_default_memory_pool().total_bytes() / 2**20


def sweeps(task: dict[str, Any]) -> dict[str, Any]:
    """Time a fixed number of sweeps between checks, then the bare products and the machine's limits."""
    features, labels, gates = load(task)
    config = configure(
        task,
        gates.shape[1],
        tolerance=UNREACHABLE,
        max_cone_violation=UNREACHABLE,
        max_sweeps=task["intervals"] * task["check_every"],
        check_every=task["check_every"],
    )
    swept: dict[int, float] = {}
    checked: dict[int, float] = {}
    started = time.perf_counter()

    wait = waiting(resolve_backend(task["backend"]))

    def stamp() -> bool:
        if (len(swept) + 1) % task["check_every"] == 0:
            wait()  # a device is still at work on the sweeps of this interval
        swept[len(swept) + 1] = time.perf_counter() - started
        return False

    def note(done: int, total: int, what: str) -> None:
        checked.setdefault(done, time.perf_counter() - started)

    solution = fit_head(features, labels, config, gates=gates, lasso_weight=task["weight"], progress=note, stop=stamp)
    peak = peak_mib()
    limits: dict[str, Any] = {}
    if task["limits"]:
        whole = np.load(Path(task["folder"]) / "features.npy")
        limits = measure_limits(whole, gates.shape[1], ("float32", "float64"), resolve_backend(task["backend"]))
    costs = cost_per_sweep(swept, checked, solution.history)
    first = min(checked.values())
    return {"n": len(labels), "costs": costs, "first_check_s": first, "peak_mib": peak, "limits": limits}


def cost_per_sweep(
    swept: dict[int, float], checked: dict[int, float], history: tuple[Record, ...]
) -> dict[str, dict[str, float]]:
    """Seconds per sweep and per check from time stamps, by the precision of the products.

    Parameters
    ----------
    swept : dict
        When each sweep had ended.
    checked : dict
        When the check after a sweep had ended.
    history : tuple of Record
        Intervals in which the penalty or the precision changed hold a factorisation, which is set-up; a precision's
        are left out unless all of them do. So are those of the first half, in which the back end may have changed,
        unless there are no others.
    """
    at = {record.sweep: (record.bits, record.penalty, record.refactorisations) for record in history}
    known = sorted(set(checked) & set(at))
    costs: dict[str, dict[str, float]] = {}
    for bits in sorted({at[sweep][0] for sweep in known[1:]}):
        intervals = [(a, b) for a, b in pairwise(known) if at[b][0] == bits]
        clean = [(a, b) for a, b in intervals if at[a] == at[b]]
        late = [(a, b) for a, b in clean if 2 * a >= max(known)]
        chosen = late or clean or intervals
        seconds = [(swept[b] - checked[a]) / (b - a) for a, b in chosen]
        costs[f"float{bits}"] = {
            "sweep_s": min(seconds),
            "median_sweep_s": median(seconds),
            "check_s": min(checked[b] - swept[b] for _, b in chosen),
            "sweep_and_share_of_check_s": min((checked[b] - checked[a]) / (b - a) for a, b in chosen),
            "clean_intervals": len(clean),
            "intervals": len(intervals),
        }
    return costs


def path(task: dict[str, Any]) -> dict[str, Any]:
    """Time the whole path, then some of its weights cold, with the gates that the path samples."""
    features, labels, gates = load(task)
    config = configure(task, gates.shape[1], max_sweeps=task["max_sweeps"])
    started = time.perf_counter()
    whole = fit_path(features, labels, config)
    seconds = time.perf_counter() - started
    cold = []
    for place in PATH_COLD:
        weight = whole.solutions[place].lasso_weight
        started = time.perf_counter()
        solution = fit_head(features, labels, config, lasso_weight=weight)
        cold.append({"weight": weight, "seconds": time.perf_counter() - started, "sweeps": solution.sweeps})
    return {
        "weights": len(whole.solutions),
        "seconds": seconds,
        "sweeps": [solution.sweeps for solution in whole.solutions],
        "converged": all(solution.status is Status.CONVERGED for solution in whole.solutions),
        "zero_weight": whole.zero_weight,
        "cold": cold,
        "cold_seconds": sum(row["seconds"] for row in cold),
        "peak_mib": peak_mib(),
    }


def penalty(task: dict[str, Any]) -> dict[str, Any]:
    """Count sweeps to a tolerance with the penalty that adapts and with fixed ones; None where it is not reached."""
    features, labels, gates = load(task)

    def count(ratio: float | None) -> int | None:
        config = to_tolerance(task, gates, penalty=ratio)
        found = fit_head(features, labels, config, gates=gates, lasso_weight=task["weight"])
        return found.sweeps if found.status is Status.CONVERGED else None

    return {"adaptive": count(None), "fixed": {f"{ratio:g}": count(ratio) for ratio in task["ratios"]}}


if __name__ == "__main__":
    _task = read_task()
    answer({"solve": solve, "sweeps": sweeps, "path": path, "penalty": penalty}[_task["mode"]](_task))
