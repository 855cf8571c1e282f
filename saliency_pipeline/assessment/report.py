"""Page of an assessment, and its figures as files. All values are in `assess.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saliency_pipeline.assessment.figures import curve_panels, quality_and_cost
from saliency_pipeline.assessment.metrics.metric import Column
from saliency_pipeline.assessment.ranking import REFERENCE
from saliency_pipeline.assessment.results import WORSE, Contrast, Example, MethodResult, Results
from saliency_pipeline.assessment.wording import base_name, number
from saliency_pipeline.figures import pages
from saliency_pipeline.figures.pictures import data_uri
from saliency_pipeline.figures.plotting import make_report_folder, picture_of
from saliency_pipeline.text import plural

PAGE = "report.html"
COST_FIGURE = "quality-and-cost"

Pictures = Callable[[str, str], tuple[bytes, bytes] | None]
"""Photo and overlay of an image by its key and a method, as JPEG files; None where they are not available."""


def write_report(folder: Path, results: Results, pictures: Pictures) -> Path:
    """Write `report.html`, which is self-contained, and `figures/` as PNG and SVG; the same arguments, the same bytes.

    Args:
        folder: output folder.
        results: content of `assess.json`.
        pictures: pictures of the best and worst images.

    Returns:
        The page.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    make_report_folder(folder)
    main = _main_columns(results)
    templates = pages.environment(__package__, {"number": number, "signed": signed, "arrow": arrow, "base": base_name})
    curves = [
        (metric, curve, picture)
        for metric in results.metrics
        for curve in metric.curves
        if (picture := picture_of(folder, curve.name, curve_panels(results, metric, curve)))
    ]
    return pages.write_page(
        folder / PAGE,
        templates,
        "report.html",
        results=results,
        facts=_facts(results),
        headline=results.column(results.headline) if results.headline else None,
        main=main,
        other=[column for metric in results.metrics for column in metric.columns if column not in main],
        rows=[(each, results.method(each.method)) for each in results.ranking],
        floors=[method for method in results.methods if method.floor],
        leading=_leading(results),
        contrasts=_tables(results, main),
        labels={method.name: method.label for method in results.methods},
        cost=picture_of(folder, COST_FIGURE, quality_and_cost(results)),
        costless=[method.label for method in results.methods if method.cost is None],
        curves=curves,
        examples=_examples(results, pictures),
        reference=REFERENCE,
        about=json.dumps(results.about, indent=2, sort_keys=True),
    )


def signed(value: float | None) -> str:
    """A difference with its sign.

    >>> signed(0.0312), signed(-0.2), signed(0.0), signed(None)
    ('+0.031', '−0.200', '0.000', '–')
    """
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and text.strip("0.") else text


def arrow(column: Column) -> str:
    """Direction of a column: an arrow up where higher is better, down where lower is; nothing without a direction."""
    return "" if column.higher is None else "↑" if column.higher else "↓"


def _facts(results: Results) -> list[tuple[str, str]]:
    """Facts at the head of the page; `about["facts"]` has those of the run, pairs of name and value."""
    floors = sum(method.floor for method in results.methods)
    facts = [("Images", f"{results.images:,}")]
    if any(metric.sampled for metric in results.metrics):
        facts.append(("Sampled for the network", f"{results.sampled:,}"))
    facts += [("With boxes", f"{results.boxes:,}"), ("Classes", f"{results.classes:,}")]
    facts.append(("Methods", f"{len(results.methods) - floors} and {plural(floors, 'floor')}"))
    return facts + [(str(name), str(value)) for name, value in dict(results.about.get("facts", {})).items()]


def _main_columns(results: Results) -> list[Column]:
    """Headline, and main column of each metric that has a direction."""
    main = [metric.columns[0] for metric in results.metrics if metric.columns[0].higher is not None]
    first = [results.column(results.headline)] if results.headline else []
    return first + [column for column in main if column not in first]


def _leading(results: Results) -> dict[str, set[str]]:
    """By column with a direction the best method and those that cannot be distinguished from it."""
    leading = {}
    for column, contrasts in results.contrasts.items():
        names = [method.name for method in results.methods if not method.floor and method.columns[column].images]
        best = {each.against for each in contrasts} - {method.name for method in results.methods if method.floor}
        worse = {each.method for each in contrasts if each.against in best and each.verdict == WORSE}
        leading[column] = {name for name in names if name not in worse}
    return leading


def _tables(
    results: Results, main: Sequence[Column]
) -> list[tuple[Column, list[str], list[tuple[MethodResult, list[Contrast | None]]]]]:
    """Per column the methods that others are compared with, and one row per method in the order of the ranking."""
    tables = []
    for column in main:
        contrasts = results.contrasts.get(column.name)
        if not contrasts:
            continue
        against = list(dict.fromkeys(each.against for each in contrasts))
        of = {(each.method, each.against): each for each in contrasts}
        methods = [results.method(each.method) for each in results.ranking]
        rows = [(method, [of.get((method.name, other)) for other in against]) for method in methods if not method.floor]
        tables.append((column, against, rows))
    return tables


def _examples(results: Results, pictures: Pictures) -> list[tuple[MethodResult, list[dict[str, Any]]]]:
    """Best and worst images of the methods, in the order of the ranking."""
    examples = []
    for each in results.ranking:
        method = results.method(each.method)
        # from the best to the worst
        kinds: Sequence[tuple[str, Example]] = [
            *(("best", example) for example in method.best),
            *(("worst", example) for example in reversed(method.worst)),
        ]
        if kinds:
            examples.append((method, [_example(kind, example, method.name, pictures) for kind, example in kinds]))
    return examples


def _example(kind: str, example: Example, method: str, pictures: Pictures) -> dict[str, Any]:
    files = pictures(example.key, method)
    photo, overlay = map(data_uri, files) if files else (None, None)
    return {**vars(example), "kind": kind, "photo": photo, "overlay": overlay}
