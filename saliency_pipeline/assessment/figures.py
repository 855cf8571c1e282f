"""Figures of an assessment: quality against cost, and curves. All values are in the results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from saliency_pipeline.assessment.results import CurveResult, MethodResult, MetricResult, Results
from saliency_pipeline.assessment.wording import number
from saliency_pipeline.figures.plotting import BLUE, GRAY, VERBATIM, frame, new_figure, shortened

_WIDE = 10.2
_COLUMNS = 4
_PANEL = 1.8
_CONTEXT = "#d3d8e0"
_DASHES: tuple[Any, ...] = ((0, (1, 1.2)), (0, (4, 1.6)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))

# of a label, in inches
_LINE, _LETTER, _GAP = 0.17, 0.077, 0.11


class Box(NamedTuple):
    """A rectangle in inches from the lower left corner of the panel."""

    left: float
    low: float
    right: float
    high: float

    def overlaps(self, other: Box) -> bool:
        """True if the rectangles share a point."""
        return self.left < other.right and other.left < self.right and self.low < other.high and other.low < self.high

    def within(self, other: Box) -> bool:
        """True if the rectangle is a part of the other."""
        return (
            other.left <= self.left and self.right <= other.right and other.low <= self.low and self.high <= other.high
        )


def quality_and_cost(results: Results) -> Figure | None:
    """The headline's mean with its interval by forward passes per map; methods without a network are on the left."""
    if results.headline is None:
        return None
    methods = [
        method
        for method in results.methods
        if method.cost is not None and method.columns[results.headline].mean is not None
    ]
    if all(method.floor for method in methods):
        return None
    column = results.column(results.headline)
    costs = [method.cost for method in methods if method.cost]
    least, most = (min(costs), max(costs)) if costs else (1.0, 1.0)
    free = least / 8
    has_free = any(not method.cost for method in methods)
    left, right = (free / 1.7 if has_free else least / 2), most * max(3.0, (most / least) ** 0.22)
    height = max(4.9, 0.9 + 0.7 * _LINE * len(methods))
    figure = new_figure(_WIDE, height)
    axes: Axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(right)))
    ticks = [step * 10.0**power for power in powers for step in (1, 3)]
    ticks = [tick for tick in ticks if math.sqrt(free * least) < tick < right]
    axes.xaxis.set_major_locator(FixedLocator([free, *ticks] if has_free else ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([*(["none"] if has_free else []), *(f"{t:,g}" for t in ticks)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if has_free:
        axes.axvline(math.sqrt(free * least), color=GRAY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    leading = {each.method for each in results.ranking if each.leading}
    for method in methods:
        estimate, x = method.columns[column.name], method.cost or free
        color = GRAY if method.floor else BLUE
        if estimate.low is not None and estimate.high is not None:
            axes.plot([x, x], [estimate.low, estimate.high], color=color, linewidth=1.3, alpha=0.55, zorder=2)
        face = color if method.name in leading or method.floor else "white"
        marker = "D" if method.floor else "o"
        options: dict[str, Any] = {"markersize": 6 if method.floor else 7.5, "markeredgecolor": color}
        axes.plot([x], _floats([estimate.mean]), marker, markerfacecolor=face, markeredgewidth=1.4, zorder=3, **options)
    _label_points(axes, [(method, method.cost or free) for method in methods], column.name, height - 0.9)
    axes.set_xlabel("forward passes per map; a backward pass counts two")
    frame(axes, f"{column.title}, {'higher' if column.higher else 'lower'} is better")
    return figure


def _label_points(axes: Axes, points: Sequence[tuple[MethodResult, float]], column: str, height: float) -> None:
    """Name each point beside it, where its name covers no other name, point or interval; `height` is the panel's."""
    left, right = (math.log10(end) for end in axes.get_xlim())
    low, high = axes.get_ylim()
    panel = Box(0.0, 0.0, 9.2, height)

    def inches(x: float, y: float) -> tuple[float, float]:
        return (math.log10(x) - left) / (right - left) * panel.right, (y - low) / (high - low) * height

    taken: list[Box] = []
    places = []
    for method, cost in points:
        estimate = method.columns[column]
        mean = estimate.mean or 0.0
        x, y = inches(cost, mean)
        ends = [inches(cost, mean if end is None else end)[1] for end in (estimate.low, estimate.high)]
        taken += [Box(x - 0.07, y - 0.07, x + 0.07, y + 0.07), Box(x - 0.03, ends[0], x + 0.03, ends[1])]
        places.append((y, x, method, cost, mean))
    for y, x, method, cost, mean in sorted(places, key=lambda place: (-place[0], place[1])):
        text = shortened(method.label, 36)
        box, shift, side = next(
            (box, shift, side)
            for box, shift, side in _candidates(x, y, len(text) * _LETTER)
            if (box.within(panel) and not any(box.overlaps(other) for other in taken)) or abs(shift) > height
        )
        taken.append(box)
        axes.annotate(
            text,
            (cost, mean),
            xytext=(72 * side * _GAP, 72 * shift),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=9.5,
            color=GRAY if method.floor else "black",
            arrowprops={
                "arrowstyle": "-",
                "color": "#aab1bc",
                "linewidth": 0.7,
                "shrinkB": 4,
                "relpos": (int(side < 0), 0.5),
            }
            if shift
            else None,
            **VERBATIM,
        )


def _candidates(x: float, y: float, width: float) -> Iterator[tuple[Box, float, int]]:
    """Places of a label beside a point, the nearest first, with the vertical shift and the side."""
    for step in itertools.count():
        shift = (step + 1) // 2 * (1 if step % 2 else -1) * _LINE * 0.75
        for side in (1, -1):
            edge = x + side * _GAP
            near, far = min(edge, edge + side * width), max(edge, edge + side * width)
            yield Box(near, y + shift - _LINE / 2, far, y + shift + _LINE / 2), shift, side


def curve_panels(results: Results, metric: MetricResult, curve: CurveResult) -> Figure | None:
    """The mean curve of every method with its band, one panel per method; floors and other methods as context."""
    ranked = [results.method(each.method) for each in results.ranking]
    drawn = [method for method in ranked if curve.name in method.curves]
    own = [method for method in drawn if not method.floor]
    if not own or not curve.points:
        return None
    floors = [method for method in drawn if method.floor]
    columns = min(_COLUMNS, max(2, len(own)))
    rows = math.ceil(len(own) / columns)
    figure = new_figure(_WIDE, 0.95 + _PANEL * rows)
    grid: Any = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, method in zip(grid.flat, own, strict=False):
        for other in own:
            if other is not method:
                axes.plot(curve.points, _floats(other.curves[curve.name].mean), color=_CONTEXT, linewidth=0.8, zorder=1)
        for place, floor in enumerate(floors):
            style = _floor_style(place)
            axes.plot(curve.points, _floats(floor.curves[curve.name].mean), zorder=2, **style)
        band = method.curves[curve.name]
        low, high = _floats(band.low), _floats(band.high)
        axes.fill_between(curve.points, low, high, color=BLUE, alpha=0.22, linewidth=0, zorder=3)
        axes.plot(curve.points, _floats(band.mean), color=BLUE, linewidth=1.8, zorder=4)
        value = number(method.columns[metric.columns[0].name].mean)
        frame(axes, "")
        # parameters are below the name
        title = "\n".join(shortened(part, 25) for part in method.label.split(" ", 1))
        axes.set_title(title, loc="left", fontsize=9, **VERBATIM)
        axes.annotate(value, (0.98, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=9.5, color=BLUE)
        axes.tick_params(labelsize=9)
    for axes in grid.flat[len(own) :]:
        axes.set_axis_off()
    # panels above an empty place have the ticks of their column
    for axes in grid.flat[max(0, len(own) - columns) : len(own)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel(curve.horizontal, fontsize=10)
    figure.supylabel(curve.vertical, fontsize=10)
    if floors:
        _name_floors(figure, floors)
    return figure


def _name_floors(figure: Figure, floors: Sequence[MethodResult]) -> None:
    handles = [Line2D([], [], **_floor_style(place)) for place in range(len(floors))]
    legend = figure.legend(
        [*handles, Line2D([], [], color=_CONTEXT, linewidth=1.2)],
        [*("." for _ in floors), "other methods"],
        loc="outside upper center",
        ncols=len(floors) + 1,
        frameon=False,
        fontsize=9.5,
        handlelength=3,
    )
    for entry, floor in zip(legend.get_texts(), floors, strict=False):
        entry.set(text=shortened(floor.label), **VERBATIM)


def _floor_style(place: int) -> dict[str, Any]:
    return {"color": GRAY, "linewidth": 1.2, "linestyle": _DASHES[place % len(_DASHES)]}


def _floats(values: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in values]
