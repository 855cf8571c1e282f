"""The page of a comparison, its figures as files, and its table of runs. What it says is settled elsewhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from saliency_pipeline.comparison.curves import Told
from saliency_pipeline.comparison.figures import BY_SETTING, FIGURES, by_setting
from saliency_pipeline.comparison.wording import points
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.tables import write_table
from saliency_pipeline.temporaries import remove_stale_temporaries
from saliency_pipeline.training.curves import write_figure

PAGE, TABLE, PICTURES = "report.html", "results.csv", "figures"
Pictures = Callable[[str], tuple[bytes, bytes] | None]

_COLUMNS = ("final", "best", "area", "gap", "epochs_to_threshold", "test")


def write_report(folder: Path, results: Told, costs: Told, pictures: Pictures) -> Path:
    """Write `report.html`, which needs nothing else, `figures/` as PNG and SVG, and `results.csv`.

    The same arguments give the same bytes.

    Args:
        folder: of the comparison.
        results: what `results.json` holds; see `analysis.analyse`.
        costs: what `costs.json` holds: `settings`, by setting and arm the mean `seconds` of training a run and
            `seconds_per_epoch`; `maps`, the `seconds` that making the maps of all `images` takes, or None.
        pictures: photo and overlay of an image by its key, as JPEG files; None where they cannot be had.

    Returns:
        The page.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    make_output(folder)
    make_subfolder(folder / PICTURES)
    remove_stale_temporaries(folder / PICTURES)
    several = len(results["settings"]) > 1
    sections = []
    for setting in results["settings"]:
        after = f"-{setting['name'].replace(' ', '-')}" if several else ""
        drawn = {name: draw(results, setting) for name, draw in FIGURES.items()}
        sections.append(
            {
                "told": setting,
                "figures": {name: _written(folder, name + after, figure) for name, figure in drawn.items()},
                "costs": _costs(setting, costs),
                "examples": [_example(example, pictures) for example in setting["disagreements"]],
            }
        )
    _write_table(folder / TABLE, results)
    page = _template().render(
        results=results,
        sections=sections,
        overall=_written(folder, BY_SETTING, by_setting(results)),
        maps=costs.get("maps"),
        about=json.dumps(results["about"], indent=2, sort_keys=True),
        measures=(("final", "final accuracy"), ("area", "area under the first epochs")),
    )
    # names from a stranger's file may hold what UTF-8 cannot
    write_atomically(folder / PAGE, page.encode("utf-8", "replace"))
    return folder / PAGE


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"points": points, "share": _share, "p": _p, "duration": _duration}
    return environment.from_string(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))


def _written(folder: Path, name: str, figure: Figure | None) -> str | None:
    """Write a figure as PNG and as SVG; the latter as a data URI."""
    if figure is None:
        for ending in ("png", "svg"):
            (folder / PICTURES / f"{name}.{ending}").unlink(missing_ok=True)
        return None
    write_figure(figure, folder / PICTURES / f"{name}.png")
    drawn = io.StringIO()
    # names of clip paths are drawn by lot otherwise, and the date is in it
    with matplotlib.rc_context({"svg.hashsalt": "salpipe"}):
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})  # type: ignore[no-untyped-call]
    write_atomically(folder / PICTURES / f"{name}.svg", drawn.getvalue())
    return _data_uri(drawn.getvalue().encode(), "svg+xml")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _example(example: Told, pictures: Pictures) -> dict[str, Any]:
    """An image that two arms disagree on, with its pictures where they can be had."""
    found = pictures(example["key"])
    photo, overlay = (_data_uri(data, "jpeg") for data in found) if found else (None, None)
    return {**example, "photo": photo, "overlay": overlay}


def _costs(setting: Told, costs: Told) -> list[dict[str, Any]]:
    """Time of every arm: a run, and to the threshold with the maps it needs paid for."""
    told, maps = costs["settings"].get(setting["name"], {}), costs.get("maps")
    rows = []
    for name, arm in setting["arms"].items():
        if (paid := told.get(name)) is None:
            continue
        epochs = arm["median_epochs_to_threshold"]
        own = maps["seconds"] if maps and paid["reads_maps"] else 0.0
        rows.append(
            {
                "arm": name,
                "seconds": paid["seconds"],
                "maps": own if maps or not paid["reads_maps"] else None,
                "epochs": epochs,
                "total": None if epochs is None else epochs * paid["seconds_per_epoch"] + own,
            }
        )
    return rows


def _write_table(path: Path, results: Told) -> None:
    """One line a run."""
    kinds = {arm["name"]: arm["kind"] for arm in results["arms"]}
    rows: list[Sequence[object]] = [
        (setting["name"], name, kinds[name], run["seed"], run["fold"], *(run[column] for column in _COLUMNS))
        for setting in results["settings"]
        for name, arm in setting["arms"].items()
        for run in arm["runs"]
    ]
    write_table(path, ("setting", "arm", "kind", "seed", "fold", *_COLUMNS), rows)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
