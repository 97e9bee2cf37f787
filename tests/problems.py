"""Small problems with labels from a hidden network, for the solver's tests."""

from __future__ import annotations

import numpy as np

from coala_core.backend import asarray
from coala_core.config import SolveConfig


def random_features(n, d, seed):
    """Raw features (n, d) of uneven scale, labels from two hidden ReLU neurons; both classes occur."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.logspace(-1, 1, d) + np.linspace(-3, 3, d)
    z = (x - x.mean(0)) / (x.std(0) + 1e-12)
    score = np.maximum(z @ rng.standard_normal((d, 2)), 0) @ np.array([1.0, -1.0]) + 0.3 * rng.standard_normal(n)
    return x, np.where(score > np.median(score), 1.0, -1.0)


def paired_features(rows=200, d=6, seed=0):
    """Raw features (n, d) float32 whose first half is chosen, and their labels; n is near `rows`."""
    x, y = random_features(rows, d, seed)
    pairs = int(min((y > 0).sum(), (y < 0).sum()))
    x = np.vstack([x[y > 0][:pairs], x[y < 0][:pairs]]).astype(np.float32)
    return x, np.repeat([1.0, -1.0], pairs)


def config_for(backend, **more):
    """A solve of few gates to three digits on a backend."""
    settings = {"gates": 5, "probe_gates": 2, "tolerance": 1e-3, "max_cone_violation": 1e-3, "max_sweeps": 5000}
    return SolveConfig(backend=backend, **{**settings, **more})


def random_problem(n, d, gates, seed):
    """Prepared features (n, d), labels, and directions (d, gates); patterns may repeat on tiny sizes."""
    x, y = random_features(n, d, seed)
    z = (x - x.mean(0)) / (x.std(0) + 1e-12)
    z[:, -1] = 1.0
    return z, y, np.random.default_rng(seed + 1).standard_normal((d, gates))


def on_device(problem, xp):
    """The same convex program with its arrays in another namespace."""
    names = "features", "labels", "patterns", "spectrum", "axes"
    parts = {name: asarray(getattr(problem, name), xp) for name in names}
    return type(problem)(**parts, paired=problem.paired)
