"""The page over several data sets, its forest plot as files, and its table. Everything shown is in results.json."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import FuncFormatter, MaxNLocator

from saliency_pipeline.comparison.overall import MEASURES, probability
from saliency_pipeline.comparison.overall_results import OverallResults
from saliency_pipeline.comparison.report import PAGE, PICTURES, TABLE, data_uri_of, page_template
from saliency_pipeline.comparison.rules import SPEED
from saliency_pipeline.comparison.wording import difference
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.tables import write_table
from saliency_pipeline.temporaries import remove_stale_temporaries
from saliency_pipeline.training.curves import BLUE, GREY, ORANGE, VERBATIM, drawable

_FOREST = "forest"
_WIDTH, _LONGEST_NAME = 7.6, 28
_REGION = "#e4ecf3"
_COLUMNS = ("mean", "low", "high", "error", "freedom", "shrunken")


def write_page(folder: Path, results: OverallResults) -> Path:
    """Write `report.html`, which needs no other file, `figures/forest.png` and `.svg`, and `results.csv`.

    The same arguments give the same bytes.

    Args:
        folder: where they go.
        results: content of `results.json`.

    Returns:
        The page.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    make_output(folder)
    make_subfolder(folder / PICTURES)
    remove_stale_temporaries(folder / PICTURES)
    question = results.questions[0]
    measure = question.measure
    picture = data_uri_of(folder, _FOREST, forest(results)) if question.estimates else None
    _write_rows(folder / TABLE, results)
    filters = {
        "difference": lambda value: difference(value, measure),
        "probability": probability,
        # a colon is quoted as well, so that no path becomes the address of something else
        "link": lambda path: quote(path, safe="/"),
    }
    page = page_template("datasets.html", filters).render(
        results=results,
        question=question,
        title=MEASURES[measure],
        unit="epochs" if measure == SPEED else "points",
        is_time=measure == SPEED,
        picture=picture,
    )
    # names in a results file of unknown origin may hold what UTF-8 cannot encode
    write_atomically(folder / PAGE, page.encode("utf-8", "replace"))
    return folder / PAGE


def forest(results: OverallResults) -> Figure:
    """The primary difference on each data set with its interval and shrunken estimate; below, the mean over all."""
    question = results.questions[0]
    measure, rows, posterior = question.measure, question.estimates, question.posterior
    count = len(rows) + (posterior is not None)
    height = 1.5 + 0.5 * count
    figure = Figure(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = figure.subplots()
    if measure != SPEED:
        axes.axvspan(-results.rope, results.rope, color=_REGION, linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.9, zorder=1)
    names = [drawable(row.dataset, _LONGEST_NAME) for row in rows]
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
        axes.axhline(y - 0.5, color=GREY, linewidth=0.6)
        names.append("mean over data sets")
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_yticks(range(count), names, **VERBATIM)
    unit = "epochs" if measure == SPEED else "points"
    title = f"{question.arm} vs. {question.against}, {MEASURES[measure]}, {unit}"
    axes.set_title(drawable(title), loc="left", fontsize=11, **VERBATIM)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    scale = 1 if measure == SPEED else 100
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{scale * x:+.3g}".replace("-", "−") if abs(x) > 1e-9 else "0")
    )
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
