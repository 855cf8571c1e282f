"""The page of explanations: methods side by side for every image and target, in one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saliency_pipeline.explanation.explanation import MINUS, ClassScore, Explanation, percent, signed
from saliency_pipeline.figures import pages
from saliency_pipeline.figures.pictures import Pixels, data_uri, jpeg, png, resized
from saliency_pipeline.saliency.render import colors, overlay
from saliency_pipeline.text import plural

TEMPLATE = "explanation.html"
_SIDES = (224, 448)


@dataclass(frozen=True)
class _View:
    """One map as the page shows it; `picture` is a data URI."""

    picture: str
    method: str
    parameters: str
    range: str
    residual: str
    standard_error: str
    signed: bool
    class_specific: bool


@dataclass(frozen=True)
class _Row:
    target: ClassScore
    views: list[_View]


@dataclass(frozen=True)
class _Section:
    """One image; `photo` is a data URI."""

    name: str
    photo: str
    top: tuple[ClassScore, ...]
    rows: list[_Row]


def write_page(path: Path, explanations: Sequence[Explanation]) -> Path:
    """Write explanations of the same methods, at least one, as a page, and return its path.

    Raises:
        SalpipeError: the file cannot be written.
    """
    first = explanations[0]
    sections = [_section(each) for each in explanations]
    views = [view for section in sections for row in section.rows for view in row.views]
    title = first.name if len(explanations) == 1 else plural(len(explanations), "image")
    facts = {
        **({"Prediction": str(first.prediction)} if len(explanations) == 1 else {}),
        **first.facts,
        "Methods": str(len(first.maps)),
        "Frame": f"{len(first.frame)} × {len(first.frame)}",
    }
    return pages.write_page(
        path,
        pages.environment(__package__, {"percent": percent}),
        TEMPLATE,
        title=title,
        facts=[(name, value) for name, value in facts.items() if value],
        sections=sections,
        legends=[_legend(signed) for signed in (False, True) if any(view.signed == signed for view in views)],
    )


def _section(explanation: Explanation) -> _Section:
    side = min(_SIDES[1], max(_SIDES[0], len(explanation.frame)))
    frame = resized(explanation.frame, side)
    rows = []
    for position, target in enumerate(explanation.targets):
        views = [
            _view(explanation, frame, name, position)
            for name, method in explanation.methods.items()
            if position == 0 or method.class_specific
        ]
        rows.append(_Row(target, views))
    return _Section(explanation.name, data_uri(jpeg(frame, 88)), explanation.top, rows)


def _view(explanation: Explanation, frame: Pixels, name: str, position: int) -> _View:
    values, (method, parameters) = explanation.map(name, position), explanation.label(name)
    residual, error = explanation.residuals.get(name), explanation.standard_errors.get(name)
    return _View(
        picture=data_uri(jpeg(overlay(frame, values), 88)),
        method=method,
        parameters=parameters,
        range=f"{values.min():.3g} to {values.max():.3g}".replace("-", MINUS),
        residual="" if residual is None else signed(residual[position]),
        standard_error="" if error is None else percent(error[position]),
        signed=bool((values < 0).any()),
        class_specific=explanation.methods[name].class_specific,
    )


def _legend(signed: bool) -> tuple[str, str, str]:
    """Meaning of the weak end of the colors, a picture of them, and meaning of the strong end."""
    values = np.linspace(-1 if signed else 0, 1, 96, dtype=np.float32)
    bar = data_uri(png(np.repeat(colors(values[None]), 8, axis=0)), "png")
    return ("against the class", bar, "for the class") if signed else ("low", bar, "high")
