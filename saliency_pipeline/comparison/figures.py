"""Figures of a comparison by name: differences, intervals, accuracies, classes. Those over the epochs: curves.

Every function takes `results.json` and one of its settings, and returns None where there is nothing to draw. What is
drawn stands in the results; nothing is estimated here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from saliency_pipeline.comparison.arms import REFERENCE
from saliency_pipeline.comparison.curves import (
    LONGEST_NAME,
    WIDTH,
    Told,
    first_epochs,
    frame,
    in_percent,
    in_points,
    learning_curves,
    legend,
    overfit_gap,
    sheet,
    shown,
    styles,
)
from saliency_pipeline.evaluation.confusion import excerpt, from_json
from saliency_pipeline.training.curves import GREY, VERBATIM, drawable

_MEASURES = (("final", "final accuracy"), ("area", "area under the first epochs"))
_MOST_CLASSES = 30
_COUNTED = 25
_ROPE = "#e4ecf3"


def paired_differences(results: Told, setting: Told) -> Figure | None:
    """Every pair's difference, a row a contrast; a bar marks the mean of the differences."""
    contrasts = [c for c in setting["contrasts"] if c["final"]["differences"]]
    if not contrasts:
        return None
    figure, panels = _rows(contrasts)
    looks = styles(results)
    for axes, (measure, title) in zip(panels, _MEASURES, strict=True):
        for row, contrast in enumerate(contrasts):
            values = [each["value"] for each in contrast[measure]["differences"]]
            style = looks[contrast["arm"]]
            axes.plot(
                values, row + _spread(len(values)), style.marker, color=style.colour, markersize=4.5, alpha=0.7, mew=0
            )
            if told := contrast[measure]["statistics"]:
                _mark(axes, told["mean"], row, style.colour)
        _differences(axes, f"{title}, points")
    return figure


def forest(results: Told, setting: Told) -> Figure | None:
    """The mean difference of every contrast with its interval; the region of practical equivalence is shaded."""
    contrasts = [c for c in setting["contrasts"] if c["final"]["statistics"]]
    if not contrasts:
        return None
    figure, panels = _rows(contrasts)
    looks = styles(results)
    for axes, (measure, title) in zip(panels, _MEASURES, strict=True):
        axes.axvspan(-results["rope"], results["rope"], color=_ROPE, linewidth=0, zorder=0)
        for row, contrast in enumerate(contrasts):
            told, style = contrast[measure]["statistics"], looks[contrast["arm"]]
            axes.plot([told["low"], told["high"]], [row, row], color=style.colour, linewidth=2.2)
            axes.plot([told["mean"]], [row], style.marker, color=style.colour, markersize=8, markeredgecolor="white")
        _differences(axes, f"{title}, points")
    return figure


def final_accuracies(results: Told, setting: Told) -> Figure | None:
    """The final accuracy of every run, a row an arm; a bar marks the mean."""
    names = shown(results, setting)
    if not names:
        return None
    figure, axes = sheet(0.9 + 0.55 * len(names))
    looks = styles(results)
    for row, name in enumerate(names):
        told, style = setting["arms"][name], looks[name]
        values = [run["final"] for run in told["runs"]]
        axes.plot(values, row + _spread(len(values)), style.marker, color=style.colour, markersize=5, alpha=0.65, mew=0)
        _mark(axes, told["final"]["mean"], row, style.colour)
    _name_rows(axes, [drawable(name, LONGEST_NAME) for name in names])
    axes.xaxis.set_major_formatter(FuncFormatter(in_percent))
    frame(axes, "validation top-1 after the last epoch", grid="x")
    return figure


