"""Count conjugate gradient steps of the b-system under several preconditioners, over n, d, P, rho and paired rows.

Run by `python -m tests.bench.pcg`; ten seconds on one core, no times are taken. Features have the falling spectrum of
a language model's, the gates are random, the right side is random in the metric H. Each cell gives the steps that
bring the preconditioned residual down to 0.2 and to 1e-6 of its first length.

H        I + tau^2 X'X alone
diag     H + (2/rho) (share of active rows) X'X per gate
gate     one dense block per gate, H + (2/rho) X'D_i X
nystrom  H and a rank-100 Nystrom approximation of the coupling (Frangella, Tropp & Udell 2023)
axis     one dense P x P block per principal axis, the exact diagonal blocks in that order
kron     H + (2/rho) Q (x) X'X, what `coala_core.cvxnn.pcg` uses
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coala_core.cvxnn.admm import cone_scale_squared
from coala_core.cvxnn.pcg import KroneckerPreconditioner
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.cvxnn.system import cone_metric

Floats = NDArray[np.float64]
Operator = Callable[[Floats], Floats]
SIZES = ((1000, 64, 5), (4000, 64, 5), (16_000, 64, 5), (4000, 64, 20), (4000, 256, 5), (1000, 144, 10))
PAIRED = ((4000, 64, 5), (4000, 64, 20), (1000, 144, 10))
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
RANK = 100
LARGEST_BLOCKS = 256


def problem_of(n: int, d: int, gates: int, paired: bool) -> ConvexProblem:
    """Features (n, d) with spectrum k^-0.7, a constant last; the rows of a pair are correlated by 0.6."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d))
    if paired:
        x[n // 2 :] = 0.6 * x[: n // 2] + 0.8 * x[n // 2 :]
    x = (x * (1.0 + np.arange(d)) ** -0.7) @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = (x - x.mean(0)) / x.std(0)
    x[:, -1] = 1.0
    labels = np.ones(n // 2) if paired else np.sign(x @ rng.standard_normal(d))
    return convex_problem(x, labels, rng.standard_normal((d, gates)), paired=paired)


def steps(whole: Operator, precondition: Operator, right: Floats, targets: tuple[float, ...]) -> list[int]:
    """Steps until the residual, in the metric of the preconditioner, has shrunk to each target."""
    residual, direction = right, np.zeros_like(right)
    needed: list[int] = []
    z = precondition(residual)
    slope = first = float((residual * z).sum())
    for taken in range(2001):
        while targets and slope <= targets[0] ** 2 * first:
            needed, targets = [*needed, taken], targets[1:]
        if not targets:
            return needed
        direction = z + direction
        pull = whole(direction)
        residual = residual - slope / float((direction * pull).sum()) * pull
        z = precondition(residual)
        last, slope = slope, float((residual * z).sum())
        direction = (slope / last) * direction
    return needed + [2000] * len(targets)


def candidates(problem: ConvexProblem, metric: Floats) -> dict[str, Callable[[float], Operator]]:
    """Preconditioners by name: from a penalty to M^-1."""
    lam, share = problem.spectrum[:, None], problem.patterns.mean(axis=0)
    kron = KroneckerPreconditioner(problem, metric)

    def kronecker(rho: float) -> Operator:
        kron.refactor(rho)
        return kron.apply

    found: dict[str, Callable[[float], Operator]] = {
        "H": lambda rho: lambda r: r / metric,
        "diag": lambda rho: lambda r: r / (metric + 2.0 / rho * share * lam),
        "nystrom": nystrom(problem, metric),
        "axis": axis_blocks(problem, metric),
        "kron": kronecker,
    }
    if problem.shape[1] <= LARGEST_BLOCKS:
        found["gate"] = gate_blocks(problem, metric)
    return found


def gate_blocks(problem: ConvexProblem, metric: Floats) -> Callable[[float], Operator]:
    """One generalised eigendecomposition per gate, so that a penalty costs nothing."""
    parts = []
    for pattern in problem.patterns.T:
        rows = problem.difference(pattern[:, None] * problem.features / np.sqrt(metric.T))
        values, vectors = np.linalg.eigh(rows.T @ rows)
        parts.append((values, vectors / np.sqrt(metric)))

    def at(rho: float) -> Operator:
        return lambda r: np.stack(
            [q @ ((q.T @ r[:, i]) / (1.0 + 2.0 / rho * values)) for i, (values, q) in enumerate(parts)], axis=1
        )

    return at


def axis_blocks(problem: ConvexProblem, metric: Floats) -> Callable[[float], Operator]:
    """Eigendecompositions of the diagonal blocks (P, P) of F~'F~ when its unknowns are ordered axis by axis."""
    blocks = []
    for column in problem.features.T:
        rows = problem.difference(column[:, None] * problem.patterns)
        blocks.append(rows.T @ rows)
    values, vectors = np.linalg.eigh(np.stack(blocks))  # (d, P), (d, P, P)

    def at(rho: float) -> Operator:
        inverse = 1.0 / (metric + 2.0 / rho * values)
        return lambda r: np.einsum("kij,kj->ki", vectors, np.einsum("kij,ki->kj", vectors, r) * inverse)

    return at


def nystrom(problem: ConvexProblem, metric: Floats) -> Callable[[float], Operator]:
    """Randomised rank-`RANK` approximation of H^-1/2 F~'F~ H^-1/2; the rest counts as its smallest eigenvalue."""
    root = np.sqrt(metric)
    shape = (problem.shape[1], problem.shape[2])
    test = np.linalg.qr(np.random.default_rng(1).standard_normal((shape[0] * shape[1], RANK)))[0]
    columns = [problem.predict_adjoint(problem.predict(c.reshape(shape) / root)) / root for c in test.T]
    sketch = np.stack([c.ravel() for c in columns], axis=1)
    shift = 1e-12 * np.linalg.norm(sketch)
    chol = np.linalg.cholesky(test.T @ (sketch + shift * test))
    vectors, sigma, _ = np.linalg.svd(np.linalg.solve(chol, (sketch + shift * test).T).T, full_matrices=False)
    values = np.maximum(sigma**2 - shift, 0.0)

    def at(rho: float) -> Operator:
        gain = (1.0 + 2.0 / rho * values[-1]) / (1.0 + 2.0 / rho * values) - 1.0

        def apply(r: Floats) -> Floats:
            flat = (r / root).ravel()
            result: Floats = (flat + vectors @ (gain * (vectors.T @ flat))).reshape(shape) / root
            return result

        return apply

    return at


def row(problem: ConvexProblem, rho: float, names: dict[str, Callable[[float], Operator]]) -> dict[str, list[int]]:
    """Steps of every candidate at one penalty."""
    metric = cone_metric(problem, cone_scale_squared(problem))
    right = np.random.default_rng(3).standard_normal(metric.shape[:1] + problem.shape[2:]) * np.sqrt(metric)

    def whole(b: Floats) -> Floats:
        result: Floats = metric * b + 2.0 / rho * problem.predict_adjoint(problem.predict(b))
        return result

    return {name: steps(whole, at(rho), right, (0.2, 1e-6)) for name, at in names.items()}


def main() -> None:
    """Print the table; rho is given per 4,000 rows, with which its natural size grows."""
    write = sys.stdout.write
    write("| n | d | P | paired | 4000 rho / n | H | diag | gate | nystrom | axis | kron |\n")
    write("| --- " * 11 + "|\n")
    for paired, sizes in ((False, SIZES), (True, PAIRED)):
        for n, d, gates in sizes:
            problem = problem_of(n, d, gates, paired)
            names = candidates(problem, cone_metric(problem, cone_scale_squared(problem)))
            for penalty in PENALTIES:
                found = row(problem, penalty * n / 4000, names)
                cells = ["{}, {}".format(*found[name]) for name in ("H", "diag", "gate", "nystrom", "axis", "kron")]
                write(
                    "| "
                    + " | ".join([f"{n} | {d} | {gates} | {'yes' if paired else ''} | {penalty:g}", *cells])
                    + " |\n"
                )


if __name__ == "__main__":
    main()
