"""The benchmark's problems, each prepared once into a folder of .npy files by a process of its own.

A folder holds features.npy (n, d) float32 as a caller of `fit_head` has them, labels.npy (n,), gates.npy (d + 1, P) on
standardised features, x.npy (n, d + 1) float64 for the peers, and meta.json. Preparing takes more memory than solving,
hence `python -m tests.bench.solver.problems NAME`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.solver.measure import Floats

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared"
SCRATCH = ROOT / "data" / "store" / "bench-solver"
GENERATOR = SHARED / "problem_m.py"
ALL_PEERS = ("pyscnn AL", "pyscnn R-FISTA", "Clarabel", "SCS")
TOLERANCES = (1e-2, 1e-3, 1e-4)
GROWTH_ROWS = (4_000, 8_000, 16_000, 32_000)


@dataclass(frozen=True)
class Problem:
    """What to solve, how tightly, and against whom."""

    name: str
    source: str
    """"plain" (generated here), "problem_m" (../shared/problem_m.py) or "book2dial"."""
    n: int = 0
    d: int = 0
    """Columns, the constant one included."""
    gates: int = 10
    weights: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    """Weights as shares of the smallest one that gives the zero head."""
    tolerances: tuple[float, ...] = TOLERANCES
    target: float = 1e-3
    """Tolerance whose time is the peers' budget."""
    peers: tuple[str, ...] = ()
    unfit: dict[str, str] = field(default_factory=dict)
    """Peers that cannot take it, and why."""
    gated: bool = False
    """Whether the gated program is solved too."""
    streamed: bool = False
    """Whether features stay on disk."""
    device: bool = False
    """Whether it is for a GPU alone."""
    max_seconds: float = 120.0


_STREAMED_UNFIT = {
    "pyscnn R-FISTA": "solves the gated program, measured on S, M and real",
    "Clarabel": "its matrix alone has 2 x 10^9 entries",
    "SCS": "its matrix alone has 2 x 10^9 entries",
}
SHARE_OF_300 = 300.0 / 762.05
"""Weight 300 on M as a share of its zero-head weight."""
WEIGHT_ON_XL = 8_300.0
"""About that share: the zero-head weight of such problems is 0.16 n and more, and finding it exactly takes too long."""

PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem(
            "S", "plain", 300, 20, 5, (0.1, 1.0, 10.0), tolerances=(*TOLERANCES, 1e-6), peers=ALL_PEERS, gated=True
        ),
        Problem("M", "problem_m", 4_000, 576, 10, (1.0, 30.0, 300.0), peers=ALL_PEERS, gated=True),
        Problem("real", "book2dial", gates=50, shares=(0.125,), peers=ALL_PEERS, gated=True),
        Problem(
            "L",
            "problem_m",
            131_212,
            768,
            10,
            shares=(SHARE_OF_300, 0.04),
            tolerances=(1e-2,),
            target=1e-2,
            peers=("pyscnn AL",),
            unfit=_STREAMED_UNFIT,
            streamed=True,
            max_seconds=900.0,
        ),
        Problem(
            "XL",
            "problem_m",
            131_212,
            4_096,
            10,
            weights=(WEIGHT_ON_XL,),
            unfit=dict.fromkeys(ALL_PEERS, "the device machine has no registry to install it from"),
            device=True,
            max_seconds=900.0,
        ),
    )
}
GROWTH = tuple(Problem(f"growth-{n}", "problem_m", n, 576, 10, (30.0 * n / GROWTH_ROWS[0],)) for n in GROWTH_ROWS)
QUICK = {
    "S": PROBLEMS["S"],
    "M": Problem("M", "problem_m", 500, 64, 10, (1.0, 10.0), peers=ALL_PEERS, gated=True, max_seconds=20.0),
}
QUICK_GROWTH = tuple(Problem(f"growth-{n}", "problem_m", n, 64, 10, (10.0 * n / 500,)) for n in (500, 1_000, 2_000))


