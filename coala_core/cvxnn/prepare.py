"""Raw features in, the sampled convex program out: everything that does not depend on the lasso weight."""

from __future__ import annotations

from dataclasses import dataclass

from coala_core.backend import Array, asarray, resolve_backend
from coala_core.config import SolveConfig
from coala_core.cvxnn.admm import back_end_for
from coala_core.cvxnn.features import Standardiser, check_features, check_pairs, check_types, fit_standardiser
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.gates import check_gates, sample_gates
from coala_core.cvxnn.linear import BackEnd
from coala_core.cvxnn.outcome import WarmStart
from coala_core.cvxnn.problem import ConvexProblem, convex_problem


@dataclass(frozen=True, eq=False)
class Prepared:
    """A program with what leads back from it to raw features."""

    features: Array
    """Prepared features, (n, k): standardised, a constant 1 last."""
    standardiser: Standardiser
    """From raw features to prepared ones."""
    directions: Array
    """Gate directions on prepared features, (k, P)."""
    problem: ConvexProblem
    """In the principal axes of the prepared features."""
    back_end: BackEnd
    """Shared by all weights."""


def prepare(features: Array, labels: Array, config: SolveConfig, gates: Array | None, caller: str) -> Prepared:
    """Check, standardise, choose gates, rotate; on the configured backend.

    Raises
    ------
    ValueError
        On behalf of the public function `caller`, as it says.
    """
    xp = resolve_backend(config.backend)
    paired = config.rows == "pairwise"
    check_types(features, labels, gates, caller)  # before they reach a device, which takes no objects
    features, labels = asarray(features, xp), asarray(labels, xp)
    check_features(features, labels, caller)
    if paired:
        check_pairs(labels, caller)
    standardiser = fit_standardiser(features)
    x = standardiser.apply(features)  # (n, d + 1)
    if gates is None:
        directions = asarray(sample_gates(x, labels, config), xp)
    else:
        directions = asarray(gates, xp, xp.float64)
        check_gates(x, directions, caller)
    targets = xp.ones(len(x) // 2) if paired else labels
    kind = GatedProblem if config.activation == "gated_relu" else ConvexProblem
    problem = convex_problem(x, targets, directions, paired=paired, kind=kind)
    return Prepared(x, standardiser, directions, problem, back_end_for(problem, config))


def check_warm_start(warm_start: WarmStart | None, problem: ConvexProblem) -> None:
    """Refuse a start from other data.

    Raises
    ------
    ValueError
        If its arrays have other shapes than the problem's.
    """
    n, d, gates = problem.shape
    if warm_start is None:
        return
    shapes = [tuple(part.shape) for part in warm_start.state[:2]]
    if shapes != [(problem.halves, d, gates), (problem.halves, problem.cone_rows, gates)]:
        raise ValueError(
            f"`fit_head(warm_start=...)` must come from the same data and gates, got shapes {shapes} for "
            f"{n} rows, {d} axes, {gates} gates and {problem.halves} vectors a gate; leave it out."
        )
