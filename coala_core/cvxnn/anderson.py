r"""Anderson acceleration of the sweeps, in windows and with a way back.

A sweep is a fixed-point map on z = (v + lam, s + nu) and on u, from which its step starts. After `WINDOW` plain
sweeps the steps z_{k+1} - z_k are combined with weights c that sum to one and make the combined step short, and the
next sweep starts from sum_k c_k z_{k+1} (Scieur, d'Aspremont & Bach 2016); u and F u follow with the same weights.
If that sweep's step is much longer than the last plain one, the plain iterate is restored.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coala_core.backend import Array, namespace_of, to_numpy
from coala_core.cvxnn.outcome import State
from coala_core.cvxnn.problem import column_norms

WINDOW = 10
PATIENCE = 4.0  # times the last plain step, that the step after an extrapolation may be long
REGULARISATION = 1e-6  # relative to the trace of the steps' Gram matrix; less would amplify rounding

Allocate = Callable[[tuple[int, ...], np.dtype], Array]
"""Makes an uninitialised array of a shape and a type, where what is kept per row belongs."""


def shrink_columns(z: Array, threshold: float) -> Array:
    """Proximal map of threshold * ||.||_{2,1}: shorten every column of z (2, d, P), drop the short ones."""
    xp = namespace_of(z)
    norms = column_norms(z)  # (2, P)
    factor = xp.where(norms > threshold, 1.0 - threshold / xp.maximum(norms, threshold), 0.0)
    shrunk: Array = z * factor[:, None, :]
    return shrunk


class Accelerator:
    """Watch the plain sweeps of one penalty and propose where to start the next one.

    Parameters
    ----------
    state : State
        Where the sweeps start; states to come have the same shapes and types, and are changed in place.
    cone_scale_squared : float
        tau^2.
    allocate : callable
        Where to keep copies of s + nu and of F u.
    """

    def __init__(self, state: State, cone_scale_squared: float, allocate: Allocate) -> None:
        self.cone_scale_squared = cone_scale_squared
        self.before = _copies(state, allocate)
        self._plain = _copies(state, allocate)
        self._steps = State(*(allocate((WINDOW, *part.shape), part.dtype) for part in state))
        self._products: list[Array] = []  # of step k with the steps 0, ..., k
        self._count, self._extrapolated = 0, False
        self._last: Array | float = math.inf  # squared length of the last step
        self._length: Array | float = math.inf

    def restart(self) -> None:
        """Forget all steps, where the map changes."""
        self._count, self._extrapolated, self._last = 0, False, math.inf

    @property
    def ends_a_window(self) -> bool:
        """Whether the next sweep is the last before an extrapolation."""
        return self._count == WINDOW - 1

    @property
    def step_length(self) -> float:
        """Length of the last sweep's step of z, in the metric of the two penalties."""
        return math.sqrt(float(self._length))

    def settle(self, state: State) -> bool:
        """Change the state in place where the next sweep should start elsewhere; tell whether it did."""
        changed = False
        if self._extrapolated:
            if not float(self._length) <= PATIENCE**2 * float(self._last):
                _write(self._plain, state)
                self._count, changed = 0, True
            self._extrapolated = False
        self._last = self._length
        if not changed and self._count == WINDOW:
            _write(state, self._plain)
            self._extrapolate(state)
            self._count, self._extrapolated, changed = 0, True, True
        _write(state, self.before)
        return changed

    def watch(self, state: State) -> None:
        """Take note of a sweep from `before` to a state."""
        xp, k = namespace_of(state.u), self._count
        for steps, end, start in zip(self._steps, state, self.before, strict=True):
            xp.subtract(end, start, out=steps[k])
        upper, lower = (steps[: k + 1].reshape(k + 1, -1) for steps in (self._steps.v_lam, self._steps.s_nu))
        # Ten such products take a third of the time of one product of all steps with themselves.
        del self._products[k:]
        self._products.append(upper @ upper[k] + self.cone_scale_squared * (lower @ lower[k]))
        self._length = self._products[k][k]
        self._count += 1

    def _extrapolate(self, state: State) -> None:
        """Move the state to the combination of the window's ends by the weights of the shortest combined step."""
        xp = namespace_of(state.u)
        gram = self._gram()
        ridge = REGULARISATION * float(np.trace(gram)) + 1e-300
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), np.ones(len(gram)))
        weights /= weights.sum()
        # The end of step k is the last end minus all steps after k.
        passed = np.concatenate([[0.0], np.cumsum(weights)[:-1]])
        for part, steps in zip(state, self._steps, strict=True):
            part -= (xp.asarray(passed, dtype=part.dtype) @ steps.reshape(WINDOW, -1)).reshape(part.shape)

    def _gram(self) -> NDArray[np.float64]:
        """Inner products of the window's steps, on the host."""
        triangle = to_numpy(namespace_of(self._products[0]).concatenate(self._products))
        gram = np.zeros((WINDOW, WINDOW))
        gram[np.tril_indices(WINDOW)] = triangle
        return gram + np.tril(gram, -1).T


def _copies(state: State, allocate: Allocate) -> State:
    """Copy a state to arrays of its own."""
    copies = State(*(allocate(part.shape, part.dtype) for part in state))
    _write(state, copies)
    return copies


def _write(source: State, target: State) -> None:
    """Copy the entries of one state into another."""
    for part, into in zip(source, target, strict=True):
        into[...] = part