def absent(problem: Problem) -> str | None:
    """Say what the problem needs and this place lacks, if anything."""
    if problem.source == "problem_m" and not GENERATOR.is_file():
        return f"needs {GENERATOR}"
    if problem.source == "book2dial" and not (SHARED / "data" / "book2dial").is_dir():
        return f"needs {SHARED / 'data' / 'book2dial'}"
    if problem.device:
        from coala_core.backend import resolve_backend

        if resolve_backend("auto") is np:
            return "needs a CUDA device and CuPy"
    return None


def folder_of(problem: Problem) -> Path:
    """Return the folder of a problem, another one for another definition."""
    text = json.dumps([problem.source, problem.n, problem.d, problem.gates, problem.weights, problem.shares])
    if problem.source == "problem_m":
        text += GENERATOR.read_text(encoding="utf-8")
    return SCRATCH / f"{problem.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def load_meta(folder: Path) -> dict[str, Any]:
    """Read the facts of a prepared problem: n, d, gates, weights, zero_weight where it was needed."""
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return meta


def prepare(problem: Problem) -> None:
    """Write the folder of a problem; meta.json comes last, so that a folder with one is whole."""
    from coala_core.config import SolveConfig
    from coala_core.cvxnn import sample_gates
    from coala_core.cvxnn.features import fit_standardiser

    folder = folder_of(problem)
    folder.mkdir(parents=True, exist_ok=True)
    features, labels, gates = _generate(problem)
    np.save(folder / "features.npy", features)
    np.save(folder / "labels.npy", labels.astype(np.float64))
    x: Floats = fit_standardiser(features).apply(features)
    del features
    if gates is None:
        gates = sample_gates(x, labels, SolveConfig(gates=problem.gates))
    np.save(folder / "gates.npy", gates.astype(np.float64))
    if problem.peers:
        np.save(folder / "x.npy", x)
    meta: dict[str, Any] = {"n": x.shape[0], "d": x.shape[1], "gates": gates.shape[1], "weights": problem.weights}
    if problem.shares:
        meta["zero_weight"] = _zero_weight(x, labels, gates)
        meta["weights"] = [share * meta["zero_weight"] for share in problem.shares]
    (folder / "meta.json").write_text(json.dumps({**meta, "problem": asdict(problem)}), encoding="utf-8")


def _generate(problem: Problem) -> tuple[NDArray[np.float32], Floats, Floats | None]:
    """Features (n, d) without the constant, labels, and gates where the source tells them."""
    if problem.source == "book2dial":
        from tests.bench.solver.book2dial import features_and_labels

        return *features_and_labels(SCRATCH / "book2dial"), None
    if problem.source == "problem_m":
        sys.path.insert(0, str(SHARED))
        from problem_m import problem_m  # type: ignore[import-not-found]

        x, labels = problem_m(problem.n, problem.d)
        # The directions of its gates_m; on (x, 1) standardised they mean the same rows up to rounding.
        gates = np.random.default_rng(0).standard_normal((problem.d, problem.gates)).astype(np.float32)
        return x[:, :-1], labels.astype(np.float64), gates.astype(np.float64)
    rng = np.random.default_rng(0)
    plain = rng.standard_normal((problem.n, problem.d - 1)).astype(np.float32)
    hidden, out = rng.standard_normal((problem.d - 1, 8)), rng.standard_normal(8)
    truth = np.maximum(plain @ hidden, 0.0) @ out
    labels = np.where(truth - np.median(truth) + 0.5 * truth.std() * rng.standard_normal(problem.n) >= 0.0, 1.0, -1.0)
    return plain, labels, rng.standard_normal((problem.d, problem.gates))


def _zero_weight(x: Floats, labels: Floats, gates: Floats) -> float:
    """Smallest lasso weight that gives the zero head."""
    from coala_core.cvxnn import convex_problem, zero_head_weight

    return zero_head_weight(convex_problem(x, labels, gates))


if __name__ == "__main__":
    _known = {problem.name: problem for problem in (*PROBLEMS.values(), *GROWTH)}
    _quick = {problem.name: problem for problem in (*QUICK.values(), *QUICK_GROWTH)}
    prepare((_quick if "--quick" in sys.argv else _known)[sys.argv[1]])
