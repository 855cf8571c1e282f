"""Figures of a comparison by epoch, and the style of every arm in all figures.

A reference is black, a candidate has a color of its own, and a control has a lighter tone of its candidate's color and
is dashed; markers differ as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from saliency_pipeline.comparison.arms import CONTROL, REFERENCE
from saliency_pipeline.comparison.results import Results, SettingResult, Threshold
from saliency_pipeline.figures.plotting import FEW_POINTS, GRAY, VERBATIM, epoch_axis, frame, new_figure, shortened
from saliency_pipeline.statistics.speed import THRESHOLD_SHARE

WIDTH = 7.6
"""Inches."""

# Okabe and Ito's palette, distinguishable by color-blind readers; its black is the reference's
_CANDIDATES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_REFERENCES: tuple[Any, ...] = ("solid", (0, (3, 1.5)), (0, (1, 1)))
_DASHES: tuple[Any, ...] = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 3)))
_MARKERS = "osD^vPXh"


@dataclass(frozen=True)
class Style:
    """Color, dashes of the line, and marker of an arm."""

    color: str
    dashes: Any
    marker: str


def styles(results: Results) -> dict[str, Style]:
    """The style of every arm by its name; it depends on the arms alone, so that all figures agree."""
    arms = results.arms
    candidates = [arm.name for arm in arms if arm.kind not in (REFERENCE, CONTROL)]
    counts: dict[str, int] = {}
    chosen: dict[str, Style] = {}
    for number, arm in enumerate(arms):
        kind, name = arm.kind, arm.name
        family = arm.of if kind == CONTROL else kind
        place = counts[family] = counts.get(family, -1) + 1
        marker = _MARKERS[number % len(_MARKERS)]
        if kind == REFERENCE:
            chosen[name] = Style("#000000", _REFERENCES[place % len(_REFERENCES)], marker)
        elif kind == CONTROL:
            color = _candidate_color(candidates.index(family)) if family in candidates else GRAY
            chosen[name] = Style(_lighter(color), _DASHES[place % len(_DASHES)], marker)
        else:
            # a second turn through the colors is dash-dotted
            dashes = "solid" if place < len(_CANDIDATES) else "dashdot"
            chosen[name] = Style(_candidate_color(place), dashes, marker)
    return chosen


def _candidate_color(place: int) -> str:
    return _CANDIDATES[place % len(_CANDIDATES)]


def _lighter(color: str) -> str:
    red, green, blue = (0.62 * channel + 0.38 for channel in to_rgb(color))
    return to_hex((red, green, blue))


def shown(results: Results, setting: SettingResult) -> list[str]:
    """Names of the arms that have runs, in the order of the comparison."""
    return [arm.name for arm in results.arms if arm.name in setting.arms]


def learning_curves(results: Results, setting: SettingResult) -> Figure | None:
    """Validation top-1 of every arm by epoch: mean of the runs, and one standard deviation around it."""
    return _bands(results, setting, setting.epochs)


def threshold_kind(threshold: Threshold) -> str:
    """Origin of a threshold in words."""
    if threshold.fixed:
        return "threshold chosen as an option"
    return f"descriptive threshold ({100 * THRESHOLD_SHARE:.0f} % of the reference's median)"


def first_epochs(results: Results, setting: SettingResult) -> Figure | None:
    """Validation top-1 over the first epochs only, with the threshold that all arms are timed to."""
    figure = _bands(results, setting, setting.early_epochs)
    if figure is None or setting.threshold is None:
        return figure
    (axes,) = figure.axes
    threshold = setting.threshold.value
    axes.axhline(threshold, color=GRAY, linewidth=1)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, threshold - 0.02), max(high, min(1.02, threshold + 0.04)))
    kind = "threshold\nchosen as\nan option" if setting.threshold.fixed else "descriptive\nthreshold"
    share = "" if setting.threshold.fixed else f"\n({100 * THRESHOLD_SHARE:.0f} % of the\nreference's\nmedian)"
    axes.annotate(
        # beside the panel, where no curve is
        f"{kind}\n{100 * threshold:.1f} %{share}",
        (1, threshold),
        xycoords=axes.get_yaxis_transform(),
        xytext=(6, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        color=GRAY,
        fontsize=9.5,
    )
    return figure


def overfit_gap(results: Results, setting: SettingResult) -> Figure | None:
    """Training less validation top-1 of every arm by epoch, means of the runs."""
    names = shown(results, setting)
    if not names:
        return None
    figure, axes = sheet(4.0)
    style_of = styles(results)
    for name in names:
        curves = setting.arms[name].curves
        train, validation = (np.array(band.mean, np.float64) for band in (curves.train_top1, curves.validation_top1))
        gap = train - validation
        x = np.flatnonzero(~np.isnan(gap))
        axes.plot(x + 1, gap[x], **line(style_of[name], len(x)))
    axes.axhline(0, color=GRAY, linewidth=0.8, zorder=1)
    axes.yaxis.set_major_formatter(FuncFormatter(in_points))
    frame(axes, "training less validation top-1, points")
    epoch_axis(axes)
    legend(figure, results, names)
    return figure


def sheet(height: float) -> tuple[Figure, Axes]:
    """A figure with one panel, `height` in inches."""
    figure = new_figure(WIDTH, height)
    return figure, figure.subplots()


def line(style: Style, points: int) -> dict[str, Any]:
    """Options of a line; a single point has none, and few points are easier to see with markers."""
    return {
        "color": style.color,
        "linestyle": style.dashes,
        "linewidth": 1.8,
        "marker": style.marker if points <= FEW_POINTS else "",
        "markersize": 4.5,
    }


def legend(figure: Figure, results: Results, names: Sequence[str], *, markers: bool = False) -> None:
    """Name the arms below the panels; as lines, or as the markers alone."""
    style_of = styles(results)
    kinds = {arm.name: arm.kind for arm in results.arms}
    handles = []
    for name in names:
        options = line(style_of[name], 1)
        handles.append(Line2D([], [], **(options | {"linestyle": "none", "markersize": 6} if markers else options)))
    texts = [f"{shortened(name)} ({kinds[name]})" for name in names]
    columns = max(1, min(len(names), 4, 100 // max(12, 6 + max(map(len, texts)))))
    # the names are set afterwards: as labels, those that begin with an underscore would be left out
    entries = figure.legend(
        handles,
        ["."] * len(names),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=10,
        handlelength=3,
    )
    for entry, text in zip(entries.get_texts(), texts, strict=True):
        entry.set(text=text, **VERBATIM)


def in_percent(value: float, _: int | None = None) -> str:
    """A tick of a share, such as 72 %, with a decimal where it is needed."""
    return f"{100 * value:.4g} %"


def in_points(value: float, _: int | None = None) -> str:
    """A tick of a difference of shares, in points with its sign."""
    return in_epochs(100 * value)


def in_epochs(value: float, _: int | None = None) -> str:
    """A tick of a difference of times, in epochs with its sign."""
    return f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-7 else "0"


def _bands(results: Results, setting: SettingResult, epochs: int) -> Figure | None:
    names = shown(results, setting)
    if not names:
        return None
    figure, axes = sheet(4.6)
    style_of = styles(results)
    for name in names:
        arm = setting.arms[name]
        band = arm.curves.validation_top1
        mean, low, high = (np.array(values[:epochs], np.float64) for values in (band.mean, band.low, band.high))
        x = np.flatnonzero(~np.isnan(mean))  # others were not validated
        if len(arm.runs) > 1:
            axes.fill_between(x + 1, low[x], high[x], color=style_of[name].color, alpha=0.13, linewidth=0)
        axes.plot(x + 1, mean[x], **line(style_of[name], len(x)))
    low_end, high_end = axes.get_ylim()
    axes.set_ylim(max(0.0, low_end), min(1.02, high_end))
    axes.yaxis.set_major_formatter(FuncFormatter(in_percent))
    several = max(len(setting.arms[name].runs) for name in names) > 1
    frame(axes, "validation top-1" + (", mean ± 1 standard deviation of the runs" if several else ""))
    epoch_axis(axes)
    legend(figure, results, names)
    return figure
