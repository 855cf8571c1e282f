"""Pictures of an evaluation: the confusion matrix and the reliability diagram. The numbers come from metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from saliency_pipeline.training.curves import BLUE, GREY, ORANGE, VERBATIM, drawable, write_figure

_COUNTED = 25
_LONGEST_NAME = 24
# of the matrix, in inches; above it cells shrink and names are left out
_LARGEST = 20.0
_NAME_PITCH = 0.14
_DPI = 150
_LIGHT_BLUE = "#8fc1e3"


def draw_confusion(
    confusion: npt.NDArray[np.int64],
    classes: Sequence[str],
    path: Path,
    *,
    images: npt.NDArray[np.int64] | None = None,
    of: int | None = None,
) -> None:
    """Draw a confusion matrix as a PNG: a row is a true class, a column an answer, the color the share of the row.

    Up to 25 classes the cells hold the counts; beyond it the colors follow the square root of the share, so that
    rare answers are seen. The picture grows with the classes up to about 3,500 pixels; where the names would then
    touch, only every so many is written. The row of a class without images is gray.

    Args:
        confusion: (C, C) int64, images of the row's class answered as the column's.
        classes: the C names, drawn as they are; long ones are cut.
        path: the PNG to write, whole or not at all.
        images: (C,) int64, images of every true class; the sums of the rows where the matrix is whole.
        of: how many classes there are, where the matrix is a part; see `confusion.excerpt`.
    """
    count = len(classes)
    if confusion.shape != (count, count):
        raise ValueError(f"confusion {confusion.shape}: wanted ({count}, {count}) for {count} classes")
    totals = (confusion.sum(axis=1) if images is None else images)[:, None]
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    side = min(_LARGEST, max(2.4, count * (0.5 if count <= _COUNTED else 0.16)))

    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="#dddddd")
    norm = PowerNorm(1 if count <= _COUNTED else 0.5, vmin=0, vmax=1)
    picture = axes.imshow(np.ma.masked_invalid(shares), cmap=colors, norm=norm, aspect="equal")
    if count <= _COUNTED:
        _write_counts(axes, confusion, shares)
    _name_cells(axes, classes, side)
    axes.set_xlabel("answered", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    if of is not None and of > count:
        axes.set_title(f"{count:,} of {of:,} classes: those confused most", loc="left", fontsize=11)
    axes.spines[:].set_visible(False)

    scale = figure.add_axes((1 + 0.2 / side, 0, 0.14 / side, min(1.0, 3.2 / side)))
    bar = figure.colorbar(picture, cax=scale, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the class's images", fontsize=9, color=GREY)
    bar.outline.set_visible(False)
    scale.tick_params(labelsize=8, length=0, labelcolor=GREY)
    write_figure(figure, path, dpi=_DPI, tight=True)


def draw_reliability(bins: Sequence[Mapping[str, Any]], ece: float, path: Path) -> None:
    """Draw a reliability diagram as a PNG: accuracy by confidence above, how many images are so confident below.

    A bar is the accuracy of a bin's images; a line shows the gap between it and their mean confidence, which lies on
    the diagonal: above the bar the network is too sure, in it not sure enough. After Guo et al. 2017
    (arXiv:1706.04599), figure 1.

    Args:
        bins: as `metrics.calibration` gives them: `low`, `high`, `count`, `confidence` and `accuracy`.
        ece: the expected calibration error, in [0, 1].
        path: the PNG to write, whole or not at all.
    """
    figure = Figure(figsize=(6, 7), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [b for b in bins if b["count"]]
    left = np.array([b["low"] for b in filled])
    width = np.array([b["high"] - b["low"] for b in filled])
    accuracy = np.array([b["accuracy"] for b in filled])
    confidence = np.array([b["confidence"] for b in filled])
    counts = np.array([b["count"] for b in filled])

    above.bar(left, accuracy, width, align="edge", color=_LIGHT_BLUE, edgecolor="white")
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    # at the mean confidence, so that each gap runs from the bar's height to the diagonal
    above.vlines(confidence, accuracy, confidence, color=ORANGE, linewidth=5)
    below.bar(left, counts, width, align="edge", color=GREY, edgecolor="white")

    above.set_xlim(0, 1)
    above.set_ylim(0, 1)
    figure.suptitle(f"expected calibration error {ece:.1%}", x=0.01, ha="left", fontsize=13)
    above.set_title("accuracy", loc="left", fontsize=11, color=BLUE)
    above.set_title("gap to the mean confidence", loc="right", fontsize=11, color=ORANGE)
    below.set_title(f"images ({counts.sum():,})", loc="left", fontsize=11)
    below.set_xlabel("confidence (probability of the answer)")
    below.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    above.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    write_figure(figure, path)


def _write_counts(axes: Axes, confusion: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> None:
    for (row, column), images in np.ndenumerate(confusion):
        if images:
            color = "white" if shares[row, column] > 0.5 else "black"
            # four digits fill a cell
            size = 10 if images < 1000 else 7.5 if images < 100_000 else 5
            axes.text(column, row, f"{images}", ha="center", va="center", color=color, fontsize=size)


def _name_cells(axes: Axes, classes: Sequence[str], side: float) -> None:
    """Write the names of the classes beside the rows and below the columns, thinned out where they would touch."""
    every = max(1, int(np.ceil(_NAME_PITCH * len(classes) / side)))
    places = range(0, len(classes), every)
    names = [drawable(classes[i], _LONGEST_NAME) for i in places]
    # 72 points an inch; larger letters than the cells would touch
    size = min(10.0, 0.75 * 72 * side * every / len(classes))
    axes.set_xticks(places, names, rotation=90, fontsize=size, **VERBATIM)
    axes.set_yticks(places, names, fontsize=size, **VERBATIM)
    axes.tick_params(length=0)
