"""Figures of a comparison that run over the epochs, and how an arm looks in every figure. The others: figures.

A reference is black, a candidate has a colour of its own, a control is grey and dashed; markers differ as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from saliency_pipeline.comparison.arms import CONTROL, REFERENCE
from saliency_pipeline.statistics.speed import THRESHOLD_SHARE
from saliency_pipeline.training.curves import GREY, VERBATIM, drawable

Told = Mapping[str, Any]

WIDTH = 7.6
"""Of a figure, in inches."""
LONGEST_NAME = 28

# of Okabe and Ito's palette, told apart by colour-blind readers; its black is the reference's
_CANDIDATES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_CONTROLS = ("#6b6b6b", "#9a9a9a", "#4a4a4a", "#b4b4b4")
_DASHES: tuple[Any, ...] = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 3)))
_MARKERS = "osD^vPXh"
_FEW = 12


@dataclass(frozen=True)
class Style:
    """How an arm looks: its colour, the dashes of its line, and its marker."""

    colour: str
    dashes: Any
    marker: str


def styles(results: Told) -> dict[str, Style]:
    """The look of every arm by its name; it depends on the arms alone, so that all figures agree."""
    found: dict[str, Style] = {}
    candidates = controls = 0
    for arm in results["arms"]:
        marker = _MARKERS[len(found) % len(_MARKERS)]
        if arm["kind"] == REFERENCE:
            style = Style("#000000", "solid", marker)
        elif arm["kind"] == CONTROL:
            style = Style(_CONTROLS[controls % len(_CONTROLS)], _DASHES[controls % len(_DASHES)], marker)
            controls += 1
        else:
            # a second turn through the colours is dash-dotted
            dashes = "solid" if candidates < len(_CANDIDATES) else "dashdot"
            style = Style(_CANDIDATES[candidates % len(_CANDIDATES)], dashes, marker)
            candidates += 1
        found[arm["name"]] = style
    return found


def shown(results: Told, setting: Told) -> list[str]:
    """Names of the arms that have runs, in the order of the comparison."""
    return [arm["name"] for arm in results["arms"] if arm["name"] in setting["arms"]]


def learning_curves(results: Told, setting: Told) -> Figure | None:
    """Validation top-1 of every arm by epoch: mean of the runs, and one standard deviation around it."""
    return _bands(results, setting, setting["epochs"])


def first_epochs(results: Told, setting: Told) -> Figure | None:
    """The same over the first epochs only, with the threshold that all arms are timed to."""
    figure = _bands(results, setting, setting["early_epochs"])
    if figure is None or setting["threshold"] is None:
        return figure
    (axes,) = figure.axes
    threshold = setting["threshold"]
    axes.axhline(threshold, color=GREY, linewidth=1)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, threshold - 0.02), max(high, min(1.02, threshold + 0.04)))
    axes.annotate(
        f"threshold {threshold:.1%}: {THRESHOLD_SHARE:.0%} of the reference's median final accuracy",
        (1, threshold),
        xycoords=axes.get_yaxis_transform(),
        # below and at the end, where curves that rise are above
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color=GREY,
        fontsize=9.5,
    )
    return figure


def overfit_gap(results: Told, setting: Told) -> Figure | None:
    """Training less validation top-1 of every arm by epoch, means of the runs."""
    names = shown(results, setting)
    if not names:
        return None
    figure, axes = sheet(4.0)
    looks = styles(results)
    for name in names:
        curves = setting["arms"][name]["curves"]
        gap = np.array(curves["train_top1"]["mean"]) - np.array(curves["validation_top1"]["mean"])
        axes.plot(np.arange(1, len(gap) + 1), gap, **line(looks[name], len(gap)))
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.yaxis.set_major_formatter(FuncFormatter(in_points))
    frame(axes, "training less validation top-1, points")
    _epochs(axes)
    legend(figure, results, names)
    return figure


def sheet(height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one panel."""
    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    return figure, figure.subplots()


def frame(axes: Axes, title: str, grid: str = "y") -> None:
    """What all panels share: the quantity above the panel, a light grid, no box."""
    axes.set_title(title, loc="left", fontsize=11, **VERBATIM)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x" if grid == "x" else "y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10)


def line(style: Style, points: int) -> dict[str, Any]:
    """Options of a line; a single point has none, and few are seen better with markers."""
    return {
        "color": style.colour,
        "linestyle": style.dashes,
        "linewidth": 1.8,
        "marker": style.marker if points <= _FEW else "",
        "markersize": 4.5,
    }


def legend(figure: Figure, results: Told, names: Sequence[str], *, markers: bool = False) -> None:
    """Name the arms below the panels; as lines, or as the markers alone."""
    looks = styles(results)
    kinds = {arm["name"]: arm["kind"] for arm in results["arms"]}
    handles = []
    for name in names:
        options = line(looks[name], 1)
        handles.append(Line2D([], [], **(options | {"linestyle": "none", "markersize": 6} if markers else options)))
    texts = [f"{drawable(name, LONGEST_NAME)} ({kinds[name]})" for name in names]
    columns = max(1, min(len(names), 4, 100 // max(12, 6 + max(map(len, texts)))))
    # the names come after: as labels, those that begin with an underscore would be left out
    drawn = figure.legend(
        handles, ["."] * len(names), loc="outside lower center", ncols=columns, frameon=False, fontsize=10
    )
    for entry, text in zip(drawn.get_texts(), texts, strict=True):
        entry.set(text=text, **VERBATIM)


def in_percent(value: float, _: int | None = None) -> str:
    """A tick of a share, such as 72 %, with a decimal where there must be one."""
    return f"{100 * value:.4g} %"


def in_points(value: float, _: int | None = None) -> str:
    """A tick of a difference of shares, in points with its sign."""
    return f"{100 * value:+.3g}" if abs(value) > 1e-9 else "0"


def _bands(results: Told, setting: Told, epochs: int) -> Figure | None:
    names = shown(results, setting)
    if not names:
        return None
    figure, axes = sheet(4.6)
    looks = styles(results)
    for name in names:
        told = setting["arms"][name]
        band = told["curves"]["validation_top1"]
        mean, low, high = (np.array(band[key][:epochs]) for key in ("mean", "low", "high"))
        x = np.arange(1, len(mean) + 1)
        if len(told["runs"]) > 1:
            axes.fill_between(x, low, high, color=looks[name].colour, alpha=0.13, linewidth=0)
        axes.plot(x, mean, **line(looks[name], len(mean)))
    low_end, high_end = axes.get_ylim()
    axes.set_ylim(max(0.0, low_end), min(1.02, high_end))
    axes.yaxis.set_major_formatter(FuncFormatter(in_percent))
    several = max(len(setting["arms"][name]["runs"]) for name in names) > 1
    frame(axes, "validation top-1" + (", mean ± 1 standard deviation of the runs" if several else ""))
    _epochs(axes)
    legend(figure, results, names)
    return figure


def _epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.set_xmargin(0.02)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
