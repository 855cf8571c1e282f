"""Figures of a comparison, and the list of those that its report shows.

Every function takes `results.json` and one of its settings, and returns None where there is nothing to plot. All values
are in the results; nothing is estimated here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from saliency_pipeline.comparison.arms import CANDIDATE, DESCRIPTIVE, REFERENCE, ROLES
from saliency_pipeline.comparison.curves import (
    Style,
    first_epochs,
    in_epochs,
    in_percent,
    in_points,
    learning_curves,
    legend,
    overfit_gap,
    sheet,
    shown,
    styles,
)
from saliency_pipeline.comparison.results import ContrastResult, Results, SettingResult
from saliency_pipeline.comparison.rules import SPEED
from saliency_pipeline.evaluation.figures import show_matrix
from saliency_pipeline.figures.plotting import GRAY, ROPE, VERBATIM, epoch_axis, frame, new_figure, shortened
from saliency_pipeline.statistics.confusion import excerpt, from_json

MEASURES: tuple[tuple[str, str, Callable[[float, int | None], str]], ...] = (
    ("final", "final accuracy, points", in_points),
    ("area", "first epochs, points", in_points),
    (SPEED, "time to 95 % of its own\nfinal accuracy, epochs", in_epochs),
)
"""Measures of a contrast: name in `results.json`, title, and format of a tick."""

_WIDE = 10.2
_MOST_CLASSES = 30


def paired_differences(results: Results, setting: SettingResult) -> Figure | None:
    """Every pair's difference, one row per contrast; a bar marks the mean of the differences."""
    contrasts = [c for c in by_role(setting) if c.final.differences]
    if not contrasts:
        return None
    figure, panels = _rows(contrasts)
    style_of = styles(results)
    for axes, (measure, title, tick) in zip(panels, MEASURES, strict=True):
        for row, contrast in enumerate(contrasts):
            values = [each.value for each in contrast[measure].differences]
            style = style_of[contrast.arm]
            axes.plot(values, row + _spread(len(values)), **_dots(style, 5.5, hollow=contrast.role == DESCRIPTIVE))
            if statistics := contrast[measure].statistics:
                _mark(axes, statistics.mean, row, style.color)
        _differences(axes, title, tick)
    return figure


def forest(results: Results, setting: SettingResult) -> Figure | None:
    """The mean difference of every contrast with its interval; the region of practical equivalence is shaded."""
    contrasts = [c for c in by_role(setting) if c.final.statistics]
    if not contrasts:
        return None
    figure, panels = _rows(contrasts)
    style_of = styles(results)
    for axes, (measure, title, tick) in zip(panels, MEASURES, strict=True):
        margin = contrasts[0][measure].margin
        axes.axvspan(-margin, margin, color=ROPE, linewidth=0, zorder=0)
        for row, contrast in enumerate(contrasts):
            statistics = contrast[measure].crossed or contrast[measure].statistics
            if statistics is None:
                continue
            style = style_of[contrast.arm]
            axes.plot([statistics.low, statistics.high], [row, row], color=style.color, linewidth=2.2)
            axes.plot([statistics.mean], [row], **_dots(style, 8, hollow=contrast.role == DESCRIPTIVE))
        _differences(axes, title, tick)
    return figure


def by_role(setting: SettingResult) -> list[ContrastResult]:
    """Contrasts of a setting: candidates vs. the reference, vs. their own controls, and the descriptive ones."""
    return [contrast for role in ROLES for contrast in setting.contrasts if contrast.role == role]


def final_accuracies(results: Results, setting: SettingResult) -> Figure | None:
    """The final accuracy of every run, one row per arm; a bar marks the mean."""
    names = shown(results, setting)
    if not names:
        return None
    figure, axes = sheet(0.9 + 0.55 * len(names))
    style_of = styles(results)
    for row, name in enumerate(names):
        arm, style = setting.arms[name], style_of[name]
        values = [run.final for run in arm.runs]
        axes.plot(values, row + _spread(len(values)), **_dots(style, 5.5))
        _mark(axes, arm.final.mean, row, style.color)
    _name_rows(axes, [shortened(name) for name in names])
    axes.xaxis.set_major_formatter(FuncFormatter(in_percent))
    frame(axes, "validation top-1 after the last epoch", grid="x")
    return figure


