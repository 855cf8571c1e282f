"""Figures of an evaluation: confusion matrix and reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, PercentFormatter

from saliency_pipeline.figures.plotting import (
    BLUE,
    GRAY,
    ORANGE,
    VERBATIM,
    frame,
    label_text,
    new_figure,
    write_png,
)

_COUNTED = 25
_LONGEST_NAME = 24
# inches of the matrix; of more classes cells shrink and names are left out
_LARGEST = 20.0
_DPI = 150
_LIGHT_BLUE = "#8fc1e3"


def plot_confusion(
    confusion: npt.NDArray[np.int64],
    classes: Sequence[str],
    path: Path,
    *,
    images: npt.NDArray[np.int64] | None = None,
    of: int | None = None,
) -> None:
    """Plot a confusion matrix as a PNG: rows are true classes, columns predictions, colors the share of the row.

    The picture grows with the number of classes up to about 3,500 pixels; then labels are thinned out. See also
    `show_matrix`.

    Args:
        confusion: (C, C) int64, images of the row's class that are predicted as the column's.
        classes: the C names, verbatim; long ones are cut.
        path: PNG to write.
        images: (C,) int64, images per true class; row sums by default.
        of: number of all classes if the matrix is a part; see `confusion.excerpt`.
    """
    count = len(classes)
    if confusion.shape != (count, count):
        raise ValueError(f"confusion {confusion.shape}: expected ({count}, {count}) for {count} classes")
    side = min(_LARGEST, max(2.4, count * (0.5 if count <= _COUNTED else 0.16)))
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    names = [label_text(name, _LONGEST_NAME) for name in classes]
    picture = show_matrix(
        axes, confusion, confusion.sum(axis=1) if images is None else images, names, side, of or count
    )
    scale = figure.add_axes((1 + 0.2 / side, 0, 0.14 / side, min(1.0, 3.2 / side)))
    bar = figure.colorbar(picture, cax=scale, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the class's images", fontsize=9, color=GRAY)
    bar.outline.set_visible(False)
    scale.tick_params(labelsize=8, length=0, labelcolor=GRAY)
    write_png(figure, path, dpi=_DPI, tight=True)


def show_matrix(
    axes: Axes,
    confusion: npt.NDArray[np.int64],
    images: npt.NDArray[np.int64],
    names: Sequence[str],
    side: float,
    of: int,
) -> AxesImage:
    """Show a confusion matrix in a panel, colored by the share of the row; rows without images are gray.

    Up to 25 classes the cells hold the counts; of more, the colors follow the square root of the share, so that rare
    confusions are visible. Labels that would touch are thinned out.

    Args:
        axes: an empty panel.
        confusion: (C, C) int64, images of the row's class that are predicted as the column's.
        images: (C,) int64, images per true class.
        names: the C labels.
        side: of the panel in inches.
        of: number of all classes.
    """
    counted, totals = len(confusion) <= _COUNTED, images[:, None]
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="#dddddd")
    norm = PowerNorm(1 if counted else 0.5, vmin=0, vmax=1)
    if counted:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                # four digits fill a cell
                size = 10 if count < 1000 else 7.5 if count < 100_000 else 5
                axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)
    every = max(1, math.ceil(0.14 * len(names) / side))
    places = range(0, len(names), every)
    # 72 points per inch; larger letters than the cells would touch
    size = min(10.0, 0.75 * 72 * side * every / len(names))
    axes.set_xticks(places, names[::every], rotation=90, fontsize=size, **VERBATIM)
    axes.set_yticks(places, names[::every], fontsize=size, **VERBATIM)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", fontsize=11)
    axes.set_ylabel("true class", fontsize=11)
    if of > len(names):
        axes.set_title(f"{len(names):,} of {of:,} classes: those confused most", loc="left", fontsize=11)
    return axes.imshow(np.ma.masked_invalid(shares), cmap=colors, norm=norm, aspect="equal")


def plot_reliability(bins: Sequence[Mapping[str, Any]], ece: float, path: Path) -> None:
    """Plot a reliability diagram as a PNG: accuracy by confidence above, the number of images per bin below.

    A bar is the accuracy of a bin; a line shows the gap between it and the mean confidence, which lies on the
    diagonal: above the bar the network is overconfident, within it underconfident. After Guo et al. 2017
    (arXiv:1706.04599), figure 1.

    Args:
        bins: as returned by `metrics.calibration`: `low`, `high`, `count`, `confidence` and `accuracy`.
        ece: expected calibration error, in [0, 1].
        path: PNG to write.
    """
    figure = new_figure(6, 7)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [b for b in bins if b["count"]]
    left = np.array([b["low"] for b in filled])
    width = np.array([b["high"] - b["low"] for b in filled])
    accuracy = np.array([b["accuracy"] for b in filled])
    confidence = np.array([b["confidence"] for b in filled])
    counts = np.array([b["count"] for b in filled])

    above.bar(left, accuracy, width, align="edge", color=_LIGHT_BLUE, edgecolor="white")
    above.plot([0, 1], [0, 1], color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
    # at the mean confidence, so that each gap runs from the bar's height to the diagonal
    above.vlines(confidence, accuracy, confidence, color=ORANGE, linewidth=5)
    below.bar(left, counts, width, align="edge", color=GRAY, edgecolor="white")

    above.set_xlim(0, 1)
    above.set_ylim(0, 1)
    figure.suptitle(f"expected calibration error {ece:.1%}", x=0.01, ha="left", fontsize=13)
    frame(above, "accuracy", color=BLUE)
    above.set_title("gap to the mean confidence", loc="right", fontsize=11, color=ORANGE)
    frame(below, f"images ({counts.sum():,})")
    below.set_xlabel("confidence (probability of the predicted class)")
    below.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    above.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    write_png(figure, path)
