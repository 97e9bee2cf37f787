r"""M^-1 for the b-system without forming anything of size (dP)^2 or n^2, for one step per sweep or for several.

The preconditioner replaces the coupling by the product

    F~'F~  ~  c Q (x) Lambda,     Lambda = X'X (diagonal),     Q_ij = trace(X'D_i Delta'Delta D_j X) / trace(X'X)

for c = 1 the best one of this form in Frobenius norm up to the shape of Lambda. For features that are symmetric about
the origin, E[1[x'h_i >= 0] 1[x'h_j >= 0] x x'] differs from Q_ij E[x x'] by a matrix of rank 2 only, which is why
this sees the coupling between gates where one block per gate does not. In the eigenvectors of Q and the principal
axes it is diagonal: it costs nothing to apply, P^2 numbers to hold, and nothing to follow the penalty.
Decision record 0006 has the counts of conjugate gradient steps against the other candidates.

A sweep that takes one step of it needs no product with X besides its own two. c follows the largest curvature seen
lately, so that a step does not overshoot, and the curvature lies in c [mu, 1] of the preconditioner's. A share
(1 - mu^1/2) / (1 + mu^1/2) of the last step is added to each (the heavy ball of Polyak 1964, with the share that
Nesterov gives), which takes the error out in about mu^-1/2 steps where plain ones need mu^-1; mu is what the steps
themselves have seen. Where it stays very small (many gates on few rows: F~'F~ is singular and Q (x) Lambda is not), a
dense system is better (`linear.Switching`), or several steps.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import numpy as np

from coala_core.backend import Array, device_kernel, namespace_of, to_numpy
from coala_core.cvxnn.problem import ConvexProblem
from coala_core.cvxnn.system import cone_metric, conjugate_gradients, full_metric
from coala_core.cvxnn.updates import preconditioned_step

MEMORY = 0.98  # share of the largest curvature seen that is kept from sweep to sweep
RESERVE = 1.02  # on top of it
SMALLEST, LARGEST = 0.5, 50.0  # c
NOISE = 1e-10  # of ||F~ step||^2 relative to that of the largest step: below, a curvature is rounding
WINDOW = 10  # sweeps over which the curvature is judged
FORGETTING = 0.1  # share of the newest curvature in the running mean that gives mu
MOST_MOMENTUM = 0.5  # share of the last step that is added to one: more does not go with the extrapolations
ACCURACY = 0.2  # reduction of the residual where several steps are taken


Scalar: TypeAlias = Array | float
"""A number, on a device an array without axes that stays there."""

# Formulas of `_learn`, for a device.
_LEARN = (
    "T fitted, T own, T coupled, T strength, T largest, T scale, T mean",
    "T new_largest, T new_scale, T new_mean, T heard_quotient",
    "T most = fitted > largest ? fitted : largest;"
    f"bool heard = fitted > (T){NOISE} * most;"
    "T quotient = (own + strength * fitted) / max(own + strength * scale * coupled, (T)1e-300);"
    "T ratio = heard ? fitted / max(coupled, (T)1e-300) : (T)0;"
    f"T kept = (T){MEMORY} * scale; T needed = min(max((T){RESERVE} * ratio, (T){SMALLEST}), (T){LARGEST});"
    f"T moved = mean + (T){FORGETTING} * (heard ? quotient - mean : (T)0);"
    "new_largest = most; new_scale = max(kept, needed); new_mean = moved; heard_quotient = heard ? quotient : (T)1;",
)


class KroneckerPreconditioner:
    """(I (x) H + (2/rho) c Q (x) Lambda)^-1.

    Parameters
    ----------
    problem : ConvexProblem
    metric : (d, 1)
        Diagonal of H, kept as (d, P).
    """

    def __init__(self, problem: ConvexProblem, metric: Array) -> None:
        xp = namespace_of(problem.spectrum)
        shares, self.rotation = xp.linalg.eigh(gate_overlaps(problem))  # (P,), (P, P)
        self.coupling: Array = problem.spectrum[:, None] * xp.maximum(shares, 0.0)  # (d, P)
        self.metric = full_metric(metric, problem.shape[2])
        self.penalty = 1.0
        self.scale: Scalar = xp.ones(())
        """c, ()."""
        self._no_step, self._exact = xp.zeros_like(self.coupling), xp.ones(())

    def refactor(self, penalty: float) -> None:
        """Follow the penalty."""
        self.penalty = penalty

    def apply(self, residual: Array) -> Array:
        """Return M^-1 residual, (d, P)."""
        return self.turn_back(self.solve(residual, self._no_step, self._exact))

    def solve(self, residual: Array, last_step: Array, quotient: Scalar) -> Array:
        """Compute M^-1 residual and a share of the last step, (d, P), in the eigenvectors of Q.

        The share follows from the curvature mu (); where the preconditioner is as good as exact it is none.
        """
        rotated, strength = residual @ self.rotation, 2.0 / self.penalty
        return preconditioned_step(
            rotated, self.metric, self.coupling, last_step, self.scale, quotient, strength, MOST_MOMENTUM
        )

    def turn_back(self, rotated: Array) -> Array:
        """From the eigenvectors of Q, (d, P), to one column per gate."""
        result: Array = rotated @ self.rotation.T
        return result

    def energies(self, rotated: Array) -> tuple[Array, Array]:
        """Return step'(I (x) H) step and step'(Q (x) Lambda) step of a step in the eigenvectors of Q."""
        square = rotated * rotated
        return (self.metric * square).sum(), (self.coupling * square).sum()


def gate_overlaps(problem: ConvexProblem) -> Array:
    """Q, (P, P): how much of the features' energy two gates share, after differences of pairs are taken."""
    xp, gates = namespace_of(problem.spectrum), problem.shape[2]
    overlaps, total = xp.zeros((gates, gates)), 0.0
    for block in problem.blocks():
        parts = [problem.slab(rows, np.float64) for rows, _ in block.slabs]
        for x, signs in parts:
            energy, active = xp.einsum("nd,nd->n", x, x), signs[:, :gates] > 0.0
            overlaps += active.T @ (energy[:, None] * active)
            total += float(energy.sum())
        if problem.paired:
            (x, signs), (y, others) = parts
            shared = xp.einsum("nd,nd->n", x, y)
            cross = (signs[:, :gates] > 0.0).T @ (shared[:, None] * (others[:, :gates] > 0.0))
            overlaps -= cross + cross.T
    result: Array = overlaps / total if total > 0.0 else overlaps
    return result


