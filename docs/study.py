"""Write tables and figures of docs/study.md from the results below docs/study: PYTHONPATH=. python docs/study.py."""

import re
from collections.abc import Iterator
from pathlib import Path

from matplotlib.axes import Axes

from saliency_pipeline.comparison.arms import REFERENCE
from saliency_pipeline.comparison.output import read_results
from saliency_pipeline.comparison.results import ArmResult, ContrastResult, MeasureResult, Results
from saliency_pipeline.comparison.rules import MEASURES
from saliency_pipeline.comparison.wording import difference, percent, points, whole_percent
from saliency_pipeline.figures.plotting import BLUE, GRAY, ORANGE, VERBATIM, frame, new_figure, write_png

PAGE = Path(__file__).with_suffix(".md")
RESULTS = PAGE.with_suffix("")
FIGURE = PAGE.with_name("images") / "study.png"

NONE = "–"
# the end of an arm's name decides its color: what the maps are
KINDS = {"mismatched": GRAY, "center-prior": GRAY, "oracle": ORANGE, "self": "#56B4E9", "given": "#009E73"}


def page() -> str:
    """The page with the tables of the present results; its other text is kept."""
    text = PAGE.read_text(encoding="utf-8")
    for results in sorted(RESULTS.glob("*/results.json")):
        name = results.parent.name
        read = read_results(results.parent, Results)
        tables = {name: rows(read)}
        if read.about["plan"].get("pretraining"):
            tables[f"{name}: measures"] = measures(read)
        for title, table in tables.items():
            marked = re.compile(rf"(<!-- {re.escape(title)} -->\n).*?(<!-- end -->)", re.DOTALL)
            new = "\n".join(table)
            text, count = marked.subn(lambda match, new=new: f"{match[1]}{new}\n{match[2]}", text)  # type: ignore[misc]
            if count != 1:
                raise SystemExit(f"{PAGE}: {count} tables for {results}; give it one '<!-- {title} -->'")
    return text


def rows(results: Results) -> Iterator[str]:
    """A table in Markdown: an arm per row, in the order of the comparison."""
    (setting,) = results.settings
    yield "| arm | final accuracy | minus baseline, points | p | verdict | share of the headroom |"
    yield "|---|---|---|---|---|---|"
    shares = {gain.arm: gain for row in results.headroom for gain in row.others}
    for arm in results.arms:
        contrast = against_reference(results, arm.name)
        share, low, high = (
            (gain.share, gain.share_low, gain.share_high) if (gain := shares.get(arm.name)) else (None, None, None)
        )
        recovered = NONE if share is None else f"{whole_percent(share)} % [{whole_percent(low)}, {whole_percent(high)}]"
        yield f"| `{arm.name}` | {accuracy(setting.arms[arm.name])} | {effect(contrast)} | {recovered} |"


def measures(results: Results) -> Iterator[str]:
    """A table in Markdown: a contrast per row, with its final accuracy, its first epochs and its speed."""
    (setting,) = results.settings
    yield "| contrast | final accuracy, points | area over epochs 1 to 10, points | epochs to 95 % of the own final |"
    yield "|---|---|---|---|"
    for contrast in setting.contrasts:
        cells = [measure(getattr(contrast, name), name) for name in MEASURES]
        yield f"| `{contrast.arm}` − `{contrast.against}` | {' | '.join(cells)} |"


def measure(result: MeasureResult, name: str) -> str:
    """A difference with its interval, and its verdict where it has one."""
    if (statistics := result.statistics) is None:
        return NONE
    mean, low, high = (difference(value, name) for value in (statistics.mean, statistics.low, statistics.high))
    return f"{mean} [{low}, {high}]" + (f", {result.verdict}" if result.verdict else "")


def accuracy(arm: ArmResult) -> str:
    """Mean and standard deviation over runs, in percent."""
    return f"{percent(arm.final.mean)} ± {percent(arm.final.sd or 0.0)} %"


def effect(contrast: ContrastResult | None) -> str:
    """The cells of a contrast: difference with its interval, p after Holm where it is tested, and verdict."""
    if contrast is None or (statistics := contrast.final.statistics) is None:
        return " | ".join([NONE] * 3)
    p = contrast.final.p_adjusted
    difference = f"{points(statistics.mean)} [{points(statistics.low)}, {points(statistics.high)}]"
    return f"{difference} | {NONE if p is None else f'{p:.3f}'} | {contrast.final.verdict or NONE}"


def against_reference(results: Results, arm: str) -> ContrastResult | None:
    """The contrast of an arm with the baseline, None for the baseline itself."""
    reference = next(each.name for each in results.arms if each.kind == REFERENCE)
    return results.settings[0].contrast(arm, reference)


def plot(comparisons: dict[str, Results]) -> None:
    """One panel per comparison: the difference of every arm from the baseline, with its interval."""
    heights = [len(results.arms) for results in comparisons.values()]
    figure = new_figure(9.0, 0.6 * len(heights) + 0.27 * sum(heights))
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, results) in zip(panels, comparisons.items(), strict=True):
        panel(axes, name, results)
    write_png(figure, FIGURE, dpi=110)


def panel(axes: Axes, name: str, results: Results) -> None:
    """The arms of a comparison from top to bottom."""
    tested = [(arm.name, contrast) for arm in results.arms if (contrast := against_reference(results, arm.name))]
    for place, (arm, contrast) in enumerate(tested):
        if (statistics := contrast.final.statistics) is not None:
            color = next((color for kind, color in KINDS.items() if kind in arm), BLUE)
            axes.plot([100 * statistics.low, 100 * statistics.high], [place, place], color=color, linewidth=2, zorder=2)
            axes.plot(100 * statistics.mean, place, "o", color=color, markersize=6, zorder=3)
    axes.axvline(0, color=GRAY, linewidth=0.9, zorder=1)
    axes.set_yticks(range(len(tested)), [arm for arm, _ in tested], fontsize=9, **VERBATIM)
    axes.set_ylim(len(tested) - 0.4, -0.6)
    frame(axes, f"{name}: final accuracy minus that of the baseline, points, with 95 % intervals", grid="x")
    axes.tick_params(axis="y", length=0)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    plot({path.parent.name: read_results(path.parent, Results) for path in sorted(RESULTS.glob("*/results.json"))})
