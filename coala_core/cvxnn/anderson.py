r"""Anderson acceleration of the sweeps, with a memory that moves along and a way back.

A sweep is a fixed-point map z -> g(z) on z = (v + lam, s + nu) and on u, from which its step starts. With
f = g(z) - z, and dF, dG the changes of f and of g between the last `MEMORY` + 1 sweeps, every `EVERY`-th sweep is
followed by

    z = g(z) - dG gamma,     gamma = argmin ||f - dF gamma||^2 + ridge ||gamma||^2

(Walker & Ni 2011, type II); u and F u follow with the same gamma. If the sweep from there has a step much longer than
the last plain one, the plain iterate is restored and the memory dropped. Where steps have not become shorter for a
while, extrapolations may lead round in a circle, and plain sweeps follow, which do not. gamma has `MEMORY` entries, for
which some rows of s + nu say enough: lengths and inner products are those of `SAMPLE` rows, scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from coala_core.backend import Array, namespace_of
from coala_core.cvxnn.outcome import State

MEMORY = 12  # changes kept
EVERY = 5  # sweeps from one extrapolation to the next
FEWEST = 3  # changes to extrapolate from
SAMPLE = 500  # rows of s + nu in the inner products
PATIENCE = 4.0  # times the last plain step, that the step after an extrapolation may be long
WINDOW = 8  # extrapolations, over which steps have to become shorter
REST = 40  # plain sweeps where they did not
REGULARISATION = 1e-6  # ridge relative to the trace of dF'dF; less would amplify rounding

Allocate = Callable[[tuple[int, ...], np.dtype], Array]
"""Makes an uninitialised array of a shape and a type, where what is kept per row belongs."""


class Accelerator:
    """Watch the plain sweeps of one penalty and propose where to start the next one.

    Parameters
    ----------
    state : State
        Where the sweeps start; states to come have the same shapes and types, and are changed in place.
    cone_scale_squared : float
        tau^2.
    allocate : callable
        Where to keep what has as many rows as s + nu or F u.
    """

    def __init__(self, state: State, cone_scale_squared: float, allocate: Allocate) -> None:
        xp, rows = namespace_of(state.u), len(state.s_nu)
        self._start = State(*(allocate(part.shape, part.dtype) for part in state))
        self._ends = State(*(allocate((MEMORY + 1, *part.shape), part.dtype) for part in state))  # g
        self._rows = _sample(rows, xp)
        self._row_weight = math.sqrt(cone_scale_squared * rows / max(1, min(rows, SAMPLE)))
        self._step = self._coordinates(state, state)  # f
        self._steps = xp.zeros((MEMORY, len(self._step)), dtype=self._step.dtype)  # dF
        self._gram = xp.zeros((MEMORY, MEMORY))  # dF'dF
        self._length: Array | float = math.inf
        self.before = self._start
        """Where the last sweep started."""
        self.restart()

    def restart(self) -> None:
        """Forget all sweeps, where the map changes."""
        # Squared, of the last step before each extrapolation of this window; on a device they stay there till its end.
        self._lengths: list[Array | float] = []
        self._shortest = math.inf  # of those of the window before
        self._drop_memory()

    def _drop_memory(self) -> None:
        """Extrapolate from sweeps to come alone."""
        self._sweeps, self._rest_until, self._extrapolated = 0, 0, False
        self._last: Array | float = math.inf  # squared length of the last step but one

    @property
    def is_about_to_extrapolate(self) -> bool:
        """Whether the next sweep is followed by an extrapolation."""
        return self._is_due(self._sweeps + 1)

    def settle(self, state: State) -> bool:
        """Change the state in place where the next sweep should start elsewhere; tell whether it did."""
        changed = False
        if self._extrapolated and not self._length <= PATIENCE**2 * self._last:
            _write(self._end(self._sweeps - 2), state)
            self._drop_memory()
            changed = True
        else:
            self._last, self._extrapolated = self._length, False
            if self._is_due(self._sweeps):
                self._extrapolate(state)
                self._extrapolated = changed = True
                self._look_back()
        # What started nowhere else started at the last end, which is kept anyway.
        self.before = self._end(self._sweeps - 1) if self._sweeps and not changed else self._start
        if self.before is self._start:
            _write(state, self._start)
        return changed

    def _look_back(self) -> None:
        """Rest where extrapolations go round in a circle: over a whole window no step was shorter than before it."""
        self._lengths.append(self._length)
        if len(self._lengths) < WINDOW:
            return
        shortest, self._lengths = min(map(float, self._lengths)), []
        self._rest_until = self._sweeps + REST if shortest >= self._shortest else 0
        self._shortest = shortest

    def watch(self, state: State) -> None:
        """Take note of a sweep from `before` to a state."""
        step = self._coordinates(state, self.before)
        self._length = step @ step
        _write(state, self._end(self._sweeps))
        if self._sweeps:
            slot = (self._sweeps - 1) % MEMORY
            self._steps[slot] = step - self._step
            known = slice(0, min(self._sweeps, MEMORY))
            self._gram[slot, known] = self._gram[known, slot] = self._steps[known] @ self._steps[slot]
        self._step = step
        self._sweeps += 1

    def _end(self, sweep: int) -> State:
        """Where a sweep ended, of the last `MEMORY` + 1."""
        return State(*(ends[sweep % (MEMORY + 1)] for ends in self._ends))

    def _is_due(self, sweeps: int) -> bool:
        """Whether to extrapolate after that many sweeps."""
        return sweeps % EVERY == 0 and sweeps > FEWEST and sweeps > self._rest_until

    def _coordinates(self, state: State, before: State) -> Array:
        """One vector of a step of z, sampled, whose length is that in the metric of the two penalties."""
        xp, dtype = namespace_of(state.u), state.s_nu.dtype
        small = (state.v_lam - before.v_lam).astype(dtype, copy=False)
        large = self._sampled(state.s_nu) - self._sampled(before.s_nu)
        large *= dtype.type(self._row_weight)
        vector: Array = xp.concatenate([small.reshape(-1), large.reshape(-1)])
        return vector

    def _sampled(self, s_nu: Array) -> Array:
        """Those rows of s + nu that stand for all."""
        return s_nu if self._rows is None else s_nu.take(self._rows, axis=0)

    def _extrapolate(self, state: State) -> None:
        """Move the state from the end of the last sweep to where the memory expects the fixed point."""
        xp, known = namespace_of(state.u), min(self._sweeps - 1, MEMORY)
        gram = self._gram[:known, :known]
        ridge = REGULARISATION * xp.trace(gram) + 1e-300
        right = (self._steps[:known] @ self._step).astype(np.float64)
        gamma = xp.linalg.solve(gram + ridge * xp.eye(known), right)
        shares = gamma @ xp.asarray(self._ends_of_changes(known))
        for part, ends in zip(state, self._ends, strict=True):
            weights = shares.astype(part.dtype, copy=False)
            part -= (weights @ ends[: known + 1].reshape(known + 1, -1)).reshape(part.shape)

    def _ends_of_changes(self, known: int) -> NDArray[np.float64]:
        """Tell what every end counts for in every change of g, (known, known + 1): dG is this times the ends."""
        counts = np.zeros((known, known + 1))
        for sweep in range(self._sweeps - known, self._sweeps):
            counts[(sweep - 1) % MEMORY, sweep % (MEMORY + 1)] = 1.0
            counts[(sweep - 1) % MEMORY, (sweep - 1) % (MEMORY + 1)] = -1.0
        return counts


def _sample(rows: int, xp: ModuleType) -> Array | None:
    """Return which rows of s + nu to look at, the same ones every time, or None for all."""
    if rows <= SAMPLE:
        return None
    chosen = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    result: Array = xp.asarray(chosen)
    return result


def _write(source: State, target: State) -> None:
    """Copy the entries of one state into another."""
    for part, into in zip(source, target, strict=True):
        into[...] = part
