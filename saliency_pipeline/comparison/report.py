"""Writes the report of a comparison: a page that needs nothing else, its figures, and a table of all runs.

What is said and shown stands in the results; here it is laid out. Figures are drawn in figures and curves.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from saliency_pipeline.comparison.arms import REFERENCE
from saliency_pipeline.comparison.conclusion import points
from saliency_pipeline.comparison.curves import Told
from saliency_pipeline.comparison.figures import BY_SETTING, FIGURES, by_setting
from saliency_pipeline.files import disk_errors_explained, write_atomically, write_table
from saliency_pipeline.training.curves import write_figure

PAGE = "report.html"
TABLE = "results.csv"
FOLDER = "figures"

Pictures = Callable[[str], tuple[bytes, bytes] | None]
"""From the key of an image to two PNG or JPEG files: the photo, and the photo with its map laid over it."""

_COLUMNS = ("final", "best", "area", "gap", "epochs_to_threshold", "test")
_MEASURES = {"final": "final accuracy", "area": "area, first epochs"}
# of what a browser shows of a data URI, by the first bytes of the file
_KINDS = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))
# in pixels; larger ones are made smaller, which keeps the page light
_LARGEST_PICTURE = 256


def write_report(folder: Path, results: Told, costs: Told, pictures: Pictures) -> Path:
    """Write `report.html`, `figures/*.png`, `figures/*.svg` and `results.csv`; of several settings each has a folder.

    The same arguments give the same bytes.

    Args:
        folder: where to; made where it is missing.
        results: as `analysis.analyse` makes them.
        costs: `settings`: by setting and arm `runs` (int), `seconds` of training a run (mean), `seconds_per_epoch`
            and `reads_maps` (bool); `maps`: `images` and `seconds` of their making, or None.
        pictures: gives the pictures of an image that arms disagree on, or None where it cannot.

    Returns:
        The page.

    Raises:
        SalpipeError: the folder cannot be written.
    """
    with disk_errors_explained(folder):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_table(folder / TABLE, ("setting", "arm", "kind", "seed", "fold", *_COLUMNS), _runs(results))
    several = len(results["settings"]) > 1
    sections = []
    for setting, subfolder in zip(results["settings"], _folders(results["settings"]), strict=True):
        place = folder / FOLDER / subfolder if several else folder / FOLDER
        drawn = {name: _draw(draw(results, setting), place, name) for name, draw in FIGURES.items()}
        sections.append(_section(results, setting, costs, pictures) | {"figures": drawn})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((files(__package__) / PAGE).read_text(encoding="utf-8")).render(
        results=results,
        sections=sections,
        several=several,
        by_setting=_draw(by_setting(results), folder / FOLDER, BY_SETTING),
        maps=_maps(costs["maps"]),
        rope=f"{100 * results['rope']:g}",
        level=f"{results['level']:.0%}",
    )
    # names from a stranger's file may hold what UTF-8 cannot
    write_atomically(folder / PAGE, page.encode("utf-8", "replace"))
    return folder / PAGE


def _runs(results: Told) -> list[list[object]]:
    """One row a run; what it does not have is an empty cell."""
    kinds = {arm["name"]: arm["kind"] for arm in results["arms"]}
    return [
        [setting["name"], arm, kinds[arm], run["seed"], run["fold"], *(run[column] for column in _COLUMNS)]
        for setting in results["settings"]
        for arm, told in setting["arms"].items()
        for run in told["runs"]
    ]


def _folders(settings: Sequence[Told]) -> list[str]:
    """A folder's name for every setting, each once: its own name as far as any file system takes it."""
    found: list[str] = []
    for number, setting in enumerate(settings, start=1):
        name = re.sub(r"[^a-z0-9]+", "-", setting["name"].lower()).strip("-")[:40] or "setting"
        found.append(name if name not in found else f"{name}-{number}")
    return found


