"""One picture of explanations: a row per image and target, a column per method, the image itself first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from saliency_pipeline.explanation.explanation import Explanation, percent, signed
from saliency_pipeline.figures.pictures import Pixels, resized
from saliency_pipeline.saliency.render import contact_sheet, overlay

_SIDES = (224, 320)
"""Bounds of the side of each picture, in pixels."""

_WIDEST = 6
"""Most pictures beside each other where a single row may be wrapped."""


def side_by_side(explanations: Sequence[Explanation]) -> Pixels:
    """Maps over their images, (H, W, 3) uint8, with captions: classes and scores, methods and their parameters.

    A method that explains no class has one map, in the first row of its image. A single row of many methods is wrapped.

    Args:
        explanations: at least one, all of the same methods.
    """
    tiles: list[Pixels] = []
    captions: list[str] = []
    for explanation in explanations:
        side = min(_SIDES[1], max(_SIDES[0], len(explanation.frame)))
        frame = resized(explanation.frame, side)
        blank = np.full_like(frame, 255)
        for position, target in enumerate(explanation.targets):
            tiles.append(frame)
            heading = explanation.name if position == 0 else ""
            captions.append("\n".join(filter(None, (str(target), heading))))
            for name, method in explanation.methods.items():
                repeated = position > 0 and not method.class_specific
                tiles.append(blank if repeated else overlay(frame, explanation.map(name, position)))
                captions.append("" if repeated else caption(explanation, name, position))
    columns = 1 + len(explanations[0].maps)
    if len(tiles) == columns > _WIDEST:
        columns = math.ceil(columns / math.ceil(columns / _WIDEST))
    return contact_sheet(tiles, columns, captions)


def caption(explanation: Explanation, name: str, position: int) -> str:
    """Lines under a map: the method, parameters that are not the default, residual and standard error."""
    method, parameters = explanation.label(name)
    lines = [method, parameters]
    if name in explanation.residuals:
        lines.append(f"residual {signed(explanation.residuals[name][position])}")
    if name in explanation.standard_errors:
        lines.append(f"standard error {percent(explanation.standard_errors[name][position])}")
    return "\n".join(filter(None, lines))