def epochs_to_threshold(results: Told, setting: Told) -> Figure | None:
    """The epoch in which every run reached the threshold, a row an arm; a bar marks the median."""
    names = shown(results, setting)
    if not names or setting["threshold"] is None:
        return None
    figure, axes = sheet(1.1 + 0.55 * len(names))
    looks = styles(results)
    for row, name in enumerate(names):
        told, style = setting["arms"][name], looks[name]
        values = [run["epochs_to_threshold"] for run in told["runs"] if run["epochs_to_threshold"] is not None]
        axes.plot(values, row + _spread(len(values)), style.marker, color=style.colour, markersize=5, alpha=0.65, mew=0)
        median = told["median_epochs_to_threshold"]
        if median is not None:
            _mark(axes, median, row, style.colour)
        middle = f"median {median:g}" if median is not None else "no median"
        never = f"{told['never_reached']} of {len(told['runs'])} never" if told["never_reached"] else "all reached it"
        axes.annotate(
            f"{middle}\n{never}",
            (1.01, row),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9.5,
            color=GREY,
        )
    _name_rows(axes, [drawable(name, LONGEST_NAME) for name in names])
    axes.set_xlim(0.5, max(1, setting["epochs"]) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    frame(axes, f"first epoch with {setting['threshold']:.1%} validation top-1 or more", grid="x")
    return figure


def class_changes(results: Told, setting: Told) -> Figure | None:
    """The recall of every class, arm less reference; of many classes those that change most."""
    reference = next(arm["name"] for arm in results["arms"] if arm["kind"] == REFERENCE)
    known = {name: setting["arms"][name]["recalls"] for name in shown(results, setting)}
    base = known.pop(reference, None)
    others = {name: recalls for name, recalls in known.items() if recalls}
    if not base or not others:
        return None
    changes = {
        name: [None if a is None or b is None else a - b for a, b in zip(recalls, base, strict=True)]
        for name, recalls in others.items()
    }
    rows = [i for i in range(len(base)) if any(told[i] is not None for told in changes.values())]
    if not rows:
        return None
    # the arm in question comes first among the others, or there are controls alone
    leading = next(iter(changes.values()))
    rows.sort(key=lambda i: (-abs(leading[i] or 0.0), i))
    kept = sorted(rows[:_MOST_CLASSES], key=lambda i: (-(leading[i] or 0.0), i))
    figure, axes = sheet(1.3 + 0.34 * len(kept))
    looks = styles(results)
    for number, (name, told) in enumerate(changes.items()):
        shift = 0.5 * ((number + 0.5) / len(changes) - 0.5)
        points = [(told[i], row + shift) for row, i in enumerate(kept) if told[i] is not None]
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, looks[name].marker, color=looks[name].colour, markersize=5.5, mew=0)
    _name_rows(axes, [drawable(results["classes"][i], LONGEST_NAME) for i in kept])
    dropped = len(rows) - len(kept)
    _differences(
        axes,
        f"recall less that of {drawable(reference, LONGEST_NAME)}, points"
        + (f" ({len(kept)} classes that change most of {len(rows)})" if dropped else ""),
    )
    for row in range(len(kept)):
        axes.axhline(row, color="#eeeeee", linewidth=0.8, zorder=0)
    legend(figure, results, list(changes), markers=True)
    return figure


