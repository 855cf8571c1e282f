"""`Sample`: one image of a shard as exports have it: a file, its raw maps, and everything else as JSON."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.figures.pictures import png
from saliency_pipeline.images.record import SPLITS
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import Positions, ShardFolder
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.workers import ordered, usable_cores

_SPLIT_NAMES = {int(split): name for name, split in SPLITS.items()}
_CHUNK = 32
# a higher level takes several times as long, for a few percent
_COMPRESS_LEVEL = 3


@dataclass(frozen=True)
class Sample:
    """One image with its maps.

    Attributes:
        position: position in the data set.
        image: the frame as a file: lossless PNG of a raw frame, or the stored JPEG bytes.
        suffix: `png` or `jpg`.
        maps: for each method raw maps, float32 (T, h, w).
        facts: key, label, class, split, prediction, source image, and per method targets, scales, flags, residuals
            and standard errors; JSON-serializable, with numbers that are not finite as None.
    """

    position: int
    image: bytes
    suffix: str
    maps: dict[str, npt.NDArray[np.float32]]
    facts: dict[str, Any]

    @property
    def key(self) -> str:
        """Unique name in the data set; not safe as a file name."""
        return str(self.facts["key"])

    @property
    def label(self) -> int:
        """Index into the classes, -1 unlabeled."""
        return int(self.facts["label"])

    @property
    def class_name(self) -> str:
        """Name of the class; empty where unlabeled."""
        return str(self.facts["class"])

    @property
    def split(self) -> str:
        """`train`, `validation`, `test` or empty."""
        return str(self.facts["split"])


def read_samples(data: ShardFolder, positions: Positions, methods: Sequence[str]) -> Iterator[Sample]:
    """Samples at some positions, in order; their images are encoded by several threads.

    Args:
        data: the data set.
        positions: int64 (n,), rising.
        methods: names of the methods whose maps are read.

    Raises:
        IntegrityError: a shard is damaged; names it.
    """
    threads = usable_cores()
    chunks = (
        (shard, places[start : start + _CHUNK], rows[start : start + _CHUNK])
        for shard, places, rows in data.group(positions)
        for start in range(0, len(rows), _CHUNK)
    )

    def read(chunk: tuple[Shard, Positions, Positions]) -> list[Sample]:
        shard, places, rows = chunk
        return _read_chunk(shard, rows, positions[places].tolist(), methods)

    with ThreadPoolExecutor(threads, "export") as pool:
        for samples in ordered(pool, read, chunks, threads + 1):
            yield from samples


def counted(samples: Iterable[Sample], progress: Progress) -> Iterator[Sample]:
    """The samples, each counted when the next one is requested."""
    for sample in samples:
        yield sample
        progress.advance(1)


def _read_chunk(shard: Shard, rows: Positions, positions: list[int], methods: Sequence[str]) -> list[Sample]:
    labels, splits = shard.labels[rows], shard.splits[rows]
    raw = shard.header.encoding == "raw"
    images = (
        [png(frame, _COMPRESS_LEVEL) for frame in shard.images(rows)]
        if raw
        else [shard.jpeg(row) for row in rows.tolist()]
    )
    maps = {method: shard.maps(method, rows) for method in methods}
    per_map = {method: _numbers_of_maps(shard, method, rows) for method in methods}
    predicted, scores = (values[rows] for values in shard.predictions)
    sha256, sizes, groups = shard.source_sha256[rows], shard.source_sizes[rows], shard.groups[rows]
    samples = []
    for place, (row, label, split) in enumerate(zip(rows.tolist(), labels.tolist(), splits.tolist(), strict=True)):
        source: dict[str, Any] = {"sha256": sha256[place].tobytes().hex(), "size": sizes[place].tolist()}
        if shard.header.boxes:
            source["box"] = shard.boxes(row).tolist()
        if shard.header.groups:
            source["group"] = int(groups[place])
        facts = {
            "key": shard.keys[row],
            "label": label,
            "class": shard.classes[label] if label >= 0 else "",
            "split": _SPLIT_NAMES[split],
            "prediction": {"class": predicted[place].tolist(), "score": finite(scores[place])},
            "source": source,
            "saliency": {
                method: {part: finite(values[place]) for part, values in numbers.items()}
                for method, numbers in per_map.items()
            },
        }
        own = {method: values[place] for method, values in maps.items()}
        samples.append(Sample(positions[place], images[place], "png" if raw else "jpg", own, facts))
    return samples


def _numbers_of_maps(shard: Shard, method: str, rows: Positions) -> dict[str, npt.NDArray[Any]]:
    """Numbers stored with each map of a method, (B, T), by the names of their data sets."""
    numbers: dict[str, npt.NDArray[Any] | None] = {
        "target": shard.targets(method, rows),
        "scale": shard.scales(method, rows),
        "flag": shard.flags(method, rows),
        "residual": shard.residuals(method, rows),
        "standard_error": shard.standard_errors(method, rows),
    }
    return {name: values for name, values in numbers.items() if values is not None}


def finite(values: npt.NDArray[Any]) -> list[Any]:
    """Numbers as a list, None for those that are not finite, which JSON does not have."""
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values.tolist()]


def npy(values: npt.NDArray[Any]) -> bytes:
    """An array as a file in NPY format."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def explained_class(data: ShardFolder, target: int) -> str:
    """Name of a class of the source model; empty for -1 and for names that the provenance lacks."""
    classes = data.source_classes
    return str(classes[target]) if 0 <= target < len(classes) else ""
