"""A data set with a shortcut: in training images, but in no others, a patch that maps do not mark shows the class."""

from pathlib import Path

import numpy as np

from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
from tests.training.examples import TRAIN, VALIDATION, store

CLASSES = ("across", "diagonal", "down")
COLORS = np.array([[60, 80, 230], [60, 200, 60], [220, 50, 50]], np.uint8)
CELLS = 6
PROVENANCE = {"source": {"model": "none", "weights": "none"}, "settings": {"target": "region"}}
"""The maps are annotations of a region, not explanations of a class by a source model."""


def decoys(path: Path, images: int = 24, *, side: int = 48, seed: int = 0) -> Path:
    """Noise with a patch of faint stripes, whose direction is the class, and a patch of vivid color.

    Half of the images of each class are for training, where the color is that of the class; in the other half it is
    random. Two methods are stored, 6 x 6: `truth` is 1 over the stripes and 0 elsewhere, `nothing` at a random place.
    """
    random, patch = np.random.default_rng(seed), side // CELLS
    labels = np.arange(images, dtype=np.int64) % len(CLASSES)
    splits = np.where(np.arange(images) // len(CLASSES) % 2, VALIDATION, TRAIN).astype(np.int8)
    frames = random.integers(90, 130, (images, side, side, 3), dtype=np.uint8)
    truth, nothing = np.zeros((2, images, 1, CELLS, CELLS), np.float32)
    down, right = np.mgrid[:patch, :patch]
    for i, label in enumerate(labels.tolist()):
        places = random.choice(CELLS * CELLS, 3, replace=False).tolist()
        stripes, color = (
            frames[i, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            for row, column in (divmod(place, CELLS) for place in places[:2])
        )
        lines = (down, down + right, right)[label] // 2 % 2
        stripes[:] = np.where(lines, 150, 70)[:, :, None]
        color[:] = COLORS[label if splits[i] == TRAIN else random.integers(len(CLASSES))]
        truth[i, 0].flat[places[0]] = 1
        nothing[i, 0].flat[places[2]] = 1
    maps = {"nothing": nothing, "truth": truth}
    shapes = {name: MapShape(1, CELLS, CELLS) for name in maps}
    rows = ShardRows(
        keys=[f"{CLASSES[label]}/{i:04d}.png" for i, label in enumerate(labels.tolist())],
        labels=labels,
        splits=splits,
        images=frames,
        sha256=random.integers(0, 256, (images, 32), dtype=np.uint8),
        source_size=np.full((images, 2), side, np.int32),
        prediction_class=np.tile(np.arange(5, dtype=np.int32), (images, 1)),
        prediction_score=np.full((images, 5), 0.2, np.float32),
        maps=maps,
        targets={name: np.zeros((images, 1), np.int32) for name in maps},
    )
    return store(path, ShardHeader(f"plan-decoys-{seed}", PROVENANCE, CLASSES, side, "raw", shapes), rows)