def epochs_to_threshold(results: Results, setting: SettingResult) -> Figure | None:
    """The epoch in which every run reached the threshold, one row per arm; a bar marks the median."""
    names = shown(results, setting)
    if not names or setting.threshold is None:
        return None
    figure, axes = sheet(1.1 + 0.55 * len(names))
    style_of = styles(results)
    for row, name in enumerate(names):
        arm, style = setting.arms[name], style_of[name]
        values = [run.epochs_to_threshold for run in arm.runs if run.epochs_to_threshold is not None]
        axes.plot(values, row + _spread(len(values)), **_dots(style, 5.5))
        median = arm.median_epochs_to_threshold
        if median is not None:
            _mark(axes, median, row, style.color)
        middle = f"median {median:g}" if median is not None else "no median"
        never = f"{arm.never_reached} of {len(arm.runs)} never" if arm.never_reached else "all reached it"
        axes.annotate(
            f"{middle}\n{never}",
            (1.01, row),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9.5,
            color=GRAY,
        )
    _name_rows(axes, [shortened(name) for name in names])
    epoch_axis(axes)
    axes.set_xlim(0.5, max(1, setting.epochs) + 0.5)
    frame(axes, f"first epoch with {100 * setting.threshold.value:.1f} % validation top-1 or more", grid="x")
    return figure


def class_changes(results: Results, setting: SettingResult) -> Figure | None:
    """Change of every class's recall vs. the arm's reference; of many classes those that change most.

    Arms other than candidates are left out unless there is no candidate: their points would hide those of candidates.
    """
    first = next(arm.name for arm in results.arms if arm.kind == REFERENCE)
    references = {arm.name: arm.reference or first for arm in results.arms if arm.name != first}
    candidates = {arm.name for arm in results.arms if arm.kind == CANDIDATE}
    per_arm = {name: own for name in shown(results, setting) if (own := setting.arms[name].recalls)}
    others = [name for name in per_arm if references.get(name) in per_arm]
    others = [name for name in others if name in candidates] or others
    changes = {
        name: [
            None if a is None or b is None else a - b
            for a, b in zip(per_arm[name], per_arm[references[name]], strict=True)
        ]
        for name in others
    }
    rows = [i for i in range(len(results.classes)) if any(change[i] is not None for change in changes.values())]
    if not rows:
        return None
    # that of the first candidate, if there is one
    leading = next(iter(changes.values()))
    rows.sort(key=lambda i: (-abs(leading[i] or 0.0), i))
    kept = sorted(rows[:_MOST_CLASSES], key=lambda i: (-(leading[i] or 0.0), i))
    figure, axes = sheet(1.3 + 0.34 * len(kept))
    style_of = styles(results)
    for number, (name, change) in enumerate(changes.items()):
        shift = 0.5 * ((number + 0.5) / len(changes) - 0.5)
        points = [(change[i], row + shift) for row, i in enumerate(kept) if change[i] is not None]
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, style_of[name].marker, color=style_of[name].color, markersize=5.5, mew=0)
    _name_rows(axes, [shortened(results.classes[i]) for i in kept])
    dropped = len(rows) - len(kept)
    _differences(
        axes,
        f"change of recall vs. {' or '.join(dict.fromkeys(shortened(references[name]) for name in changes))}, points"
        + (f"\n{len(kept)} of {len(rows)} classes: those that change most" if dropped else ""),
    )
    for row in range(len(kept)):
        axes.axhline(row, color="#eeeeee", linewidth=0.8, zorder=0)
    legend(figure, results, list(changes), markers=True)
    return figure


def confusion(results: Results, setting: SettingResult) -> Figure | None:
    """Confusion matrix of one run: rows are true classes, columns predictions, the color is the share of the row."""
    stored = setting.confusion
    if stored is None:
        return None
    part = excerpt(from_json(stored.matrix), len(results.classes))
    count = len(part.classes)
    side = min(14.0, max(4.6, 1.8 + 0.42 * count))
    figure = new_figure(side, side)
    axes = figure.subplots()
    names = [shortened(results.classes[i], 24) for i in part.classes]
    show_matrix(axes, part.matrix, part.images, names, side - 1.8, len(results.classes))
    return figure


def by_setting(results: Results) -> Figure | None:
    """Final accuracy by data budget, one line per arm, mean and one standard deviation; None for a single budget."""
    settings = results.settings
    names = [arm.name for arm in results.arms if any(arm.name in s.arms for s in settings)]
    if len(settings) < 2 or not names:
        return None
    figure, axes = sheet(4.4)
    style_of = styles(results)
    for number, name in enumerate(names):
        # side by side, so that no interval hides another
        shift = 0.24 * ((number + 0.5) / len(names) - 0.5)
        finals = [(place, s.arms[name].final) for place, s in enumerate(settings) if name in s.arms]
        style = style_of[name]
        axes.errorbar(
            [place + shift for place, _ in finals],
            [final.mean for _, final in finals],
            yerr=[final.sd or 0.0 for _, final in finals],
            color=style.color,
            linestyle=style.dashes,
            linewidth=1.6,
            elinewidth=1,
            marker=style.marker,
            markersize=5.5,
        )
    axes.set_xticks(range(len(settings)), [shortened(s.name) for s in settings], **VERBATIM)
    axes.set_xlim(-0.4, len(settings) - 0.6)
    axes.yaxis.set_major_formatter(FuncFormatter(in_percent))
    frame(axes, "final validation top-1, mean ± 1 standard deviation of the runs")
    legend(figure, results, names)
    return figure


