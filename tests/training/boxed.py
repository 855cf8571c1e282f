"""Shards whose images have boxes of their figures, or masks instead of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.saliency.methods.registry import GIVEN
from saliency_pipeline.shards.schema import MapShape, ShardHeader
from tests.training.examples import CLASSES, MAPS, SIZE, labeled_rows, store

IMAGES = 48


def boxed(path: Path, *, without: Sequence[int] = (), masks: bool = False, fit: str = "crop", **rows: Any) -> Path:
    """The figures of `labeled`, 48 of three classes, with the box of each.

    Args:
        path: the folder.
        without: positions of images that have none.
        masks: store masks as maps from elsewhere instead of boxes.
        fit: how the provenance says that images became frames.
        **rows: other columns of the rows.
    """
    whole = labeled_rows(IMAGES)
    figures = whole.maps["gradient-simonyan"][:, 0] > 0.5
    figures[list(without)] = False
    boxes = [tuple([box_of(figure)] if figure.any() else []) for figure in figures]
    methods = dict(MAPS)
    if masks:
        whole = replace(
            whole,
            maps={**whole.maps, GIVEN: figures[:, None].astype(np.float32)},
            targets={**whole.targets, GIVEN: np.full((IMAGES, 1), -1, np.int32)},
        )
        methods[GIVEN] = MapShape(1, SIZE, SIZE)
    else:
        whole = replace(whole, boxes=boxes)
    provenance = {"source": {"model": "tiny", "classes": ["a", "b"]}, "settings": {"fit": fit, "target": "predicted"}}
    head = ShardHeader(f"plan-{path.name}", provenance, CLASSES[:3], SIZE, "raw", methods, boxes=not masks)
    return store(path, head, replace(whole, **rows), 2)


def box_of(figure: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box around the pixels of a figure (S, S)."""
    down, across = np.flatnonzero(figure.any(1)), np.flatnonzero(figure.any(0))
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1
