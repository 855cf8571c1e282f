"""Pictures of a training run: its curves by epoch and the learning-rate range test. Also how any figure is written.

Figures are drawn by matplotlib's object interface, never pyplot: no window, no global state, and any thread may draw.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from saliency_pipeline.files import write_atomically

# of Okabe and Ito's palette, told apart by color-blind readers and in gray
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREY = "#6b6b6b"

FONT = "DejaVu Sans"
"""It comes inside matplotlib, so that what can be drawn does not depend on the machine."""

VERBATIM: dict[str, Any] = {"parse_math": False, "usetex": False, "fontfamily": FONT}
"""Options for a text that others wrote: a dollar sign is a dollar sign."""

_DPI = 200
_MISSING = "\N{WHITE SQUARE}"


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw loss, accuracy and learning rate over the epochs as one PNG, 1,600 pixels wide.

    The best epoch, the first with the highest validation top-1, is marked.

    Args:
        rows: one mapping an epoch with `epoch`, `train_loss`, `train_top1`, `validation_loss`, `validation_top1` and
            `lr`. A value that is missing, None or not finite leaves a gap; other keys are ignored.
        path: the PNG to write, whole or not at all.
        title: what the run is called, drawn as it is.
    """
    epochs, best = column(rows, "epoch"), _first_highest(column(rows, "validation_top1"))
    figure = Figure(figsize=(8, 9), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(4, 4, 1.6))
    for axes, key in ((loss, "loss"), (accuracy, "top1")):
        for part, color in (("train", BLUE), ("validation", ORANGE)):
            axes.plot(epochs, column(rows, f"{part}_{key}"), color=color, **_line_style(len(rows)))
        if best is not None:
            validation = column(rows, f"validation_{key}")[best]
            axes.plot(epochs[best], validation, "o", color=ORANGE, markersize=8, markeredgecolor="white", zorder=4)
            axes.axvline(epochs[best], color=GREY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    rate.plot(epochs, column(rows, "lr"), color=GREY, **_line_style(len(rows)))

    loss.set_ylim(0, _above(column(rows, "train_loss"), column(rows, "validation_loss")))
    rate.set_ylim(0, _above(column(rows, "lr")))
    accuracy.set_ylim(0, 1.02)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    rate.yaxis.set_major_locator(MaxNLocator(3))
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    rate.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    rate.set_xlabel("epoch")
    for axes, name in ((loss, "loss (cross-entropy)"), (accuracy, "top-1 accuracy"), (rate, "learning rate")):
        _frame(axes, name)
    for axes, key in ((loss, "loss"), (accuracy, "top1")):
        _name_lines(axes, column(rows, f"train_{key}"), column(rows, f"validation_{key}"))
    if best is not None:
        _name_best(accuracy, epochs, best, column(rows, "validation_top1")[best])
    figure.suptitle(drawable(title), x=0.01, ha="left", fontsize=13, **VERBATIM)
    write_figure(figure, path)


def draw_lr_find(rates: Sequence[float], losses: Sequence[float], suggestion: float | None, path: Path) -> None:
    """Draw the loss over the learning rate of a range test (Smith 2017, arXiv:1506.01186) as a PNG.

    Where the loss explodes the curve leaves the picture, which keeps the part before it legible.

    Args:
        rates: the rates tried, all > 0.
        losses: the loss at each, as many; values that are not finite leave a gap.
        suggestion: the rate to use, or None where the test found none.
        path: the PNG to write, whole or not at all.
    """
    x, y = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    y = np.where(np.isfinite(y), y, np.nan)
    figure = Figure(figsize=(8, 4.5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
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
    _frame(axes, "loss (cross-entropy)")
    axes.set_xlabel("learning rate")
    write_figure(figure, path)


def write_figure(figure: Figure, path: Path, *, dpi: int = _DPI, tight: bool = False) -> None:
    """Write a figure as a PNG, whole or not at all.

    Args:
        figure: what to draw.
        path: the file.
        dpi: pixels an inch.
        tight: cut or grow the picture to what is drawn instead of keeping the figure's size.
    """
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, facecolor="white", bbox_inches="tight" if tight else None)
    write_atomically(path, picture.getvalue())


def drawable(text: str, longest: int = 80) -> str:
    r"""A text in one line of at most `longest` characters, with a square for each that the font does not have.

    >>> drawable("R&D\n$5 猫")
    'R&D $5 □'
    >>> drawable("a long name", 7)
    'a long…'
    """
    text = " ".join(text.split())
    # controls and direction marks have no picture of their own
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf"))
    text = "".join(c if _font().get_char_index(ord(c)) else _MISSING for c in text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def column(rows: Sequence[Mapping[str, Any]], key: str) -> npt.NDArray[np.float64]:
    """The values of one key (n,) float64, NaN where a row has none or one that is not finite."""
    values = [row.get(key) for row in rows]
    return np.array([math.nan if v is None or not math.isfinite(v) else v for v in values], np.float64)


@cache
def _font() -> FT2Font:
    return FT2Font(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))


def _first_highest(values: npt.NDArray[np.float64]) -> int | None:
    return None if np.isnan(values).all() else int(np.nanargmax(values))


def _above(*values: npt.NDArray[np.float64]) -> float:
    """The upper end of an axis that begins at 0 and shows all values."""
    return 1.08 * float(np.nanmax(np.concatenate([np.zeros(1), *values]))) or 1.0


def _line_style(points: int) -> dict[str, Any]:
    """A single epoch has no line, and few epochs are seen better as points."""
    return {"linewidth": 1.8, "marker": "o" if points <= 12 else "", "markersize": 4.5}


def _name_lines(axes: Axes, train: npt.NDArray[np.float64], validation: npt.NDArray[np.float64]) -> None:
    """Write the name of each curve where it ends; the limits of the axes must be final."""
    ends = []
    for name, values, color in (("train", train, BLUE), ("validation", validation, ORANGE)):
        if (there := values[~np.isnan(values)]).size:
            ends.append((float(there[-1]), name, color))
    ends.sort()
    low, high = axes.get_ylim()
    # two names at nearly one height would cover each other
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
    """Write the best accuracy beside its epoch's line, on the side and at the height that the curves leave free."""
    left, above = best > (len(epochs) - 1) / 2, accuracy < 0.5
    axes.annotate(
        f"best {accuracy:.1%}, epoch {epochs[best]:g}",
        (epochs[best], 1 if above else 0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-6 if left else 6, -6 if above else 6),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top" if above else "bottom",
        color=GREY,
        fontsize=11,
    )


def _frame(axes: Axes, title: str) -> None:
    """What the panels share: the quantity above the panel, a light grid, no box."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xmargin(0.02)
    axes.tick_params(labelsize=10)
