"""Figures of a run, from plain data to PNG files; the same data always gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

Row = Mapping[str, Any]
Floats = NDArray[np.float64]

SIZE = (7.2, 4.4)
DPI = 150
# Okabe and Ito's palette, told apart by colour-blind readers.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B6B6B"


def plot_margins_over_epochs(history: Sequence[Row], path: Path) -> None:
    """Draw reward margin and pair accuracy of both splits over the epochs of Phase II.

    Parameters
    ----------
    history : sequence of rows
        With ``epoch``, ``rewards/margins`` (beta times the score difference of eq. (7), any real
        number), ``rewards/accuracies`` (share of pairs in [0, 1]), and both with ``eval_`` before.
        What is absent or not finite is left out.
    path : Path
        PNG to write.
    """
    figure = Figure(figsize=(SIZE[0], 5.6))
    upper, lower = figure.subplots(2, 1, sharex=True)
    epochs = _column(history, "epoch")
    mark = "." if len(history) < 30 else None
    for axes, name in ((upper, "rewards/margins"), (lower, "rewards/accuracies")):
        axes.plot(epochs, _column(history, name), color=BLUE, label="train", marker=mark)
        axes.plot(epochs, _column(history, f"eval_{name}"), color=RED, linestyle="--", label="validation", marker=mark)
        tidy(axes, empty=not history)
    upper.axhline(0, color=GREY, linewidth=0.8)
    upper.set_ylabel("reward margin (nats)")
    lower.axhline(0.5, color=GREY, linewidth=0.8)
    lower.set(ylabel="share of pairs in order", xlabel="epoch")
    upper.legend(frameon=False, loc="best")
    upper.set_title("Phase II: margin and accuracy on pairs")
    save(figure, path)


def plot_margin_histogram(margins: ArrayLike, path: Path) -> None:
    """Draw the distribution of reward margins, with zero marked and the share above it.

    Parameters
    ----------
    margins : (n,) array-like
        Reward of the chosen less that of the rejected response, one number a pair; not finite
        ones are left out and counted in the title.
    path : Path
        PNG to write.
    """
    values = np.asarray(margins, dtype=np.float64).ravel()
    finite = values[np.isfinite(values)]
    figure = Figure(figsize=SIZE)
    axes = figure.subplots()
    title = "Margins of pairs"
    if finite.size:
        edges = _edges_around_zero(finite)
        sides = [finite[finite <= 0], finite[finite > 0]]
        axes.hist(sides, bins=edges.tolist(), color=[ORANGE, BLUE], stacked=True, edgecolor="white", linewidth=0.5)
        title = f"{np.mean(finite > 0):.1%} of {finite.size:,} pairs have a margin above zero"
    if finite.size < values.size:
        title += f" ({values.size - finite.size:,} not finite)"
    axes.axvline(0, color="black", linewidth=1.2)
    axes.set(xlabel="reward of chosen minus reward of rejected (nats)", ylabel="pairs", title=title)
    tidy(axes, empty=not finite.size)
    save(figure, path)


def plot_residuals(history: Sequence[Row], path: Path) -> None:
    """Draw residuals, certified relative gap and cone violation of one solve over its sweeps.

    Parameters
    ----------
    history : sequence of rows
        With ``sweep``, ``primal_residual``, ``dual_residual``, ``gap`` and ``cone_violation``,
        none below zero but the gap, whose size is drawn. The axis is logarithmic: a zero is drawn as a hollow
        mark on the floor, and what is absent, negative or not finite is left out.
    path : Path
        PNG to write.
    """
    curves = {
        "primal_residual": ("primal residual", BLUE, "-"),
        "dual_residual": ("dual residual", ORANGE, "--"),
        "gap": ("certified relative gap", RED, "-"),
        "cone_violation": ("cone violation", GREEN, ":"),
    }
    figure = Figure(figsize=SIZE)
    axes = figure.subplots()
    columns = {name: _column(history, name) for name in curves}
    columns["gap"] = np.abs(columns["gap"])  # below zero where the cones are violated
    positive = np.concatenate([*columns.values(), np.empty(0)])
    positive = positive[np.isfinite(positive) & (positive > 0)]
    floor = positive.min() / 3 if positive.size else 1e-3
    sweeps = _column(history, "sweep")
    for name, (label, colour, line) in curves.items():
        values = columns[name]
        axes.plot(
            sweeps, np.where(values > 0, values, np.nan), line, color=colour, label=label, marker=".", markersize=4
        )
        zeros = values == 0
        axes.plot(sweeps[zeros], np.full(zeros.sum(), floor), "v", markerfacecolor="none", color=colour, markersize=5)
    if any(np.any(values == 0) for values in columns.values()):
        axes.plot([], [], "v", markerfacecolor="none", color=GREY, markersize=5, label="exactly zero")
    axes.set_yscale("log")
    axes.set(xlabel="ADMM sweep", ylabel="relative size", title="Phase I: how one solve converges")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    tidy(axes, empty=not history)
    save(figure, path)


def plot_path(rows: Sequence[Row], path: Path, chosen: float | None = None) -> None:
    """Draw accuracy, neurons and certified gap of every solution of the path over its weight.

    Parameters
    ----------
    rows : sequence of rows
        With ``lasso_weight`` (> 0), ``train_accuracy``, ``validation_accuracy`` (in [0, 1]),
        ``neurons`` and ``gap``; what is absent or not finite is left out.
    path : Path
        PNG to write.
    chosen : float, optional
        Weight that was chosen, marked by a line.
    """
    figure = Figure(figsize=(SIZE[0], 6.6))
    accuracy, neurons, gap = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    rows = sorted((row for row in rows if row["lasso_weight"] > 0), key=lambda row: float(row["lasso_weight"]))
    weights, gaps = _column(rows, "lasso_weight"), np.abs(_column(rows, "gap"))
    accuracy.plot(weights, _column(rows, "train_accuracy"), "o--", color=BLUE, label="train")
    accuracy.plot(weights, _column(rows, "validation_accuracy"), "o-", color=RED, label="validation")
    neurons.plot(weights, _column(rows, "neurons"), "o-", color=GREEN)
    gap.plot(weights, np.where(gaps > 0, gaps, np.nan), "o-", color=ORANGE)
    for axes in (accuracy, neurons, gap):
        axes.set_xscale("log")
        if chosen is not None and chosen > 0:
            axes.axvline(chosen, color=GREY, linestyle=":", linewidth=1.2, label=f"chosen, {chosen:.3g}")
        tidy(axes, empty=not rows)
    if np.any(gaps > 0):
        gap.set(yscale="log", ylim=(np.nanmin(gaps[gaps > 0]) / 10, np.nanmax(gaps) * 10))
    accuracy.legend(frameon=False, loc="best")
    accuracy.set(ylabel="share of pairs in order", title="Phase I: every solution of the path")
    neurons.set_ylabel("neurons")
    neurons.set_ylim(bottom=0)
    gap.set(ylabel="certified gap", xlabel="group-lasso weight (log scale)")
    save(figure, path)


def _column(rows: Sequence[Row], name: str) -> Floats:
    """Values of one key, NaN where a row lacks it or holds None or an infinity."""
    values = np.array([np.nan if row.get(name) is None else float(row[name]) for row in rows], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _edges_around_zero(values: Floats) -> Floats:
    """Histogram edges of which zero is one, so that no bar lies on both sides of it."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    width = (high - low) / 40 or 1.0
    return width * np.arange(np.floor(low / width) - 1, np.ceil(high / width) + 2)


def tidy(axes: Axes, empty: bool) -> None:
    """Give axes the common look; where they are `empty`, say that there is no data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if empty:
        axes.text(
            0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color=GREY, backgroundcolor="white"
        )


def save(figure: Figure, path: Path) -> None:
    """Write a PNG that names neither program nor date."""
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    figure.align_ylabels()
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
