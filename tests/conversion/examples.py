"""Shards with everything that shards can hold: odd keys, boxes, groups, residuals, standard errors, no labels."""

import dataclasses
from pathlib import Path

import numpy as np

from saliency_pipeline.files import publish
from saliency_pipeline.shards.manifest import Manifest, ShardEntry
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows, shard_name
from saliency_pipeline.temporaries import temporary_name
from tests.shards.examples import SIZE, header, rows, write

SMOOTHGRAD = "smoothgrad:noise=0.15,samples=25,seed=0,stat=mean"
MAPS = {
    "edges": MapShape(1, 4, 6),
    "gradcam": MapShape(2, 7, 5, standard_error=True),
    SMOOTHGRAD: MapShape(2, SIZE, SIZE, residual=True),
}
KEYS = (
    "../../outside.png",
    "/etc/absolute.jpg",
    "cat/.hidden.jpg",
    "x.y/1.2.3.JPEG",
    "line\nbreak/\x1b[2J.png",
    "日本/Vögel 1.jpg",
    "same.jpg",
    "d/same.jpg",
    f"{'long' * 60}.png",
    "no suffix",
    "tar/train-00000.tar",
    "a\\b.png",
)
METHODS = {"edges": {"class_agnostic": True}, "gradcam": {}, SMOOTHGRAD: {"signed": True, "complete": True}}


def rich_header(encoding: str = "raw", **changes: object) -> ShardHeader:
    """A header with boxes and groups and a method of each kind."""
    plain = header(encoding)
    provenance = {
        **plain.provenance,
        "methods": METHODS,
        "settings": {"fit": "pad", "target": "predicted"},
        "source": {**plain.provenance["source"], "weights_sha256": "5" * 64},
    }
    classes = ("cat", "a/b", "..", "A/b")
    rich = dataclasses.replace(plain, provenance=provenance, classes=classes, maps=MAPS, boxes=True, groups=True)
    return dataclasses.replace(rich, **changes)


def rich_rows(first: int, count: int, encoding: str = "raw") -> ShardRows:
    """Images with some of `KEYS`, in all splits and classes, some without."""
    random = np.random.default_rng(first)
    whole = rows(count, encoding, first=first)
    whole.keys = list(KEYS[first : first + count])
    numbers = np.arange(first, first + count)
    whole.labels, whole.splits = numbers % 5 - 1, (numbers % 4 - 1).astype(np.int8)
    whole.groups = np.where(numbers % 3 == 0, numbers, -1)
    whole.source_size = np.full((count, 2), (30, 40), np.int32)
    whole.boxes = [[(1, 2, 20, 28), (5, 5, 9, 30)][: number % 3] for number in numbers.tolist()]
    whole.maps, whole.targets = {}, {}
    for method, shape in MAPS.items():
        raw = random.standard_normal((count, shape.targets, shape.height, shape.width), dtype=np.float32) * 1e-3
        whole.maps[method] = raw if method == SMOOTHGRAD else np.abs(raw)
        whole.targets[method] = random.integers(0, 20, (count, shape.targets), dtype=np.int32)
    whole.targets["edges"][:] = -1
    whole.maps["gradcam"][0] = 0
    whole.residuals = {SMOOTHGRAD: random.standard_normal((count, 2)).astype(np.float32)}
    whole.residuals[SMOOTHGRAD][0, 0] = np.nan
    whole.standard_errors = {"gradcam": random.random((count, 2)).astype(np.float32)}
    return whole


def rich_folder(path: Path, encoding: str = "raw", counts: tuple[int, ...] = (5, 4, 3)) -> ShardFolder:
    """A finished folder of shards with the images of `KEYS`."""
    path.mkdir(parents=True)
    entries, first = [], 0
    for number, count in enumerate(counts):
        final = path / shard_name(number)
        written = write(temporary_name(final), rich_header(encoding), rich_rows(first, count, encoding))
        digest = publish(written, final)
        entries.append(ShardEntry(final.name, count, final.stat().st_size, digest))
        first += count
    Manifest(rich_header(encoding), 0, tuple(entries)).write(path)
    return ShardFolder(path)


def tree(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of an export but its lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
