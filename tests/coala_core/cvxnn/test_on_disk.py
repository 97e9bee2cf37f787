"""Rows that are read block by block: the same program, the same head, and memory that does not grow with rows."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from coala_core.config import SolveConfig
from coala_core.cvxnn import Status, fit_head, fit_path, needs_disk, solve
from coala_core.cvxnn import features as features_module
from coala_core.cvxnn import problem as problem_module
from coala_core.cvxnn import sweeps as sweeps_module
from coala_core.cvxnn.features import fit_standardiser
from coala_core.cvxnn.gated import GatedProblem
from coala_core.cvxnn.gates import ArrayRows
from coala_core.cvxnn.on_disk import problem_on_disk, standardised_rows
from coala_core.cvxnn.problem import ConvexProblem, convex_problem
from coala_core.scratch import Scratch
from tests.dense import optimum
from tests.problems import random_features

FEATURES, LABELS = random_features(120, 6, 0)
FEATURES = FEATURES.astype(np.float32)
CONFIG = SolveConfig(gates=5, probe_gates=2, tolerance=1e-5, max_cone_violation=1e-5, max_sweeps=10_000)
PAIRED = np.repeat([1.0, -1.0], 60)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, the last one shorter."""
    monkeypatch.setattr(problem_module, "BLOCK_BYTES", 1200)
    monkeypatch.setattr(features_module, "BLOCK_BYTES", 1000)


def on_disk(**changes):
    return CONFIG.model_copy(update={"storage": "disk", **changes})


