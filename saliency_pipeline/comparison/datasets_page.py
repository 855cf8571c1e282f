"""Page of a comparison over several data sets, its forest plot as files, and its table; values are in results.json."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import FuncFormatter, MaxNLocator

from saliency_pipeline.comparison.curves import in_epochs, in_points, sheet
from saliency_pipeline.comparison.overall import MEASURES, probability
from saliency_pipeline.comparison.overall_results import OverallResults
from saliency_pipeline.comparison.report import PAGE, TABLE
from saliency_pipeline.comparison.rules import SPEED
from saliency_pipeline.comparison.wording import FILTERS, difference
from saliency_pipeline.figures import pages
from saliency_pipeline.figures.plotting import (
    BLUE,
    GRAY,
    LONGEST_NAME,
    ORANGE,
    ROPE,
    VERBATIM,
    frame,
    label_text,
    make_report_folder,
    picture_of,
)
from saliency_pipeline.tables import write_table

_FOREST = "forest"
_COLUMNS = ("mean", "low", "high", "error", "freedom", "shrunken")


def write_page(folder: Path, results: OverallResults) -> Path:
    """Write `report.html`, which needs no other file, `figures/forest.png` and `.svg`, and `results.csv`.

    The same arguments give the same bytes.

    Returns:
        The page.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    make_report_folder(folder)
    question = results.questions[0]
    measure = question.measure
    picture = picture_of(folder, _FOREST, forest(results) if question.estimates else None)
    _write_rows(folder / TABLE, results)
    filters = {
        "difference": lambda value: difference(value, measure),
        "probability": probability,
        # a colon is quoted as well, so that no path becomes the address of something else
        "link": lambda path: quote(path, safe="/"),
    }
    return pages.write_page(
        folder / PAGE,
        pages.environment(__package__, FILTERS | filters),
        "datasets.html",
        results=results,
        question=question,
        title=MEASURES[measure],
        unit="epochs" if measure == SPEED else "points",
        is_time=measure == SPEED,
        picture=picture,
    )


def forest(results: OverallResults) -> Figure:
    """The primary difference on each data set with its interval and shrunken estimate; below, the mean over all."""
    question = results.questions[0]
    measure, rows, posterior = question.measure, question.estimates, question.posterior
    count = len(rows) + (posterior is not None)
    figure, axes = sheet(1.5 + 0.5 * count)
    if measure != SPEED:
        axes.axvspan(-results.rope, results.rope, color=ROPE, linewidth=0, zorder=0)
    axes.axvline(0, color=GRAY, linewidth=0.9, zorder=1)
    names = [label_text(row.dataset, LONGEST_NAME) for row in rows]
    for y, row in enumerate(rows):
        axes.plot([row.low, row.high], [y, y], color=BLUE, linewidth=2.2)
        axes.plot([row.mean], [y], "o", color=BLUE, markersize=8, markeredgecolor="white")
        if row.shrunken is not None:
            axes.plot([row.shrunken], [y], "D", markersize=6.5, mfc="none", mec=ORANGE, mew=1.6, zorder=4)
    if posterior is not None:
        y, low, middle, high = len(rows), posterior.low, posterior.median, posterior.high
        corners = [(low, y), (middle, y - 0.24), (high, y), (middle, y + 0.24)]
        axes.add_patch(Polygon(corners, closed=True, facecolor="#000000", linewidth=0))
        axes.plot([low, high], [y, y], color="#000000", linewidth=1)
        axes.axhline(y - 0.5, color=GRAY, linewidth=0.6)
        names.append("mean over data sets")
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_yticks(range(count), names, **VERBATIM)
    unit = "epochs" if measure == SPEED else "points"
    title = f"{question.arm} vs. {question.against}, {MEASURES[measure]}, {unit}"
    frame(axes, label_text(title), grid="x")
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.xaxis.set_major_formatter(FuncFormatter(in_epochs if measure == SPEED else in_points))
    handles = [Line2D([], [], color=BLUE, marker="o", linewidth=2.2)]
    labels = ["measured, 95 % interval"]
    if posterior is not None:
        handles.append(Line2D([], [], color=ORANGE, marker="D", mfc="none", linestyle="none"))
        handles.append(Line2D([], [], color="#000000", marker="D", linewidth=1))
        labels += ["shrunken towards the others", "mean, 95 % credible interval"]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return figure


def _write_rows(path: Path, results: OverallResults) -> None:
    """One row per contrast and data set; the unit of differences is the share or the epoch."""
    rows = [
        (
            question.arm,
            question.against,
            question.role,
            question.measure,
            row.dataset,
            *("" if getattr(row, column) is None else getattr(row, column) for column in _COLUMNS),
        )
        for question in results.questions
        for row in question.estimates
    ]
    write_table(path, ("arm", "against", "role", "measure", "dataset", *_COLUMNS), rows)
