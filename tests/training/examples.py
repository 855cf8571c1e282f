"""Small folders of shards from which something can be learned, made from a seed; and a run that is interrupted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.files import publish
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.manifest import Manifest, ShardEntry
from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows, shard_name
from saliency_pipeline.temporaries import temporary_name
from tests.shards.examples import jpeg, part, write

SIZE = 32
CLASSES = ("circle", "square", "stripe", "cross")
MAPS = {"gradcam": MapShape(1, 7, 7), "gradient-simonyan": MapShape(2, SIZE, SIZE)}
PROVENANCE = {"salpipe": "0.1.0", "source": {"model": "tiny", "classes": ["a", "b", "c", "d", "e"]}, "seed": 0}

TRAIN, VALIDATION, TEST = 0, 1, 2
# of every eight images of a class four are trained on, two validate and two test
_SPLITS = np.array([TRAIN, VALIDATION, TRAIN, TEST, TRAIN, VALIDATION, TRAIN, TEST], np.int8)


class Interrupting(Progress):
    """Raises KeyboardInterrupt after a number of steps of training or validation."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advance(self, count: int) -> None:
        self.steps -= count
        if self.steps < 0:
            raise KeyboardInterrupt


def disable_plots(patch: pytest.MonkeyPatch) -> None:
    """Let training write an empty `curves.png`, since plotting takes longer than the epochs of a test."""
    patch.setattr("saliency_pipeline.training.run.write_curves", lambda folder, *_: (folder / "curves.png").touch())


def labeled(
    path: Path,
    images: int = 96,
    shards: int = 3,
    *,
    classes: int = 3,
    encoding: str = "raw",
    seed: int = 0,
    unlabeled: int = 0,
) -> Path:
    """A finished folder: classes in turn, each a figure of its own color at a random place in noise.

    Half of each class is for training, a quarter for validation and a quarter for testing. The maps are high where
    the figure stands: `gradcam` 7 × 7 with values from 0 to about 4, `gradient-simonyan` 32 × 32 for two targets, the
    second the negative of the first. The last `unlabeled` images have label -1.
    """
    whole = labeled_rows(images, classes, seed)
    whole.labels[images - unlabeled :] = -1
    if encoding == "jpeg":
        whole = dataclasses.replace(whole, images=[jpeg(image) for image in whole.images])
    return store(path, ShardHeader("plan-labeled", PROVENANCE, CLASSES[:classes], SIZE, encoding, MAPS), whole, shards)


def store(path: Path, head: ShardHeader, whole: ShardRows, shards: int = 1) -> Path:
    """A finished folder of some rows."""
    path.mkdir()
    entries = []
    for number, places in enumerate(np.array_split(np.arange(len(whole)), shards)):
        final = path / shard_name(number)
        rows = part(whole, places[0], places[-1] + 1)
        digest = publish(write(temporary_name(final), head, rows), final)
        entries.append(ShardEntry(final.name, len(rows), final.stat().st_size, digest))
    (path / "rejects.jsonl").write_text("")
    Manifest(head, 0, tuple(entries)).write(path)
    return path


def labeled_rows(count: int, classes: int = 3, seed: int = 0) -> ShardRows:
    """The images of `labeled` with raw frames."""
    random = np.random.default_rng([seed, count])
    labels = np.arange(count) % classes
    colors = np.array([[220, 60, 60], [60, 200, 60], [70, 90, 230], [210, 200, 50]], np.uint8)
    images = random.integers(60, 140, (count, SIZE, SIZE, 3), dtype=np.uint8)
    figures = np.zeros((count, SIZE, SIZE), bool)
    for figure, image, label in zip(figures, images, labels, strict=True):
        top, left = random.integers(0, SIZE - 12, 2)
        figure[top : top + 12, left : left + 12] = _figure(label)
        image[figure] = colors[label]
    dense = figures.astype(np.float32) + random.random(figures.shape, dtype=np.float32) / 8
    # cell means of the figure, as a network's last layer would see it
    edges = np.linspace(0, SIZE, 8).astype(int)
    coarse = np.add.reduceat(np.add.reduceat(dense, edges[:-1], 1), edges[:-1], 2) / (SIZE / 7) ** 2
    top = np.tile(np.arange(5, dtype=np.int32), (count, 1))
    return ShardRows(
        keys=[f"{CLASSES[label]}/{i:04d}.jpg" for i, label in enumerate(labels)],
        labels=labels,
        splits=_SPLITS[np.arange(count) // classes % len(_SPLITS)],
        images=images,
        sha256=random.integers(0, 256, (count, 32), dtype=np.uint8),
        source_size=np.full((count, 2), SIZE, np.int32),
        prediction_class=top,
        prediction_score=np.tile(np.array([0.4, 0.3, 0.2, 0.07, 0.03], np.float32), (count, 1)),
        maps={"gradcam": 4 * coarse[:, None], "gradient-simonyan": np.stack([dense, -dense], 1)},
        targets={"gradcam": top[:, :1], "gradient-simonyan": top[:, :2]},
    )


def _figure(label: int) -> np.ndarray:
    """The figure of a class, bool (12, 12)."""
    y, x = np.mgrid[-5.5:6, -5.5:6]
    return (np.hypot(y, x) < 6, np.maximum(abs(y), abs(x)) < 5, abs(y) < 2, np.minimum(abs(y), abs(x)) < 2)[label]
