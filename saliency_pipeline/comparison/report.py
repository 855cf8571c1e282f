"""Page of a comparison, its figures as files, and its table of runs. All values are in `results.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saliency_pipeline.comparison.costs import Costs
from saliency_pipeline.comparison.curves import threshold_kind
from saliency_pipeline.comparison.figures import BY_SETTING, FIGURES, by_setting
from saliency_pipeline.comparison.headroom_figure import HEADROOM, headroom
from saliency_pipeline.comparison.map_results import ClassMaps
from saliency_pipeline.comparison.results import Disagreement, Results, SettingResult
from saliency_pipeline.comparison.rules import SPEED
from saliency_pipeline.comparison.wording import FILTERS
from saliency_pipeline.figures import pages
from saliency_pipeline.figures.pictures import data_uri
from saliency_pipeline.figures.plotting import make_report_folder, picture_of
from saliency_pipeline.tables import write_table

PAGE, TABLE = "report.html", "results.csv"
Pictures = Callable[[str], tuple[bytes, bytes] | None]
"""Photo and overlay of an image by its key, as JPEG files; None where they are not available."""

_COLUMNS = ("final", "best", "area", "time", "gap", "epochs_to_threshold", "test", "epochs_trained")
_TITLES = {"final": "final accuracy", "area": "first epochs", SPEED: "time to 95 %"}
_PRIMARY_TITLES = {
    "final": "final accuracy",
    "area": "accuracy over the first epochs",
    SPEED: "time to 95 % of its own final accuracy",
}
_ROLES = (
    ("reference", "Candidates vs. the reference"),
    ("control", "Candidates vs. their own controls"),
    ("descriptive", "Descriptive, without a verdict"),
)
_UNSAFE = re.compile(r"[^\w.-]+")


def write_report(folder: Path, results: Results, costs: Costs, pictures: Pictures) -> Path:
    """Write `report.html`, which is self-contained, `figures/` as PNG and SVG, and `results.csv`.

    The same arguments give the same bytes.

    Returns:
        The page.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    make_report_folder(folder)
    templates = pages.environment(__package__, FILTERS)
    several = len(results.settings) > 1
    sections = []
    for setting in results.settings:
        suffix = "-" + _UNSAFE.sub("-", setting.name) if several else ""
        threshold = threshold_kind(setting.threshold) if setting.threshold else None
        context = {"setting": setting, "threshold": threshold}
        figures = [
            (figure, templates.from_string(figure.caption).render(context), picture)
            for name, figure in FIGURES.items()
            if (picture := picture_of(folder, name + suffix, figure.plot(results, setting)))
        ]
        sections.append(
            {
                "setting": setting,
                "figures": figures,
                "threshold": threshold,
                "costs": _costs(setting, costs),
                "examples": [_example(example, pictures) for example in setting.disagreements],
            }
        )
    _write_table(folder / TABLE, results)
    return pages.write_page(
        folder / PAGE,
        templates,
        "report.html",
        results=results,
        sections=sections,
        overall=picture_of(folder, BY_SETTING, by_setting(results)),
        headroom=picture_of(folder, HEADROOM, headroom(results)),
        maps_cost=costs.maps,
        about=json.dumps(results.about, indent=2, sort_keys=True),
        planned="plan" in results.about,
        measures=_TITLES.items(),
        primary_titles=_PRIMARY_TITLES,
        roles=_ROLES,
        family=_family_size(results),
        own_rates=[f"{arm.name} {arm.options['lr']:g}" for arm in results.arms if "lr" in arm.options],
        epochs_margin=_epochs_margin(results),
        maps=_maps(results.maps),
        starts=[(name, start) for name, start in results.starts.items() if start],
    )


def _example(example: Disagreement, pictures: Pictures) -> dict[str, Any]:
    """An image whose predictions by two arms differ, with its pictures where they are available."""
    files = pictures(example.key)
    photo, overlay = map(data_uri, files) if files else (None, None)
    return {**vars(example), "photo": photo, "overlay": overlay}


def _costs(setting: SettingResult, costs: Costs) -> list[dict[str, Any]]:
    """Time per arm: a run, tuning, all runs, and the time to the threshold including the maps it needs."""
    rows = []
    for name, arm in setting.arms.items():
        if (cost := costs.settings.get(setting.name, {}).get(name)) is None:
            continue
        epochs, tuning = arm.median_epochs_to_threshold, cost.tuning
        own = cost.self_maps or (costs.maps.seconds if costs.maps and cost.reads_maps else 0.0)
        rows.append(
            {
                "arm": name,
                "seconds": cost.seconds,
                "tuning": tuning,
                "all": cost.runs * cost.seconds + (tuning.seconds if tuning else 0.0),
                "maps": own if own or costs.maps or not cost.reads_maps else None,
                "to_threshold": None if epochs is None else epochs * cost.seconds_per_epoch + own,
            }
        )
    return rows


def _epochs_margin(results: Results) -> float | None:
    """Half width of the region of practical equivalence of times, in epochs; None without contrasts."""
    return next((contrast.speed.margin for setting in results.settings for contrast in setting.contrasts), None)


def _family_size(results: Results) -> int:
    """Number of tests whose p values Holm's method adjusts together."""
    return sum(
        contrast[measure].family == "secondary"
        for setting in results.settings
        for contrast in setting.contrasts
        for measure in _TITLES
    )


def _maps(maps: Sequence[ClassMaps] | None) -> dict[str, Any] | None:
    """Classes with all-zero or constant maps, those with most first, and the number of all maps."""
    if maps is None:
        return None
    rows = [row for row in maps if row.zero or row.constant]
    rows.sort(key=lambda row: -max(row.zero or 0.0, row.constant or 0.0))
    return {"rows": rows, "images": sum(row.images for row in maps), "classes": len(maps)}


def _write_table(path: Path, results: Results) -> None:
    """One line per run."""
    kinds = {arm.name: arm.kind for arm in results.arms}
    rows: list[Sequence[object]] = [
        (setting.name, name, kinds[name], run.seed, run.fold, *(getattr(run, column) for column in _COLUMNS))
        for setting in results.settings
        for name, arm in setting.arms.items()
        for run in arm.runs
    ]
    write_table(path, ("setting", "arm", "kind", "seed", "fold", *_COLUMNS), rows)