def _learn(
    fitted: Array, own: Array, coupled: Array, strength: float, largest: Scalar, scale: Scalar, mean: Scalar
) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """Take in the curvature along one step; every array is () and stays where it is.

    Parameters
    ----------
    fitted, own, coupled : ()
        step'F~'F~ step, and the same with I (x) H and with Q (x) Lambda.
    strength : float
        2 / rho.
    largest, scale, mean : ()
        The largest `fitted` so far, c, and mu.

    Returns
    -------
    tuple of ()
        The three anew, and the quotient of this step, 1 where rounding is all that was heard.
    """
    if namespace_of(fitted) is not np:
        kernel = device_kernel("coala_learn", *_LEARN)
        learned: tuple[Scalar, Scalar, Scalar, Scalar] = kernel(
            fitted, own, coupled, fitted.dtype.type(strength), largest, scale, mean
        )
        return learned
    return _learn_on_host(
        float(fitted), float(own), float(coupled), strength, float(largest), float(scale), float(mean)
    )


def _learn_on_host(
    fitted: float, own: float, coupled: float, strength: float, largest: float, scale: float, mean: float
) -> tuple[float, float, float, float]:
    """Compute `_learn` in numbers of Python, on which NumPy's functions would take twenty times as long."""
    largest = fitted if fitted > largest else largest
    heard = fitted > NOISE * largest
    quotient = (own + strength * fitted) / max(own + strength * scale * coupled, 1e-300)
    ratio = fitted / max(coupled, 1e-300) if heard else 0.0
    scale = max(MEMORY * scale, min(max(RESERVE * ratio, SMALLEST), LARGEST))
    mean = mean + FORGETTING * (quotient - mean if heard else 0.0)
    return largest, scale, mean, quotient if heard else 1.0


class Pcg:
    """The Kronecker preconditioner: one step, or conjugate gradients, from a residual to a step.

    Parameters
    ----------
    problem : ConvexProblem
    cone_scale_squared : float
        tau^2.
    accuracy : float, optional
        Reduction of the residual by conjugate gradients; by default one step is taken as it is.
    """

    def __init__(self, problem: ConvexProblem, cone_scale_squared: float, accuracy: float | None = None) -> None:
        self.problem, self.metric = problem, cone_metric(problem, cone_scale_squared)
        self.preconditioner = KroneckerPreconditioner(problem, self.metric)
        self.accuracy, self.penalty, self.steps = accuracy, 1.0, 0
        self.quotients: deque[Scalar] = deque(maxlen=WINDOW)
        xp = namespace_of(problem.spectrum)
        self._largest: Scalar = xp.zeros(())
        self.mean_quotient: Scalar = xp.ones(())
        """mu, ()."""
        self.last_step = xp.zeros(problem.shape[1:])
        """In the eigenvectors of Q, (d, P)."""

    def refactor(self, penalty: float) -> None:
        """Follow the penalty, which costs nothing; a last step that is not finite is forgotten."""
        xp = namespace_of(self.last_step)
        self.penalty = penalty
        self.preconditioner.refactor(penalty)
        self.last_step = xp.where(xp.isfinite(self.last_step), self.last_step, 0.0)
        self.quotients.clear()

    def apply(self, residual: Array) -> Array:
        """Return a step (d, P) that takes residual (d, P) away; `steps` then says how many products it took."""
        if self.accuracy is None:
            kron = self.preconditioner
            self.last_step = kron.solve(residual, self.last_step, self.mean_quotient)
            return kron.turn_back(self.last_step)
        step, self.steps = conjugate_gradients(residual, self._whole, self.preconditioner.apply, self.accuracy)
        return step

    def observe(self, fitted: Array) -> None:
        """Learn from ||F~ step||^2 of the last step how good the preconditioner is there.

        Nothing is copied from a device.
        """
        if self.accuracy is not None:
            return
        kron = self.preconditioner
        own, coupled = kron.energies(self.last_step)
        learned = _learn(fitted, own, coupled, 2.0 / self.penalty, self._largest, kron.scale, self.mean_quotient)
        self._largest, kron.scale, self.mean_quotient, quotient = learned
        self.quotients.append(quotient)

    @property
    def is_full(self) -> bool:
        """Whether a window of sweeps has passed since the quality was last asked for, or since the penalty changed."""
        return len(self.quotients) == WINDOW

    def quality(self) -> float:
        """Median over the last window of the curvature along its steps, relative to the preconditioner's."""
        quality = float(np.median(to_numpy(namespace_of(self.quotients[0]).stack(list(self.quotients)))))
        self.quotients.clear()
        return quality

    def _whole(self, b: Array) -> Array:
        """Multiply b (d, P) by the matrix of the b-system."""
        problem = self.problem
        whole: Array = self.metric * b + (2.0 / self.penalty) * problem.predict_adjoint(problem.predict(b))
        return whole
