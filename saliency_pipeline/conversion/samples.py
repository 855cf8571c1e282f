"""`Sample`: one image of a shard as exports have it: a file, its raw maps, and everything else as JSON."""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from saliency_pipeline.conversion.config import SPLITS
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import Positions
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.workers import usable_cores

_SPLIT_NAMES = {value: name for name, value in SPLITS.items()} | {-1: ""}
_CHUNK = 32


@dataclass(frozen=True)
class Sample:
    """One image with its maps.

    Attributes:
        position: position in the data set.
        key: unique name in the data set; not safe as a file name.
        label: index into the classes, -1 unlabeled.
        class_name: name of that class; empty where unlabeled.
        split: `train`, `validation`, `test` or empty.
        image: the frame as a file: lossless PNG of a raw frame, or the stored JPEG bytes.
        suffix: `png` or `jpg`.
        maps: for each method raw maps, float32 (T, h, w).
        facts: key, label, class, split, prediction, source image, and per method targets, scales, flags, residuals
            and standard errors; JSON-serializable, with numbers that are not finite as None.
    """

    position: int
    key: str
    label: int
    class_name: str
    split: str
    image: bytes
    suffix: str
    maps: dict[str, npt.NDArray[np.float32]]
    facts: dict[str, Any]


def read_samples(shard: Shard, rows: Positions, first: int, methods: Sequence[str]) -> Iterator[Sample]:
    """Samples of some rows of a shard, in order; their images are encoded by several threads.

    Args:
        shard: the shard.
        rows: int64 (n,), rising.
        first: position of the shard's row 0 in the data set.
        methods: names of the methods whose maps are read.

    Raises:
        IntegrityError: the shard is damaged; names it.
    """
    threads = usable_cores()
    with ThreadPoolExecutor(threads, "export") as pool:
        pending: deque[Future[list[Sample]]] = deque()
        for start in range(0, len(rows), _CHUNK):
            pending.append(pool.submit(_read_chunk, shard, rows[start : start + _CHUNK], first, methods))
            if len(pending) > threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def counted(samples: Iterable[Sample], progress: Progress) -> Iterator[Sample]:
    """The samples, each counted when the next one is requested."""
    for sample in samples:
        yield sample
        progress.advance(1)


def _read_chunk(shard: Shard, rows: Positions, first: int, methods: Sequence[str]) -> list[Sample]:
    labels, splits = shard.labels[rows], shard.splits[rows]
    raw = shard.header.encoding == "raw"
    images = [_png(frame) for frame in shard.images(rows)] if raw else [shard.jpeg(row) for row in rows.tolist()]
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
        name = shard.classes[label] if label >= 0 else ""
        facts = {
            "key": shard.keys[row],
            "label": label,
            "class": name,
            "split": _SPLIT_NAMES[split],
            "prediction": {"class": predicted[place].tolist(), "score": finite(scores[place])},
            "source": source,
            "saliency": {
                method: {part: finite(values[place]) for part, values in numbers.items()}
                for method, numbers in per_map.items()
            },
        }
        own = {method: values[place] for method, values in maps.items()}
        suffix = "png" if raw else "jpg"
        samples.append(
            Sample(first + row, shard.keys[row], label, name, _SPLIT_NAMES[split], images[place], suffix, own, facts)
        )
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


def _png(frame: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    # a higher level takes several times as long, for a few percent
    Image.fromarray(frame).save(file, "PNG", compress_level=3)
    return file.getvalue()


def npy(values: npt.NDArray[Any]) -> bytes:
    """An array as a file in NPY format."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return file.getvalue()