def _draw(figure: Figure | None, folder: Path, name: str) -> dict[str, Any] | None:
    """Write a figure as PNG and SVG; the SVG as a data URI and its size in CSS pixels, for the page."""
    if figure is None:
        return None
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_figure(figure, folder / f"{name}.png")
    picture = io.BytesIO()
    # identifiers are drawn by chance and a date is written, if nothing is said
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(picture, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    write_atomically(folder / f"{name}.svg", picture.getvalue())
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return {"uri": _data_uri(picture.getvalue(), "image/svg+xml"), "width": width, "height": height}


def _section(results: Told, setting: Told, costs: Told, pictures: Pictures) -> dict[str, Any]:
    """What the page says of one setting, in words and cells."""
    arms = [_arm(arm, setting["arms"].get(arm["name"])) for arm in results["arms"]]
    told = setting["confusion"]
    return {
        "name": setting["name"],
        "facts": _facts(setting),
        "threshold": None if setting["threshold"] is None else _share(setting["threshold"]),
        "early": setting["early_epochs"],
        "arms": arms,
        "missing": [arm["name"] for arm in arms if not arm["runs"]],
        "tested": any(arm["test"] for arm in arms),
        "statistics": [_statistics(c, measure) for c in setting["contrasts"] for measure in _MEASURES],
        "images": [line for c in setting["contrasts"] if (line := _images(c))],
        "test": [line for c in setting["contrasts"] if (line := _on_test(c))],
        "speed": [_speed(c) for c in setting["contrasts"]],
        "confusion": told and f"{told['arm']}, {_where(told)}",
        "costs": _costs(results, setting, costs),
        "examples": [_example(example, pictures) for example in setting["disagreements"]],
    }


def _facts(setting: Told) -> list[tuple[str, str]]:
    """How large the setting is: images (of the smallest and the largest run) and epochs."""
    names = (("train", "Training images"), ("validation", "Validation images"))
    spans = [(name, setting["images"][part]) for part, name in names]
    told = [(name, f"{low:,}" if low == high else f"{low:,} to {high:,}") for name, (low, high) in spans]
    return [*told, ("Epochs", f"{setting['epochs']}"), ("Validation to pool", f"{setting['ratio']:.3g}")]


def _arm(arm: Told, told: Told | None) -> dict[str, Any]:
    """A row of the table of accuracies; an arm without runs has dashes."""
    row: dict[str, Any] = {"name": arm["name"], "kind": arm["kind"], "reference": arm["kind"] == REFERENCE}
    if told is None:
        return row | {"runs": 0, "final": None, "best": None, "gap": None, "test": None, "epochs": None, "never": 0}
    best = max(run["best"] for run in told["runs"])
    median = told["median_epochs_to_threshold"]
    return row | {
        "runs": len(told["runs"]),
        "final": _mean(told["final"]),
        "best": _share(best),
        "gap": f"{points(told['gap']['mean'])} ± {100 * told['gap']['sd']:.1f}",
        "test": told["test"] and _mean(told["test"]),
        "epochs": None if median is None else f"{median:g}",
        "never": told["never_reached"],
    }


def _statistics(contrast: Told, measure: str) -> dict[str, Any]:
    """A row of the table of statistics; of a single pair there is the difference alone."""
    told, values = contrast[measure]["statistics"], contrast[measure]["differences"]
    row: dict[str, Any] = {
        "arm": contrast["arm"],
        "against": contrast["against"],
        "measure": _MEASURES[measure],
        "pairs": contrast["pairs"],
        "verdict": contrast[measure]["verdict"],
    }
    if told is None:
        single = points(values[0]["value"]) if values else None
        return row | dict.fromkeys(("interval", "p", "p_holm", "posterior", "needed", "detectable")) | {"mean": single}
    return row | {
        "mean": points(told["mean"]),
        "interval": f"{points(told['low'])} to {points(told['high'])}",
        "p": _p(told["p"]),
        "p_holm": _p(contrast[measure]["p_holm"]),
        "posterior": [f"{told[part]:.0%}" for part in ("worse", "same", "better")],
        "detectable": f"{100 * told['detectable']:.1f}",
        "needed": "more than can help" if told["pairs_needed"] is None else f"{told['pairs_needed']:,}",
    }


def _images(contrast: Told) -> dict[str, Any] | None:
    """A single pair, image by image: cells of the sentence on McNemar's test and the bootstrap."""
    told = contrast["images"]
    return told and _interval(contrast, told) | {
        "only_arm": told["only_arm"],
        "only_against": told["only_against"],
        "p": _p(told["p"]),
        "p_holm": _p(told["p_holm"]),
    }


def _on_test(contrast: Told) -> dict[str, Any] | None:
    told = contrast["test"]
    return told and _interval(contrast, told)


def _interval(contrast: Told, told: Told) -> dict[str, Any]:
    return {
        "arm": contrast["arm"],
        "against": contrast["against"],
        "images": f"{told['images']:,}",
        "mean": points(told["mean"]),
        "interval": f"{points(told['low'])} to {points(told['high'])}",
    }


def _speed(contrast: Told) -> dict[str, Any]:
    return {"arm": contrast["arm"], "against": contrast["against"], "pairs": contrast["pairs"], **contrast["threshold"]}


def _costs(results: Told, setting: Told, costs: Told) -> list[dict[str, Any]]:
    """What every arm took: training, its maps, and the time until half of its runs had reached the threshold."""
    known, maps = costs["settings"].get(setting["name"], {}), costs["maps"]
    rows = []
    for arm in (arm["name"] for arm in results["arms"] if arm["name"] in known):
        spent = known[arm]
        own = (0.0 if maps is None else maps["seconds"]) if spent["reads_maps"] else None
        epochs = setting["arms"].get(arm, {}).get("median_epochs_to_threshold")
        until = None if epochs is None else epochs * spent["seconds_per_epoch"]
        rows.append(
            {
                "name": arm,
                "runs": spent["runs"],
                "seconds": _duration(spent["seconds"]),
                "epoch": _duration(spent["seconds_per_epoch"]),
                "maps": "none" if own is None else "unknown" if maps is None else _duration(own),
                "until": None if until is None else _duration(until),
                "all": None if until is None or (own is not None and maps is None) else _duration(until + (own or 0.0)),
            }
        )
    return rows


def _maps(maps: Told | None) -> dict[str, str] | None:
    return maps and {"images": f"{maps['images']:,}", "duration": _duration(maps["seconds"])}


def _example(example: Mapping[str, Any], pictures: Pictures) -> dict[str, Any]:
    """An image that two arms disagree on: its pictures as data URIs, and what was said of it."""
    found = pictures(example["key"])
    shown = [uri for data in found or () if (uri := _picture(data))]
    return {
        "key": example["key"],
        "label": example["label"],
        "pictures": shown,
        "where": _where(example),
        "said": [
            (example[name], example[f"said_{name}"], example[f"said_{name}"] == example["label"])
            for name in ("against", "arm")
        ],
    }


def _picture(data: bytes) -> str | None:
    """A picture as a data URI, made smaller where it is large; None for what is no picture."""
    kind = next((kind for start, kind in _KINDS if data.startswith(start)), None)
    if kind is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) <= _LARGEST_PICTURE:
                return _data_uri(data, kind)
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None
    small.thumbnail((_LARGEST_PICTURE, _LARGEST_PICTURE), Image.Resampling.LANCZOS)
    smaller = io.BytesIO()
    small.save(smaller, "JPEG", quality=85, optimize=True)
    return _data_uri(smaller.getvalue(), "image/jpeg")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _where(told: Told) -> str:
    fold = "" if told["fold"] is None else f", fold {told['fold']}"
    return f"seed {told['seed']}{fold}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _mean(told: Told) -> str:
    return f"{100 * told['mean']:.1f} ± {100 * told['sd']:.1f} %"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _duration(seconds: float) -> str:
    """A time for people.

    >>> _duration(4.21), _duration(75), _duration(7320)
    ('4.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 0.95 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
