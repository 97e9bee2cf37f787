import math
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coala_core.plots import (
    DPI,
    SIZE,
    _column,
    _edges_around_zero,
    plot_margin_histogram,
    plot_margins_over_epochs,
    plot_path,
    plot_residuals,
)

BLUE, ORANGE, RED, GREEN = (0, 114, 178), (230, 159, 0), (213, 94, 0), (0, 158, 115)

EPOCHS = [
    {
        "epoch": e,
        "rewards/margins": 0.1 * e,
        "eval_rewards/margins": 0.05 * e,
        "rewards/accuracies": 0.5 + 0.01 * e,
        "eval_rewards/accuracies": 0.5 + 0.005 * e,
    }
    for e in range(40)
]
SWEEPS = [
    {
        "sweep": k,
        "primal_residual": math.exp(-k / 90),
        "dual_residual": math.exp(-k / 70),
        "gap": math.exp(-k / 60),
        "cone_violation": 1e-3 * math.exp(-k / 40),
    }
    for k in range(25, 501, 25)
]
WEIGHTS = [
    {"lasso_weight": w, "train_accuracy": 0.8, "validation_accuracy": 0.6, "neurons": 4, "gap": 1e-3 * w}
    for w in (0.5, 0.25, 0.125)
]
DRAWINGS = {
    "margins_over_epochs": (plot_margins_over_epochs, EPOCHS),
    "margin_histogram": (plot_margin_histogram, [-0.5, 0.25, 0.5, 1.0]),
    "residuals": (plot_residuals, SWEEPS),
    "path": (plot_path, WEIGHTS),
}
every_drawing = pytest.mark.parametrize(("draw", "data"), DRAWINGS.values(), ids=DRAWINGS)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def shows(path: Path, colour: tuple[int, int, int]) -> bool:
    """Whether some pixels have exactly this colour."""
    return bool((pixels(path) == colour).all(axis=-1).sum() > 5)


@every_drawing
def test_a_figure_is_a_png_of_the_stated_width_and_of_the_same_bytes_twice(tmp_path, draw, data):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    draw(data, first)
    draw(data, second)
    content = first.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">I", content[16:20])[0] == round(SIZE[0] * DPI)
    assert b"Software" not in content and b"tIME" not in content
    assert content == second.read_bytes()


@every_drawing
def test_without_data_a_figure_is_drawn_that_says_so(tmp_path, draw, data):
    draw(data, tmp_path / "full.png")
    draw([], tmp_path / "empty.png")
    assert pixels(tmp_path / "empty.png").shape == pixels(tmp_path / "full.png").shape
    assert (tmp_path / "empty.png").read_bytes() != (tmp_path / "full.png").read_bytes()


def test_both_splits_are_drawn_and_an_absent_one_is_not(tmp_path):
    plot_margins_over_epochs(EPOCHS, tmp_path / "both.png")
    assert shows(tmp_path / "both.png", BLUE) and shows(tmp_path / "both.png", RED)
    train_only = [{key: value for key, value in row.items() if not key.startswith("eval_")} for row in EPOCHS]
    plot_margins_over_epochs(train_only, tmp_path / "train.png")
    # Only the legend still has the other colour.
    both, one = ((pixels(tmp_path / name) == RED).all(axis=-1).sum() for name in ("both.png", "train.png"))
    assert one < both / 3


@pytest.mark.parametrize(
    ("margins", "negative", "positive"),
    [([-1.0, -0.5], True, False), ([0.5, 1.0], False, True), ([-1.0, 1.0], True, True), ([0.0, 0.0], True, False)],
)
def test_the_histogram_colours_each_side_of_zero(tmp_path, margins, negative, positive):
    plot_margin_histogram(margins, tmp_path / "h.png")
    assert (shows(tmp_path / "h.png", ORANGE), shows(tmp_path / "h.png", BLUE)) == (negative, positive)


@pytest.mark.parametrize("values", [[-3.0, 5.0], [2.0, 2.0], [0.0], [-1e-9, 1e9]])
def test_zero_is_an_edge_and_all_values_lie_inside(values):
    edges = _edges_around_zero(np.array(values))
    assert 0.0 in edges
    assert edges[0] <= min(values) and max(values) <= edges[-1]
    assert (np.diff(edges) > 0).all()


def test_exact_zeros_stay_visible_beside_small_positive_margins(tmp_path):
    plot_margin_histogram([0.0] * 5 + [0.001] * 50 + [1.0], tmp_path / "h.png")
    assert shows(tmp_path / "h.png", ORANGE)


def test_margins_that_are_not_finite_do_not_stop_the_histogram(tmp_path):
    plot_margin_histogram([math.nan, math.inf, 1.0], tmp_path / "some.png")
    plot_margin_histogram([math.nan], tmp_path / "none.png")
    assert shows(tmp_path / "some.png", BLUE) and not shows(tmp_path / "none.png", BLUE)


def test_log_axes_take_zero_negative_and_infinite_values(tmp_path, recwarn):
    odd = [
        row | {"cone_violation": 0.0, "gap": gap} for row, gap in zip(SWEEPS, [math.inf, -1.0, None] * 7, strict=False)
    ]
    plot_residuals(odd, tmp_path / "odd.png")
    assert shows(tmp_path / "odd.png", BLUE) and shows(tmp_path / "odd.png", GREEN)  # zeros are marked on the floor
    plot_residuals([{"sweep": 1, "primal_residual": 0.0}], tmp_path / "zero.png")
    plot_path(
        [{"lasso_weight": 0.0}, {"lasso_weight": 0.5, "gap": 0.0, "neurons": 0}], tmp_path / "path.png", chosen=0.5
    )
    assert not recwarn.list


def test_the_chosen_weight_is_marked(tmp_path):
    plot_path(WEIGHTS, tmp_path / "with.png", chosen=0.25)
    plot_path(WEIGHTS, tmp_path / "without.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_absent_and_infinite_values_of_a_column_become_nan():
    column = _column([{"gap": 0.5}, {}, {"gap": None}, {"gap": math.inf}], "gap")
    np.testing.assert_array_equal(column, [0.5, np.nan, np.nan, np.nan])
