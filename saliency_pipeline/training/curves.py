"""Figures of a training run: its curves by epoch, and the learning-rate range test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from saliency_pipeline.figures.plotting import (
    BLUE,
    FEW_POINTS,
    GRAY,
    ORANGE,
    VERBATIM,
    epoch_axis,
    frame,
    label_text,
    new_figure,
    write_png,
)


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Plot loss, accuracy and learning rate by epoch as one PNG, 1,600 pixels wide.

    The best epoch, the first with the highest validation top-1, is marked.

    Args:
        rows: one mapping per epoch with `epoch`, `train_loss`, `train_top1`, `validation_loss`, `validation_top1` and
            `lr`. A value that is missing, None or not finite leaves a gap, but validated epochs are connected; other
            keys are ignored.
        path: PNG to write.
        title: name of the run, verbatim.
    """
    epochs, best = column(rows, "epoch"), _first_highest(column(rows, "validation_top1"))
    figure = new_figure(8, 9)
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 1.6))
    for axes, key in ((loss, "loss"), (accuracy, "top1")):
        for part, color in (("train", BLUE), ("validation", ORANGE)):
            values = column(rows, f"{part}_{key}")
            shown = np.ones(len(rows), np.bool_) if part == "train" else ~np.isnan(values)
            axes.plot(epochs[shown], values[shown], color=color, **_line_style(int(shown.sum())))
        if best is not None:
            validation = column(rows, f"validation_{key}")[best]
            axes.plot(epochs[best], validation, "o", color=ORANGE, markersize=8, markeredgecolor="white", zorder=4)
            axes.axvline(epochs[best], color=GRAY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    rate.plot(epochs, column(rows, "lr"), color=GRAY, **_line_style(len(rows)))

    loss.set_ylim(0, _above(column(rows, "train_loss"), column(rows, "validation_loss")))
    rate.set_ylim(0, _above(column(rows, "lr")))
    accuracy.set_ylim(0, 1.02)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    rate.yaxis.set_major_locator(MaxNLocator(3))
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    for axes, name in ((loss, "loss (cross-entropy)"), (accuracy, "top-1 accuracy"), (rate, "learning rate")):
        frame(axes, name)
        axes.set_xmargin(0.02)
    epoch_axis(rate)
    for axes, key in ((loss, "loss"), (accuracy, "top1")):
        _name_lines(axes, column(rows, f"train_{key}"), column(rows, f"validation_{key}"))
    if best is not None:
        _name_best(accuracy, epochs, best, column(rows, "validation_top1")[best])
    figure.suptitle(label_text(title), x=0.01, ha="left", fontsize=13, **VERBATIM)
    write_png(figure, path)


def plot_lr_find(rates: Sequence[float], losses: Sequence[float], suggestion: float | None, path: Path) -> None:
    """Plot loss against learning rate of a range test (Smith 2017, arXiv:1506.01186) as a PNG.

    Where the loss explodes, the curve leaves the panel, so that the part before it stays legible.

    Args:
        rates: learning rates, all > 0.
        losses: loss at each rate; values that are not finite leave a gap.
        suggestion: rate to use, or None.
        path: PNG to write.
    """
    x, y = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    y = np.where(np.isfinite(y), y, np.nan)
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.plot(x, y, color=BLUE, **_line_style(len(x)))
    if finite := y[np.isfinite(y)].tolist():
        low, high = min(finite), max(finite)
        # as far above the first loss as the lowest is below it, and a little more
        shown = min(high, finite[0] + max(finite[0] - low, 0.25 * abs(finite[0])))
        margin = 0.08 * (shown - low) or 0.1
        axes.set_ylim(low - margin, shown + margin)
    if suggestion is not None:
        axes.axvline(suggestion, color=ORANGE, linewidth=1.2)
        left = suggestion > math.sqrt(x.min() * x.max())
        axes.annotate(
            f"suggested {suggestion:.2g}",
            (suggestion, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-6 if left else 6, -6),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            color=ORANGE,
            fontsize=11,
        )
    frame(axes, "loss (cross-entropy)")
    axes.set_xmargin(0.02)
    axes.set_xlabel("learning rate")
    write_png(figure, path)


def column(rows: Sequence[Mapping[str, Any]], key: str) -> npt.NDArray[np.float64]:
    """Values of one key, (n,) float64; NaN where a row has none or one that is not finite."""
    values = [row.get(key) for row in rows]
    return np.array([math.nan if v is None or not math.isfinite(v) else v for v in values], np.float64)


def _first_highest(values: npt.NDArray[np.float64]) -> int | None:
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def _above(*values: npt.NDArray[np.float64]) -> float:
    """Upper limit of an axis that begins at 0 and shows all values."""
    return 1.08 * float(np.nanmax(np.concatenate([np.zeros(1), *values]))) or 1.0


def _line_style(points: int) -> dict[str, Any]:
    """Options of a line: a single epoch has none, and few epochs are easier to see as points."""
    return {"linewidth": 1.8, "marker": "o" if points <= FEW_POINTS else "", "markersize": 4.5}


def _name_lines(axes: Axes, train: npt.NDArray[np.float64], validation: npt.NDArray[np.float64]) -> None:
    """Label each curve where it ends; the limits of the axes must be final."""
    ends = []
    for name, values, color in (("train", train, BLUE), ("validation", validation, ORANGE)):
        if (finite := values[~np.isnan(values)]).size:
            ends.append((float(finite[-1]), name, color))
    ends.sort()
    low, high = axes.get_ylim()
    # two labels at nearly the same height would cover each other
    close = len(ends) == 2 and ends[1][0] - ends[0][0] < 0.07 * (high - low)
    for i, (value, name, color) in enumerate(ends):
        axes.annotate(
            name,
            (1, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            color=color,
            fontsize=11,
            va=("top", "bottom")[i] if close else "center",
        )


def _name_best(axes: Axes, epochs: npt.NDArray[np.float64], best: int, accuracy: float) -> None:
    """Label the best epoch's line, on the side and at the height that the curves leave free."""
    left, above = best > (len(epochs) - 1) / 2, accuracy < 0.5
    axes.annotate(
        f"best {accuracy:.1%}, epoch {epochs[best]:g}",
        (epochs[best], 1 if above else 0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-6 if left else 6, -6 if above else 6),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top" if above else "bottom",
        color=GRAY,
        fontsize=11,
    )
