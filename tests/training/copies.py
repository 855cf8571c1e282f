"""Shards of photographs of which some are copies of others, made without a search for duplicates."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as photos

from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
from tests.shards.examples import jpeg
from tests.training.examples import store

CLASSES = ("cat", "dog")
SIZE = 64
PHOTOS = 24
COPIED = tuple(range(0, PHOTOS, 3))
"""Photographs of which there are copies, in the same order after all others: some encoded anew, some cropped."""


def copy(piece: np.ndarray, number: int) -> np.ndarray:
    """A photograph encoded anew; every second one also cropped by 4 to 6 % on each side."""
    image = Image.fromarray(piece)
    if number % 2:
        width, height = image.size
        image = image.crop((round(0.05 * width), round(0.04 * height), round(0.95 * width), round(0.94 * height)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


def quarters() -> list[np.ndarray]:
    """Different pictures: the four quarters of each of six photographs that scikit-image brings."""
    names = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry")
    wholes = [getattr(photos, name)() for name in names]
    halves = [half for whole in wholes for half in np.array_split(whole, 2, axis=0)]
    return [quarter for half in halves for quarter in np.array_split(half, 2, axis=1)]


def photographs() -> list[np.ndarray]:
    """Different photographs, and after them the copies of some."""
    pieces = quarters()
    return [*pieces, *(copy(pieces[number], number) for number in COPIED)]


def framed(piece: np.ndarray, *, border: int = 0) -> np.ndarray:
    """A photograph as a frame, with a gray border of a number of rows above and below."""
    frame = np.full((SIZE, SIZE, 3), 128, np.uint8)
    picture = Image.fromarray(piece).resize((SIZE, SIZE - 2 * border), Image.Resampling.BILINEAR)
    frame[border : SIZE - border] = np.asarray(picture)
    return frame


def copied(
    path: Path, *, encoding: str = "raw", splits: int | list[int] = -1, data: dict[str, object] | None = None
) -> Path:
    """A finished folder of `photographs`; a copy has the class of its original.

    Args:
        path: of the folder.
        encoding: of the frames.
        splits: one of all images, or of each.
        data: what the provenance says of the data set.
    """
    frames = np.stack([framed(piece) for piece in photographs()])
    labels = np.array([number % 2 for number in (*range(PHOTOS), *COPIED)], np.int64)
    parts = np.broadcast_to(splits, len(frames)).astype(np.int8)
    return store(path, header(encoding, data), rows(frames, labels, encoding, parts), 2)


def header(encoding: str = "raw", data: dict[str, object] | None = None, **provenance: object) -> ShardHeader:
    record = {"salpipe": "0.1.0", "data": data or {"layout": "folders"}, **provenance}
    return ShardHeader("plan-copies", record, CLASSES, SIZE, encoding, {"gradcam": MapShape(1, 7, 7)})


def rows(frames: np.ndarray, labels: np.ndarray, encoding: str, splits: np.ndarray) -> ShardRows:
    """Images of nine persons, CLASS/person-N/NUMBER.jpg, all of different bytes; copies show the same person."""
    random, count = np.random.default_rng(0), len(frames)
    persons = [number % 9 for number in (*range(PHOTOS), *COPIED)]
    return ShardRows(
        keys=[
            f"{CLASSES[label]}/person-{persons[place]}/{place:03d}.jpg" for place, label in enumerate(labels.tolist())
        ],
        labels=labels,
        splits=splits,
        images=frames if encoding == "raw" else [jpeg(frame) for frame in frames],
        sha256=random.integers(0, 256, (count, 32), dtype=np.uint8),
        source_size=np.full((count, 2), SIZE, np.int32),
        prediction_class=np.tile(np.arange(5, dtype=np.int32), (count, 1)),
        prediction_score=np.full((count, 5), 0.2, np.float32),
        maps={"gradcam": random.random((count, 1, 7, 7), dtype=np.float32)},
        targets={"gradcam": np.zeros((count, 1), np.int32)},
    )
