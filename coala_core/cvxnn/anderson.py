r"""Anderson acceleration of the sweeps, in windows and with a way back.

ADMM iterates a fixed-point map on z = (v + lam, s + nu), from which all four variables follow. After
`WINDOW` plain sweeps the steps z_{k+1} - z_k are combined with weights c that sum to one and make the
combined step short, and the next sweep starts from sum_k c_k z_{k+1} (Scieur, d'Aspremont & Bach 2016).
If that sweep's step is much longer than the last plain one, the plain iterate is restored.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.outcome import State
from coala_core.cvxnn.problem import column_norms

WINDOW = 10
PATIENCE = 4.0  # times the last plain step, that the step after an extrapolation may be long
REGULARISATION = 1e-6  # relative to the trace of the steps' Gram matrix; less would amplify rounding

Point = tuple[Array, Array]


def shrink_columns(z: Array, threshold: float) -> Array:
    """Proximal map of threshold * ||.||_{2,1}: shorten every column of z (2, d, P), drop the short ones."""
    xp = namespace_of(z)
    norms = column_norms(z)  # (2, P)
    factor = xp.where(norms > threshold, 1.0 - threshold / xp.maximum(norms, threshold), 0.0)
    shrunk: Array = z * factor[:, None, :]
    return shrunk


def state_of(u_lam: Array, g_nu: Array, threshold: float) -> State:
    """Split z = (v + lam, s + nu) by the two proximal maps."""
    v = shrink_columns(u_lam, threshold)
    s = g_nu.clip(min=0.0)
    return State(v, s, u_lam - v, g_nu - s)


class Accelerator:
    """Watch the plain sweeps of one penalty and propose where to start the next one."""

    def __init__(self, cone_scale_squared: float, threshold: float) -> None:
        self.cone_scale_squared, self.threshold = cone_scale_squared, threshold
        self.points: list[Point] = []
        self.way_back: Point | None = None
        self.last_step = math.inf

    def start_of_next(self, state: State) -> State:
        """Return the state to sweep from, given the one that the last sweep reached."""
        point = (state.v + state.lam, state.s + state.nu)
        step = self._step_length(point)
        if self.way_back is not None and not step <= PATIENCE * self.last_step:
            self.points, self.way_back = [self.way_back], None
            return state_of(*self.points[0], self.threshold)
        self.way_back, self.last_step = None, step
        self.points.append(point)
        if len(self.points) <= WINDOW:
            return state
        self.way_back = point
        self.points = [self._combine()]
        return state_of(*self.points[0], self.threshold)

    def _step_length(self, point: Point) -> float:
        """Length of the last step in the metric of the two penalties; infinite before the first."""
        if not self.points:
            return math.inf
        return math.sqrt(self._gram([_difference(point, self.points[-1])])[0, 0])

    def _combine(self) -> Point:
        """Combine the points of a full window by the weights of the shortest combined step."""
        steps = [_difference(b, a) for a, b in zip(self.points, self.points[1:], strict=False)]
        gram = self._gram(steps)
        ridge = REGULARISATION * float(np.trace(gram)) + 1e-300
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), np.ones(len(gram)))
        weights /= weights.sum()
        ends = self.points[1:]
        first, second = (sum(c * end[k] for c, end in zip(weights.tolist(), ends, strict=True)) for k in range(2))
        return first, second

    def _gram(self, steps: list[Point]) -> NDArray[np.float64]:
        """Inner products of steps, (k, k), on the host."""
        xp = namespace_of(steps[0][0])
        upper, lower = (xp.stack([step[k].reshape(-1) for step in steps]) for k in range(2))
        gram = upper @ upper.T + self.cone_scale_squared * (lower @ lower.T)
        return np.array(gram.tolist())


def _difference(end: Point, start: Point) -> Point:
    """Step from start to end."""
    return end[0] - start[0], end[1] - start[1]
