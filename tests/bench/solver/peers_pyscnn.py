"""pyscnn 0.0.10: its augmented Lagrangian on the ReLU program, its R-FISTA on the gated one.

Its public `optimize_model` ends after a number of iterations only. The same steps are taken here with its own parts,
so that a callback can look at the weights and end the run at a time. Its loss is divided by n and its columns are
scaled to length 1. Those of standardised features have length sqrt(n), all of them, so that the same problem is
the weight beta / n^1.5 and weights grow by sqrt(n). The gates' patterns are handed over, not recomputed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.bench.solver.measure import Clock, Floats, Judge

FIRST_TOLERANCE = 1e-6
"""pyscnn's default; tightened a hundredfold whenever it is met before the time is up."""
LAST_TOLERANCE = 1e-16
LOOKS = 100
"""Looks at the weights, spread over the budget."""
UNLIMITED = 10**9


class _TimeIsUp(Exception):
    """Ends pyscnn's loop from within its callback."""


class Watch:
    """A callback that notes how good the weights are, now and then, off the clock.

    Parameters
    ----------
    judge : Callable
        From the internal weights to objectives.
    clock : Clock
        Runs since before the set-up.
    budget : float
        Seconds after which to end.
    """

    def __init__(self, judge: Callable[[Any], dict[str, float]], clock: Clock, budget: float) -> None:
        self.judge, self.clock, self.budget = judge, clock, budget
        self.points: list[dict[str, float]] = []
        self.iterations, self.next_look = 0, 0.0

    def __call__(self, model: Any, *_: Any) -> Any:
        """Look at the model after an iteration."""
        self.iterations += 1
        now = self.clock.seconds()
        if now >= min(self.next_look, self.budget):
            self.look(model, now)
            self.next_look = now + self.budget / LOOKS
        if now >= self.budget:
            raise _TimeIsUp
        return model

    def look(self, model: Any, now: float) -> None:
        """Note the objectives at the weights."""
        with self.clock:
            self.points.append({"seconds": now, "sweeps": self.iterations, **self.judge(model.weights)})


def solve_with_pyscnn(task: dict[str, Any], judge: Judge, gates: Floats) -> dict[str, Any]:
    """Run until the budget is spent, tightening the tolerance whenever it is met."""
    from scnn.metrics import Metrics  # type: ignore[import-not-found]
    from scnn.private.interface import (  # type: ignore[import-not-found]
        build_metrics_tuple,
        build_optimizer,
        get_logger,
        set_device,
    )
    from scnn.regularizers import NeuronGL1  # type: ignore[import-not-found]

    set_device("cpu", task["dtype"], 0)
    clock = Clock()
    n = len(judge.labels)
    regularizer = NeuronGL1(judge.lasso_weight / n**1.5)

    def assess(weights: Any) -> dict[str, float]:
        columns = np.asarray(weights, dtype=np.float64).reshape(-1, *gates.T.shape) / math.sqrt(n)  # (1 or 2, P, d)
        return judge.gated(columns[0].T) if len(columns) == 1 else judge.relu(columns[0].T, columns[1].T)

    watch = Watch(assess, clock, task["seconds"])
    metrics = Metrics(metric_freq=UNLIMITED, objective=False, grad_norm=False)
    tolerance, ended = FIRST_TOLERANCE, "in time"
    try:
        while tolerance >= LAST_TOLERANCE and clock.seconds() < task["seconds"]:
            # Started where it ended, the augmented Lagrangian runs away; so from nothing.
            model, data, public_model = _build(task, judge, gates, regularizer)
            procedure = build_optimizer(_optimizer(task, public_model, tolerance), regularizer, metrics)
            wanted = build_metrics_tuple(metrics)
            model = procedure(get_logger("scnn"), model, lambda same: same, data, data, wanted, callback=watch)[1]
            watch.look(model, clock.seconds())
            tolerance /= 100.0
    except _TimeIsUp:
        ended = "time limit"
    return {"points": watch.points, "note": f"{ended}, tolerance {tolerance:.0e}, {task['dtype']}"}


def _build(task: dict[str, Any], judge: Judge, gates: Floats, regularizer: Any) -> tuple[Any, Any, Any]:
    """Make the internal model, its data, and the public model that pyscnn's optimisers ask for."""
    import lab  # type: ignore[import-not-found]
    from scnn.models import ConvexGatedReLU, ConvexReLU  # type: ignore[import-not-found]
    from scnn.private.interface import build_internal_regularizer
    from scnn.private.models import AL_MLP, ConvexMLP  # type: ignore[import-not-found]

    dtype = np.dtype(task["dtype"])
    n, d = judge.x.shape
    x, y = (judge.x / math.sqrt(n)).astype(dtype), judge.labels[:, None].astype(dtype)
    patterns, directions = lab.tensor(judge.patterns.astype(dtype)), lab.tensor(gates.astype(dtype))
    own = build_internal_regularizer(regularizer)
    if task["solver"] == "pyscnn AL":
        model = AL_MLP(d, patterns, directions, "einsum", delta=1000, regularizer=own, c=1)
        public = ConvexReLU(gates)
    else:
        model = ConvexMLP(d, patterns, directions, "einsum", regularizer=own, c=1)
        public = ConvexGatedReLU(gates)
    return model, (lab.tensor(x), lab.tensor(y)), public


def _optimizer(task: dict[str, Any], public_model: Any, tolerance: float) -> Any:
    """Configure the public optimiser, without a limit of iterations."""
    from scnn.solvers import AL, RFISTA  # type: ignore[import-not-found]

    if task["solver"] == "pyscnn AL":
        return AL(public_model, UNLIMITED, UNLIMITED, tol=tolerance, constraint_tol=tolerance)
    return RFISTA(public_model, UNLIMITED, tol=tolerance)
