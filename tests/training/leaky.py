"""Shards with maps that leak: of the labels, or by a source model that was trained on the images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.shards.schema import ShardHeader
from tests.training.examples import CLASSES, MAPS, SIZE, labeled_rows, store

IMAGES = 48


def leaky(
    path: Path, *, target: str = "predicted", seen: Sequence[int] | None = None, seed: int = 0, **source: Any
) -> Path:
    """The figures of `labeled`, 48 of three classes.

    Args:
        path: the folder.
        target: what the maps explain.
        seen: positions of the images that the source model was trained on.
        seed: of the images.
        **source: entries of the provenance's source.
    """
    rows = labeled_rows(IMAGES, seed=seed)
    if seen is not None:
        rows = replace(rows, seen=np.isin(np.arange(IMAGES), seen))
    provenance = {"source": {"model": "tiny", "classes": ["a", "b", "c", "d", "e"], **source}}
    provenance["settings"] = {"target": target}
    return store(path, ShardHeader(f"plan-{path.name}", provenance, CLASSES[:3], SIZE, "raw", MAPS), rows, 2)