@dataclass(frozen=True)
class ReportFigure:
    """A figure of every setting and how the report shows it.

    Attributes:
        plot: takes `results.json` and one of its settings; returns None where there is nothing to plot.
        title: heading of the figure.
        caption: template of the text below the heading; `setting`, and `threshold` in words or None, are available.
        detail: shown in the section on arms in detail instead of beside the verdicts.
        shape: `wide` or `square`; empty for the usual width.
    """

    plot: Callable[[Results, SettingResult], Figure | None]
    title: str
    caption: str
    detail: bool = False
    shape: str = ""


FIGURES: dict[str, ReportFigure] = {
    "learning-curves": ReportFigure(
        learning_curves,
        "Learning curves",
        "Validation top-1 after every epoch: mean of the runs, and a band of one standard deviation.",
    ),
    "first-epochs": ReportFigure(
        first_epochs,
        "First epochs",
        "Early accuracy. A curve that is higher early is not faster unless it also reaches 95 % of its own final "
        "accuracy earlier.{% if threshold %} Line: {{ threshold }}.{% endif %}",
    ),
    "paired-differences": ReportFigure(
        paired_differences,
        "Paired differences",
        "One dot per pair of runs that share split, order and initialization; the bar is the mean. Hollow: descriptive "
        "contrasts. Times: negative is faster.",
        shape="wide",
    ),
    "forest": ReportFigure(
        forest,
        "Differences with 95 % intervals",
        "{% if setting.own_split %}Final accuracy: over seeds and images; the others over seeds{% else %}Corrected for "
        "shared training images{% endif %}. Shaded: the region of practical equivalence. Hollow: descriptive "
        "contrasts. Times: negative is faster.",
        shape="wide",
    ),
    "final-accuracies": ReportFigure(
        final_accuracies, "Final accuracies", "Every run, and the mean of each arm.", detail=True
    ),
    "epochs-to-threshold": ReportFigure(
        epochs_to_threshold,
        "Epochs to the threshold",
        "The {{ threshold }} is the same for all arms: an arm that is higher reaches it earlier without learning "
        "faster.",
        detail=True,
    ),
    "overfit-gap": ReportFigure(
        overfit_gap,
        "Over-fitting",
        "Training minus validation top-1 by epoch; training images are augmented.",
        detail=True,
    ),
    "class-changes": ReportFigure(
        class_changes, "Per class", "Change of recall vs. the reference, over all validation images.", detail=True
    ),
    "confusion": ReportFigure(
        confusion,
        "Confusion",
        "{% set run = setting.confusion %}Best run of {{ run.arm }}: seed {{ run.seed }}"
        "{% if run.fold %}, fold {{ run.fold }}{% endif %}.",
        detail=True,
        shape="square",
    ),
}
"""Figures per setting by file name, in the order of the report; a figure that is entered here is written and shown."""

BY_SETTING = "final-by-setting"
"""File name of the one figure of all settings."""


def _rows(contrasts: Sequence[ContrastResult]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with one row per contrast and one panel per measure; lines divide the roles."""
    figure = new_figure(_WIDE, 1.1 + 0.58 * len(contrasts))
    panels: Any = figure.subplots(1, len(MEASURES), sharey=True)
    _name_rows(panels[0], [f"{shortened(c.arm, 24)}\n− {shortened(c.against, 24)}" for c in contrasts])
    for row, (above, below) in enumerate(itertools.pairwise(contrasts)):
        if above.role != below.role:
            for axes in panels:
                axes.axhline(row + 0.5, color="#b8bec8", linewidth=0.9, zorder=1)
    return figure, list(panels)


def _dots(style: Style, size: float, *, hollow: bool = False) -> dict[str, Any]:
    """Options of markers without a line; hollow for a contrast without a verdict."""
    return {
        "marker": style.marker,
        "linestyle": "none",
        "markersize": size,
        "markerfacecolor": "white" if hollow else style.color,
        "markeredgecolor": style.color if hollow else "white",
        "markeredgewidth": 1.1 if hollow else 0.7,
    }


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows from the top down."""
    axes.set_yticks(range(len(names)), names, fontsize=10, **VERBATIM)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _differences(axes: Axes, title: str, tick: Callable[[float, int | None], str] = in_points) -> None:
    axes.axvline(0, color=GRAY, linewidth=0.9, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    frame(axes, title, grid="x")
    axes.tick_params(axis="y", length=0)


def _mark(axes: Axes, value: float, row: int, color: str) -> None:
    """A bar across a row, behind its dots, which are edged in white."""
    axes.plot([value, value], [row - 0.36, row + 0.36], color=color, linewidth=2.6, solid_capstyle="butt", zorder=1.5)


def _spread(count: int) -> npt.NDArray[np.float64]:
    """Vertical offsets of the dots of a row (count,), so that equal values remain distinguishable."""
    return np.linspace(-0.22, 0.22, count) if count > 1 else np.zeros(count)