def test_rows_are_those_of_the_array(small_blocks):
    rows = standardised_rows(FEATURES)
    whole = ArrayRows(fit_standardiser(FEATURES).apply(FEATURES))
    directions = np.random.default_rng(0).standard_normal((7, 4))
    assert rows.shape == whole.shape == (120, 7)
    assert_allclose(rows.gram(), whole.gram(), rtol=1e-12, atol=1e-10)
    assert_allclose(rows.product(directions), whole.product(directions), rtol=1e-12, atol=1e-12)
    assert_allclose(rows.correlation(LABELS), whole.correlation(LABELS), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", [ConvexProblem, GatedProblem])
@pytest.mark.parametrize("paired", [False, True])
def test_the_program_is_that_of_the_array_up_to_float32(small_blocks, tmp_path, kind, paired):
    directions = np.random.default_rng(0).standard_normal((7, 4))
    targets = np.ones(60) if paired else LABELS
    rows = standardised_rows(FEATURES)
    disk = problem_on_disk(rows, targets, directions, Scratch(tmp_path), paired=paired, kind=kind)
    memory = convex_problem(rows.standardiser.apply(FEATURES), targets, directions, paired=paired, kind=kind)
    assert (disk.shape, disk.halves, disk.paired) == (memory.shape, memory.halves, memory.paired)
    assert disk.patterns.astype(bool).tobytes() == memory.patterns.astype(bool).tobytes()
    rng = np.random.default_rng(1)
    back = np.stack([disk.axes.T @ z for z in rng.standard_normal((disk.halves, 7, 4))])
    same = np.stack([memory.axes.T @ (disk.axes @ z) for z in back])  # the same point in other axes
    assert_allclose(disk.apply_f(back), memory.apply_f(same), rtol=1e-5, atol=1e-5)
    assert disk.objective(back, 2.0) == pytest.approx(memory.objective(same, 2.0), rel=1e-6)
    assert_allclose(disk.column_signs, memory.column_signs)


@pytest.mark.parametrize("activation", ["relu", "gated_relu"])
@pytest.mark.parametrize("rows", ["pointwise", "pairwise"])
def test_the_head_is_that_of_the_array(small_blocks, activation, rows):
    labels = PAIRED if rows == "pairwise" else LABELS
    changes = {"activation": activation, "rows": rows, "tolerance": 1e-7, "max_cone_violation": 1e-7}
    memory = fit_head(FEATURES, labels, CONFIG.model_copy(update=changes), lasso_weight=2.0)
    disk = fit_head(FEATURES, labels, on_disk(linear="pcg", **changes), lasso_weight=2.0)
    assert (memory.status, disk.status) == (Status.CONVERGED, Status.CONVERGED)
    assert disk.upper_bound == pytest.approx(memory.upper_bound, rel=1e-6)
    assert disk.network_objective == pytest.approx(disk.upper_bound, rel=1e-5)
    assert_allclose(disk.head.score(FEATURES), memory.head.score(FEATURES), atol=2e-3)


def test_the_optimum_is_that_of_cvxpy_and_lies_between_the_bounds(small_blocks):
    gates = np.random.default_rng(3).standard_normal((7, 4))
    z = fit_standardiser(FEATURES).apply(FEATURES)
    expected, _ = optimum(z, LABELS, (z @ gates >= 0).astype(float), 1.5)
    found = fit_head(FEATURES, LABELS, on_disk(gates=4), gates=gates, lasso_weight=1.5)
    assert found.status is Status.CONVERGED
    assert found.lower_bound <= expected * (1 + 1e-6)
    assert found.upper_bound == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("paired", [False, True])
def test_sweeps_in_float32_are_the_same_to_the_last_bit(monkeypatch, tmp_path, paired):
    monkeypatch.setattr(sweeps_module, "SINGLE_FROM", 1)
    directions = np.random.default_rng(3).standard_normal((7, 4))
    targets = np.ones(60) if paired else LABELS
    disk = problem_on_disk(standardised_rows(FEATURES), targets, directions, Scratch(tmp_path), paired=paired)
    wide = {name: getattr(disk, name).astype(np.float64) for name in ("features", "patterns")}
    config = SolveConfig(linear="pcg", max_sweeps=40, check_every=40, tolerance=1e-9)
    first, second = (solve(problem, 1.5, config) for problem in (disk, replace(disk, scratch=None, **wide)))
    assert [record.bits for record in first.history] == [record.bits for record in second.history] == [32]
    for ours, theirs in zip(first.warm_start.state, second.warm_start.state, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert first.certificate == second.certificate


@pytest.mark.slow
def test_a_path_follows_the_same_weights(small_blocks):
    memory, disk = (fit_path(FEATURES, LABELS, config) for config in (CONFIG, on_disk()))
    assert disk.zero_weight == pytest.approx(memory.zero_weight, rel=1e-5)
    for ours, theirs in zip(disk.solutions, memory.solutions, strict=True):
        assert ours.status is theirs.status is Status.CONVERGED
        assert ours.upper_bound == pytest.approx(theirs.upper_bound, rel=3e-5)


def test_a_memory_map_is_read_in_place(tmp_path):
    np.save(tmp_path / "x.npy", FEATURES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    config = CONFIG.model_copy(update={"max_sweeps": 60})
    found = fit_head(mapped, LABELS, config, lasso_weight=2.0, scratch=tmp_path)
    assert found.upper_bound == fit_head(FEATURES, LABELS, on_disk(max_sweeps=60), lasso_weight=2.0).upper_bound
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npy"]


def test_what_does_not_fit_goes_to_disk():
    small = SolveConfig(gates=5, probe_gates=0, backend="numpy", max_memory_gib=1.0)
    # 20 * 101 + 5 * 308 + 12 * 100 = 4,760 bytes a row: 225,576 rows fill 1 GiB.
    assert not needs_disk(225_576, 100, small)
    assert needs_disk(225_577, 100, small)
    assert not needs_disk(10**9, 100, small.model_copy(update={"storage": "memory"}))
    assert needs_disk(1, 1, small.model_copy(update={"storage": "disk"}))


@pytest.mark.parametrize("linear", ["dual", "primal"])
def test_a_dense_system_on_disk_is_refused(linear):
    with pytest.raises(ValueError, match=rf"must fit into memory for `solve.linear` '{linear}', got rows .*; set"):
        fit_head(FEATURES, LABELS, on_disk(linear=linear), lasso_weight=2.0)


def test_bad_entries_are_named_by_their_row(small_blocks):
    bad = FEATURES.copy()
    bad[77, 2], bad[90, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"got 2 entries that are not, first in row 77"):
        fit_head(bad, LABELS, on_disk(), lasso_weight=2.0)


PEAK = """
import sys, pathlib
import numpy as np
from coala_core.config import SolveConfig
from coala_core.cvxnn import fit_head, products
products.LARGE = 0  # PyTorch takes its room at both sizes
folder, rows = pathlib.Path(sys.argv[1]), int(sys.argv[2])
rng, peak = np.random.default_rng(0), [0]
x = np.lib.format.open_memmap(folder / f"{rows}.npy", mode="w+", dtype=np.float32, shape=(rows, 200))
for start in range(0, rows, 5000):
    x[start : start + 5000] = rng.standard_normal((min(5000, rows - start), 200), dtype=np.float32)
y = np.where(x[:, 0] > 0, 1.0, -1.0)
def look(*_):
    status = pathlib.Path("/proc/self/status").read_text()
    peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]))
config = SolveConfig(gates=8, probe_gates=2, max_sweeps=30, check_every=5, tolerance=1e-9, backend="numpy")
fit_head(x, y, config, lasso_weight=0.01 * rows, progress=look, scratch=folder)
print(peak[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_rows(tmp_path):
    few, many = (
        int(subprocess.run([sys.executable, "-c", PEAK, tmp_path, str(rows)], capture_output=True, check=True).stdout)
        for rows in (50_000, 400_000)
    )
    # X takes 40 and 320 MiB as float32. Per row memory holds y, r and what adds up to them: some tens of bytes.
    assert many - few < 40 * 1024
