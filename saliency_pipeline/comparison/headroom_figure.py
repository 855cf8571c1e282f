"""Figure of the headroom: for every use the gain with each kind of maps, from the center prior to the oracle."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from saliency_pipeline.comparison.curves import in_points, sheet
from saliency_pipeline.comparison.map_results import Gain
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.comparison.wording import points, whole_percent
from saliency_pipeline.figures.plotting import BLUE, GRAY, ORANGE, VERBATIM, frame, shortened
from saliency_pipeline.training.config import CENTER_PRIOR, ORACLE, OWN, SELF

HEADROOM = "headroom"
"""Name of its files."""

COLORS = {CENTER_PRIOR: "#b3b9c4", OWN: BLUE, SELF: "#56B4E9", ORACLE: ORANGE}


def headroom(results: Results) -> Figure | None:
    """One bar per arm from its reference to its gain, with the interval; None without oracle arms."""
    rows = [(row, gain) for row in results.headroom for gain in (*row.others, row.oracle)]
    if not rows:
        return None
    figure, axes = sheet(1.0 + 0.42 * len(rows))
    for place, (row, gain) in enumerate(rows):
        axes.barh(place, gain.mean, height=0.62, color=COLORS[gain.maps], zorder=2)
        if gain.low is not None and gain.high is not None:
            axes.plot([gain.low, gain.high], [place, place], color="#222222", linewidth=1.3, zorder=3)
        _annotate(axes, place, gain)
        if gain is row.oracle and place + 1 < len(rows):
            axes.axhline(place + 0.5, color="#b8bec8", linewidth=0.9, zorder=1)
    axes.axvline(0, color=GRAY, linewidth=0.9, zorder=1)
    axes.set_yticks(range(len(rows)), [shortened(gain.arm) for _, gain in rows], fontsize=10, **VERBATIM)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(in_points))
    references = " or ".join(dict.fromkeys(shortened(row.against) for row in results.headroom))
    frame(axes, f"final accuracy minus that of {references}, points; lines are 95 % intervals", grid="x")
    axes.tick_params(axis="y", length=0)
    return figure


def _annotate(axes: Axes, place: int, gain: Gain) -> None:
    """The gain and, of arms other than the oracle's, the share that they recover, beside the bars."""
    share = "" if gain.share is None else f", {whole_percent(gain.share)} %"
    axes.annotate(
        points(gain.mean) + share,
        (1.01, place),
        xycoords=axes.get_yaxis_transform(),
        va="center",
        fontsize=10,
        color=GRAY,
    )
