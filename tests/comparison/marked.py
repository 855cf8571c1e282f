"""A data set whose classes are only visible at the place that the maps mark: the positive control of `compare`."""

from pathlib import Path

import numpy as np

from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
from tests.training.examples import store

CLASSES = ("blue", "green", "red", "yellow")
COLORS = np.array([[60, 80, 230], [60, 200, 60], [220, 50, 50], [220, 210, 50]], np.uint8)
SIZE, CELLS, PATCH = 48, 6, 8
PROVENANCE = {"source": {"model": "none", "weights": "none"}, "settings": {"target": "region"}}
"""The maps are annotations of a region, not explanations of a class by a source model."""


def marked(path: Path, images: int = 160, *, seed: int = 0) -> Path:
    """Noise with one patch of each class's color at a random place; only the map shows which of them is the class.

    Two methods are stored, 6 x 6: `truth` is 1 over the patch of the class and 0 elsewhere, `nothing` is 1 over a
    place drawn from all four patches. Without the map every class looks alike, so that nobody does better than one
    in four.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(images, dtype=np.int64) % len(CLASSES)
    frames = random.integers(90, 130, (images, SIZE, SIZE, 3), dtype=np.uint8)
    truth, nothing = np.zeros((2, images, 1, CELLS, CELLS), np.float32)
    for image, label in enumerate(labels.tolist()):
        cells = random.choice(CELLS * CELLS, len(CLASSES), replace=False)
        for color, cell in enumerate(cells.tolist()):
            row, column = divmod(cell, CELLS)
            frames[image, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = COLORS[color]
        truth[image, 0].flat[cells[label]] = 1
        nothing[image, 0].flat[random.choice(cells)] = 1
    maps = {"nothing": nothing, "truth": truth}
    header = ShardHeader(
        f"plan-marked-{seed}", PROVENANCE, CLASSES, SIZE, "raw", {name: MapShape(1, CELLS, CELLS) for name in maps}
    )
    rows = ShardRows(
        keys=[f"{CLASSES[label]}/{image:04d}.png" for image, label in enumerate(labels.tolist())],
        labels=labels,
        splits=np.full(images, -1, np.int8),
        images=frames,
        sha256=random.integers(0, 256, (images, 32), dtype=np.uint8),
        source_size=np.full((images, 2), SIZE, np.int32),
        prediction_class=np.tile(np.arange(5, dtype=np.int32), (images, 1)),
        prediction_score=np.full((images, 5), 0.2, np.float32),
        maps=maps,
        targets={name: np.zeros((images, 1), np.int32) for name in maps},
    )
    return store(path, header, rows)
