"""Pictures of the pairs: lengths, what changes from turn to turn, and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter, PercentFormatter

from coala_core.plots import BLUE, GREY, ORANGE, SIZE, save, tidy
from coala_core.quality.batches import Ints
from coala_core.quality.lengths import CONFIDENCE
from coala_core.quality.measure import Quality
from coala_core.quality.numbers import PairNumbers

Draw = Callable[[Path], None]

CAPTIONS = {
    "lengths.png": "Characters of chosen and rejected responses, and how much longer one is than the other",
    "turns.png": "Mean characters of both responses, and how often the longer one is chosen, by turn",
    "groups.png": "Share of all pairs in the largest groups",
}
"""What each picture shows, by its file."""

_BINS = 40
_WIDE = 12
_LONGEST_NAME = 32
_RATIOS = (1 / 64, 1 / 16, 1 / 4, 1 / 2, 1, 2, 4, 16, 64)


def pictures(quality: Quality) -> dict[str, Draw]:
    """Return the pictures that say something about these pairs, each as a function that writes a PNG.

    Lengths always; turns where there are several; groups where they are more than conversations.
    """
    report = quality.report
    drawn: dict[str, Draw] = {"lengths.png": partial(draw_lengths, quality.numbers, report["length_bias"])}
    if len(report["position"]["turns"]) > 1:
        drawn["turns.png"] = partial(draw_turns, report["position"]["turns"])
    if len(report["groups"]) > 1:
        drawn["groups.png"] = partial(draw_groups, report["groups"], quality.numbers.groups)
    return drawn


def draw_lengths(numbers: PairNumbers, bias: Mapping[str, Any], path: Path) -> None:
    """Draw the lengths of both responses, and the distribution of their ratio in each pair.

    Parameters
    ----------
    numbers : PairNumbers
        Of all pairs.
    bias : mapping
        Of `coala_core.quality.lengths.length_bias`.
    path : Path
        PNG to write.
    """
    figure = Figure(figsize=(SIZE[0], 5.6))
    lengths, ratios = figure.subplots(2, 1)
    chosen, rejected = (np.maximum(numbers.characters[side], 1) for side in ("chosen", "rejected"))
    _draw_histograms(lengths, chosen, rejected)
    _draw_ratios(ratios, np.log2(chosen / rejected))
    low, high = bias["wilson"]
    ratios.set_title(
        f"The longer one is chosen in {bias['longer_wins']:.1%} of pairs ({low:.1%} to {high:.1%} at {CONFIDENCE:.0%})"
    )
    save(figure, path)


def draw_turns(turns: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw mean lengths and the accuracy of the rule that the longer one is chosen, by turn.

    Parameters
    ----------
    turns : sequence of rows
        Of `coala_core.quality.lengths.by_turn`.
    path : Path
        PNG to write.
    """
    figure = Figure(figsize=(SIZE[0], 5.2))
    upper, lower = figure.subplots(2, 1, sharex=True)
    places = np.arange(len(turns))
    upper.plot(places, [row["chosen_characters"] for row in turns], "o-", color=BLUE, label="chosen")
    upper.plot(places, [row["rejected_characters"] for row in turns], "s--", color=ORANGE, label="rejected")
    upper.set(ylabel="mean characters", title="What changes from turn to turn")
    upper.set_ylim(0, 1.15 * max(max(row["chosen_characters"], row["rejected_characters"]) for row in turns))
    upper.legend(frameon=False, loc="lower right")
    shares = np.array([row["longer_wins"] for row in turns])
    ends = np.array([row["wilson"] for row in turns])
    lower.errorbar(
        places, shares, [shares - ends[:, 0], ends[:, 1] - shares], color=BLUE, fmt="o", capsize=3, linewidth=1.2
    )
    lower.axhline(0.5, color="black", linewidth=1.2)
    lower.set(ylim=(0, 1), ylabel="longer one is chosen", xlabel="turn")
    lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    lower.set_xticks(places, [_turn_label(row) for row in turns])
    for axes in (upper, lower):
        tidy(axes, empty=False)
    save(figure, path)