def confusion(results: Told, setting: Told) -> Figure | None:
    """Of one run: a row is a true class, a column an answer, the colour the share of the row."""
    told = setting["confusion"]
    if told is None:
        return None
    part = excerpt(from_json(told["matrix"]), len(results["classes"]))
    matrix, images, count = part.matrix, part.images[:, None], len(part.classes)
    shares = np.divide(matrix, images, out=np.full(matrix.shape, np.nan), where=images > 0)
    side = min(14.0, max(4.6, 1.8 + 0.42 * count))
    figure = Figure(figsize=(side, side), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = figure.subplots()
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="#dddddd")
    # rare answers of many classes are seen by the square root of their share
    norm = PowerNorm(1 if count <= _COUNTED else 0.5, vmin=0, vmax=1)
    axes.imshow(np.ma.masked_invalid(shares), cmap=colours, norm=norm, interpolation="nearest")
    if count <= _COUNTED:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{number}", ha="center", va="center", color=colour, fontsize=9)
    every = max(1, -(-count // int(side / 0.16)))
    places = range(0, count, every)
    names = [drawable(results["classes"][part.classes[i]], 24) for i in places]
    size = min(10.0, 40 * side * every / count)
    axes.set_xticks(places, names, rotation=90, fontsize=size, **VERBATIM)
    axes.set_yticks(places, names, fontsize=size, **VERBATIM)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("answered")
    axes.set_ylabel("true class")
    if count < len(results["classes"]):
        axes.set_title(f"{count:,} of {len(results['classes']):,} classes: those confused most", loc="left")
    return figure


def by_setting(results: Told) -> Figure | None:
    """Final accuracy by data budget, a line an arm, mean and one standard deviation; None for a single budget."""
    settings = results["settings"]
    names = [arm["name"] for arm in results["arms"] if any(arm["name"] in s["arms"] for s in settings)]
    if len(settings) < 2 or not names:
        return None
    figure, axes = sheet(4.4)
    looks = styles(results)
    for number, name in enumerate(names):
        # beside each other, so that no interval hides another
        shift = 0.24 * ((number + 0.5) / len(names) - 0.5)
        found = [(place, s["arms"][name]["final"]) for place, s in enumerate(settings) if name in s["arms"]]
        style = looks[name]
        axes.errorbar(
            [place + shift for place, _ in found],
            [told["mean"] for _, told in found],
            yerr=[told["sd"] or 0.0 for _, told in found],
            color=style.colour,
            linestyle=style.dashes,
            linewidth=1.6,
            elinewidth=1,
            marker=style.marker,
            markersize=5.5,
        )
    axes.set_xticks(range(len(settings)), [drawable(s["name"], LONGEST_NAME) for s in settings], **VERBATIM)
    axes.set_xlim(-0.4, len(settings) - 0.6)
    axes.yaxis.set_major_formatter(FuncFormatter(in_percent))
    frame(axes, "final validation top-1, mean ± 1 standard deviation of the runs")
    legend(figure, results, names)
    return figure


FIGURES: dict[str, Callable[[Told, Told], Figure | None]] = {
    "learning-curves": learning_curves,
    "first-epochs": first_epochs,
    "paired-differences": paired_differences,
    "forest": forest,
    "final-accuracies": final_accuracies,
    "epochs-to-threshold": epochs_to_threshold,
    "overfit-gap": overfit_gap,
    "class-changes": class_changes,
    "confusion": confusion,
}
"""What is drawn of every setting, by the name of the file."""

BY_SETTING = "final-by-setting"
"""The name of the one figure of all settings."""


def _rows(contrasts: Sequence[Told]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with a row for every contrast and a panel for each of the two measures."""
    size = (WIDTH, 0.95 + 0.58 * len(contrasts))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    panels: Any = figure.subplots(1, 2, sharey=True)
    _name_rows(panels[0], [f"{drawable(c['arm'], 20)}\n− {drawable(c['against'], 20)}" for c in contrasts])
    return figure, list(panels)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from the top down, each named."""
    axes.set_yticks(range(len(names)), names, fontsize=10, **VERBATIM)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _differences(axes: Axes, title: str) -> None:
    axes.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(in_points))
    frame(axes, title, grid="x")
    axes.tick_params(axis="y", length=0)


def _mark(axes: Axes, value: float, row: int, colour: str) -> None:
    """A bar across a row, edged in white so that it is seen on the dots."""
    for width, tone in ((5.0, "white"), (2.4, colour)):
        axes.plot([value, value], [row - 0.34, row + 0.34], color=tone, linewidth=width, solid_capstyle="butt")


def _spread(count: int) -> npt.NDArray[np.float64]:
    """Where dots of a row lie above and below it (count,), so that equal values are seen as several."""
    return np.linspace(-0.22, 0.22, count) if count > 1 else np.zeros(count)
