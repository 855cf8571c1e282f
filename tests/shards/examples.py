"""Small shards and folders of shards, made from a seed."""

import dataclasses
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_pipeline.files import publish
from saliency_pipeline.shards.manifest import Manifest, ShardEntry
from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows, shard_name
from saliency_pipeline.shards.writer import ShardWriter
from saliency_pipeline.temporaries import temporary_name

SIZE = 24
SOURCE_CLASSES = [f"source {i}" for i in range(20)]
RESIDUALS = "integrated-gradients:baseline=mean,nodes=20"
MAPS = {"gradcam": MapShape(1, 7, 5), "gradient-simonyan": MapShape(2, SIZE, SIZE)}


def header(encoding: str = "raw", **changes: object) -> ShardHeader:
    provenance = {"salpipe": "0.1.0", "source": {"model": "tiny", "classes": SOURCE_CLASSES}, "seed": 0}
    whole = ShardHeader("plan-1", provenance, ("cat", "dog", "Vögel"), SIZE, encoding, MAPS)
    return dataclasses.replace(whole, **changes)


def rows(count: int, encoding: str = "raw", *, seed: int = 0, first: int = 0) -> ShardRows:
    """`count` images whose keys begin at number `first`, under `header(encoding)`."""
    random = np.random.default_rng([seed, first])
    images = random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    score = -np.sort(-random.random((count, 5), dtype=np.float32), axis=1)
    maps, targets = {}, {}
    for method, shape in MAPS.items():
        raw = random.standard_normal((count, shape.targets, shape.height, shape.width), dtype=np.float32)
        maps[method] = raw * np.float32(10.0) ** random.integers(-6, 6)
        targets[method] = random.integers(0, 20, (count, shape.targets), dtype=np.int32)
    return ShardRows(
        keys=[f"klasse {i % 3}/日本/{'long' * (i % 4)}{i}.jpg" for i in range(first, first + count)],
        labels=random.integers(-1, 3, count),
        splits=random.integers(-1, 3, count, dtype=np.int8),
        images=images if encoding == "raw" else [jpeg(image) for image in images],
        sha256=random.integers(0, 256, (count, 32), dtype=np.uint8),
        source_size=random.integers(1, 4000, (count, 2), dtype=np.int32),
        prediction_class=random.integers(0, 20, (count, 5), dtype=np.int32),
        prediction_score=score,
        maps=maps,
        targets=targets,
    )


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def with_residuals(count: int, residuals: object) -> tuple[ShardHeader, ShardRows]:
    """`count` images with one more method, whose maps have residuals, (count, 2)."""
    whole = rows(count)
    for values in (whole.maps, whole.targets):
        values[RESIDUALS] = values["gradient-simonyan"]
    whole.residuals = {RESIDUALS: np.array(residuals, np.float32).reshape(count, 2)}
    return header(maps=MAPS | {RESIDUALS: MapShape(2, SIZE, SIZE, residual=True)}), whole


def of_methods(
    path: Path, methods: Mapping[str, Mapping[str, object]], count: int = 6, targets: int = 1, **changes: object
) -> Path:
    """One shard with 7 x 7 maps of methods, by name with what is recorded of each; labels go round the classes.

    Maps of a method that is `signed` have negative values; those of a `class_agnostic` one explain no class.
    """
    random = np.random.default_rng(5)
    shapes, whole = {}, rows(count)
    whole.maps, whole.targets, whole.residuals, whole.standard_errors = {}, {}, {}, {}
    for method, recorded in methods.items():
        own = 1 if recorded.get("class_agnostic") else targets
        shapes[method] = MapShape(own, 7, 7, recorded.get("complete") is True, recorded.get("sampled") is True)
        raw = random.standard_normal((count, own, 7, 7), np.float32)
        whole.maps[method] = raw if recorded.get("signed") else np.abs(raw)
        explained = random.integers(0, 20, (count, own), np.int32)
        whole.targets[method] = np.full_like(explained, -1) if recorded.get("class_agnostic") else explained
        if shapes[method].residual:
            whole.residuals[method] = raw[:, :, 0, 0]
        if shapes[method].standard_error:
            whole.standard_errors[method] = np.abs(raw[:, :, 0, 0])
    whole.labels = np.arange(count) % 3
    head = header(**{"maps": shapes, **changes})
    provenance = {**head.provenance, "methods": {name: dict(recorded) for name, recorded in methods.items()}}
    return write(path, dataclasses.replace(head, provenance=provenance), whole)


def part(whole: ShardRows, start: int, stop: int) -> ShardRows:
    """Rows `start` to `stop`."""

    def cut(value):
        return {name: cut(entry) for name, entry in value.items()} if isinstance(value, dict) else value[start:stop]

    return ShardRows(**{field.name: cut(getattr(whole, field.name)) for field in dataclasses.fields(whole)})


def write(
    path: Path, head: ShardHeader, whole: ShardRows, batches: Iterable[int] | None = None, capacity: int | None = None
) -> Path:
    """One shard from rows in batches of the given sizes (default one batch of all)."""
    start = 0
    path.unlink(missing_ok=True)
    with ShardWriter(path, head, len(whole) if capacity is None else capacity) as writer:
        for batch in [len(whole)] if batches is None else batches:
            writer.append(part(whole, start, start + batch))
            start += batch
        assert writer.finish() == len(whole) == start
    return path


def folder(path: Path, counts: Iterable[int] = (4, 3, 5), encoding: str = "raw", rejects: int = 2) -> Path:
    """A finished folder whose shards have these numbers of images."""
    path.mkdir()
    head, entries, first = header(encoding), [], 0
    for number, count in enumerate(counts):
        final = path / shard_name(number)
        tmp = write(temporary_name(final), head, rows(count, encoding, first=first))
        digest = publish(tmp, final)
        entries.append(ShardEntry(final.name, count, final.stat().st_size, digest))
        first += count
    lines = [f'{{"key": "bad {i}.jpg", "reason": "truncated"}}\n' for i in range(rejects)]
    (path / "rejects.jsonl").write_text("".join(lines))
    Manifest(head, rejects, tuple(entries)).write(path)
    return path