def draw_groups(groups: Sequence[Mapping[str, Any]], total: int, path: Path) -> None:
    """Draw the shares of the largest groups, the largest on top.

    Parameters
    ----------
    groups : sequence of rows
        With ``group``, ``pairs`` and ``share``, the largest first.
    total : int
        Groups there are.
    path : Path
        PNG to write.
    """
    figure = Figure(figsize=(SIZE[0], 1.2 + 0.3 * len(groups)))
    axes = figure.subplots()
    places = np.arange(len(groups))[::-1]
    bars = axes.barh(places, [row["share"] for row in groups], color=BLUE, height=0.7)
    axes.bar_label(bars, [f" {row['pairs']:,}" for row in groups], color=GREY, fontsize="small")
    axes.set_yticks(places, [_plain(row["group"]) for row in groups])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
    shown = f"The {len(groups)} largest of {total:,} groups" if len(groups) < total else f"All {total} groups"
    axes.set(xlabel="share of all pairs", title=f"{shown}, with their pairs")
    axes.margins(x=0.12)
    tidy(axes, empty=False)
    axes.grid(visible=False, axis="y")
    save(figure, path)


def _draw_histograms(axes: Axes, chosen: Ints, rejected: Ints) -> None:
    """Draw both lengths on one scale, a logarithmic one where they differ by more than an order of magnitude."""
    low, high = int(min(chosen.min(), rejected.min())), int(max(chosen.max(), rejected.max()))
    logarithmic = high > _WIDE * low
    space = np.geomspace if logarithmic else np.linspace
    edges = space(low, max(high, low + 1) * 1.0001, _BINS + 1)
    axes.hist(chosen, bins=edges.tolist(), color=BLUE, alpha=0.55, label=f"chosen, median {np.median(chosen):,.0f}")
    axes.hist(
        rejected,
        bins=edges.tolist(),
        color=ORANGE,
        histtype="step",
        linewidth=1.8,
        label=f"rejected, median {np.median(rejected):,.0f}",
    )
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(FuncFormatter(_round_number))
    axes.xaxis.set_major_formatter(FuncFormatter(_round_number if logarithmic else lambda value, _: f"{value:,.0f}"))
    scale = " (log scale)" if logarithmic else ""
    axes.set(xlabel=f"characters{scale}", ylabel="pairs", title="Lengths of both responses")
    axes.legend(frameon=False)
    tidy(axes, empty=False)


def _draw_ratios(axes: Axes, octaves: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Draw how many times as long the chosen response is, as powers of two."""
    reach = max(1.0, float(np.quantile(np.abs(octaves), 0.995)))
    inside = np.clip(octaves, -reach, reach)
    edges = np.linspace(-reach, reach, _BINS + 1)  # an even number of bins, so that zero is an edge
    sides = [inside[octaves < 0], inside[octaves > 0]]
    axes.hist(sides, bins=edges.tolist(), color=[ORANGE, BLUE], stacked=True, edgecolor="white", linewidth=0.5)
    axes.axvline(0, color="black", linewidth=1.2)
    ticks = [ratio for ratio in _RATIOS if abs(np.log2(ratio)) <= reach]
    axes.set_xticks(np.log2(ticks), [f"1/{1 / ratio:.0f}" if ratio < 1 else f"{ratio:.0f}" for ratio in ticks])
    axes.set(xlabel="length of the chosen response, in lengths of the rejected one (log scale)", ylabel="pairs")
    tidy(axes, empty=False)


def _round_number(value: float, _place: int | None = None) -> str:
    """Label powers of ten, their doubles and fivefolds; others would crowd the axis."""
    exponent = np.floor(np.log10(value)) if value > 0 else 0
    return f"{value:,.0f}" if round(value / 10**exponent) in (1, 2, 5) else ""


def _turn_label(row: Mapping[str, Any]) -> str:
    later = " and later" if row["and_later"] else ""
    return f"{row['turn']}{later}\n{row['pairs']:,} pairs"


def _plain(name: str) -> str:
    """Shorten a name from data, without mathematics and with a box for what the font lacks."""
    font = get_font(findfont("DejaVu Sans"))
    shown = "".join(sign if font.get_char_index(ord(sign)) and sign.isprintable() else "□" for sign in name)
    shown = shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}…"
    return shown.replace("$", r"\$")
