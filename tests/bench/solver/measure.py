"""What every child process of the benchmark does: read its task, stop its clock, judge a point, answer in JSON.

It runs in both environments, so it imports nothing but NumPy.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def read_task() -> dict[str, Any]:
    """Read the task from the command line."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    return task


def answer(content: dict[str, Any]) -> None:
    """Print the result as the last line of the output."""
    sys.stdout.write("\n" + json.dumps(content) + "\n")
    sys.stdout.flush()


def peak_mib() -> float:
    """Peak resident memory of this program; the figure of `getrusage` would be the parent's where that had more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class Clock:
    """Wall-clock seconds since it was made, without the time spent in `pause` blocks."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._paused_at = 0.0

    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start

    def __enter__(self) -> Clock:
        self._paused_at = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._start += time.perf_counter() - self._paused_at


class Judge:
    """The objectives of a problem at any point, in float64, for whoever found the point.

    Parameters
    ----------
    x : (n, d)
        Standardised features, a constant 1 last.
    labels : (n,)
    gates : (d, P)
        Directions h_i; D_i = diag(1[X h_i >= 0]).
    lasso_weight : float
    """

    def __init__(self, x: Floats, labels: Floats, gates: Floats, lasso_weight: float) -> None:
        self.x, self.labels, self.lasso_weight = x, labels, lasso_weight
        self.patterns = (x @ gates >= 0.0).astype(np.float64)  # (n, P)

    def relu(self, v: Floats, w: Floats) -> dict[str, float]:
        """Judge v and w, both (d, P).

        `objective` is that of the two-layer network with its weight decay,
        1/2 ||sum_i relu(X v_i) - relu(X w_i) - y||^2 + beta sum_i (||v_i|| + ||w_i||): it means something wherever a
        point lies, equals the convex objective on the cones, and may be below the optimum outside them.
        """
        at_v, at_w = self.x @ v, self.x @ w  # (n, P)
        signed = (2.0 * self.patterns - 1.0) * np.stack([at_v, at_w])
        network = (np.maximum(at_v, 0.0) - np.maximum(at_w, 0.0)).sum(axis=1)
        norms = float(np.linalg.norm(v, axis=0).sum() + np.linalg.norm(w, axis=0).sum())
        return {
            "objective": self._total(network, norms),
            "convex_objective": self._total((self.patterns * (at_v - at_w)).sum(axis=1), norms),
            "cone_violation": max(0.0, -float(signed.min())) / max(float(np.abs(signed).max()), 1e-300),
        }

    def gated(self, u: Floats) -> dict[str, float]:
        """Judge u (d, P) in the gated program, which has no cones."""
        norms = float(np.linalg.norm(u, axis=0).sum())
        total = self._total((self.patterns * (self.x @ u)).sum(axis=1), norms)
        return {"objective": total, "convex_objective": total, "cone_violation": 0.0}

    def _total(self, prediction: Floats, norms: float) -> float:
        """Squared loss plus decay."""
        misfit = prediction - self.labels
        return float(0.5 * (misfit @ misfit) + self.lasso_weight * norms)


def load_judge(folder: Path, lasso_weight: float) -> tuple[Judge, Floats]:
    """Read a prepared problem; return its judge and the gate directions (d, P)."""
    gates: Floats = np.load(folder / "gates.npy")
    return Judge(np.load(folder / "x.npy"), np.load(folder / "labels.npy"), gates, lasso_weight), gates
