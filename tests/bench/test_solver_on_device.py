"""The child processes of `make bench-solver`, in this process, where CuPy's rules hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.solver import ours
from tests.bench.solver.roofline import REPEATS
from tests.imitated_cupy import LEDGER, imitated_cupy
from tests.problems import paired_features

pytestmark = pytest.mark.slow


@pytest.fixture
def task(tmp_path: Path):
    """A small problem on disk, to be solved by CuPy."""
    features, labels = paired_features()
    np.save(tmp_path / "features.npy", features)
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "gates.npy", np.random.default_rng(0).standard_normal((features.shape[1] + 1, 4)))
    common = {"folder": str(tmp_path), "backend": "cupy", "streamed": False, "max_sweeps": 3000}
    return {**common, "weight": 2.0, "tolerance": 1e-2, "max_seconds": 60.0, "activation": "relu"}


def test_a_solve_tells_what_the_device_gave(task):
    with imitated_cupy():
        found = ours.solve(task)
    assert found["converged"]
    assert found["device_mib"] == 0.0  # of the imitation's pool
    assert ours.solve({**task, "backend": "numpy"})["device_mib"] is None


def test_sweeps_are_timed_when_the_device_is_done_with_them(task):
    with imitated_cupy():
        LEDGER.clear()
        found = ours.sweeps({**task, "intervals": 4, "check_every": 10, "limits": True})
        waits = LEDGER.reads.count("synchronize")
    repeated = 3 * 2 * (REPEATS + 1)  # products, copy and square in two precisions
    assert waits == 4 + repeated
    assert set(found["limits"]) == {"float32", "float64"}
    assert all(cost["sweep_s"] > 0.0 for cost in found["costs"].values())


def test_paths_and_penalties_run_there(task):
    with imitated_cupy():
        found = ours.path(task)
        assert found["converged"]
        assert found["weights"] == 10
        assert ours.penalty({**task, "ratios": [1.0]})["adaptive"] > 0
