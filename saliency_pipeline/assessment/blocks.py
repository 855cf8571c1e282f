"""Blocks of images: what is measured on each is stored at once, so that a run resumes after a kill."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from saliency_pipeline.assessment.inquiry import Inquiry, Network
from saliency_pipeline.assessment.maps import AssessedMaps
from saliency_pipeline.assessment.measured import Assessed
from saliency_pipeline.assessment.metrics.metric import Metric, Values
from saliency_pipeline.files import disk_errors_explained, write_atomically
from saliency_pipeline.shards.reader import Positions

ALL, SAMPLED = 256, 16
"""Images per block: of metrics that read maps alone, and of those that need the network; 16 are measured at once.

Frames and maps of pixels of a block take 100 MB per thread at 224 pixels."""

_LARGEST = 2**30


@dataclass(frozen=True)
class Block:
    """Images on which some metrics are measured at once.

    Attributes:
        name: of its file, unique in a run.
        positions: (B,) int64, positions of the images in the folder.
        metrics: what is measured on them.
    """

    name: str
    positions: Positions
    metrics: tuple[Metric, ...]

    def measure(self, maps: AssessedMaps, network: Network | None) -> dict[str, Values]:
        """Values of all metrics by method.

        Raises:
            IntegrityError: a shard is damaged; names it.
        """
        forward = any(metric.cost for metric in self.metrics)
        batch = maps.batch(self.positions, network if forward else None, forward or maps.computes_floors)
        # maps of 16 images at the size of the frame fit into a core's cache
        parts = [slice(start, start + SAMPLED) for start in range(0, len(batch), SAMPLED)]
        batches = [batch.part(rows) for rows in parts]
        values: dict[str, Values] = {}
        for method in maps.methods:
            raw = maps.maps(method, self.positions, batch)
            metrics = self.metrics_of(method)
            asks = (
                Inquiry(part, method.name, raw[rows], method.signed) for part, rows in zip(batches, parts, strict=True)
            )
            pieces = [_merged(metric.values(ask) for metric in metrics) for ask in asks]
            values[method.name] = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        return values

    def metrics_of(self, method: Assessed) -> list[Metric]:
        """The metrics that are defined for a method."""
        return [metric for metric in self.metrics if not metric.signed_only or method.signed]


def _merged(answers: Iterable[Values]) -> Values:
    return {name: part for answer in answers for name, part in answer.items()}


def blocks_of(name: str, positions: Positions, metrics: Sequence[Metric], size: int) -> Iterator[Block]:
    """Blocks of up to `size` images each; none without a metric."""
    if metrics:
        for number, start in enumerate(range(0, len(positions), size)):
            yield Block(f"{name}-{number:05d}.npz", positions[start : start + size], tuple(metrics))


def write_block(path: Path, values: dict[str, Values]) -> None:
    """Write the values of a block atomically.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    file = io.BytesIO()
    # names of methods may be any text in files from outside
    columns = {f"{number}/{name}": part for number, each in enumerate(values.values()) for name, part in each.items()}
    np.savez(file, **columns)  # type: ignore[arg-type]
    write_atomically(path, file.getvalue())


def read_block(path: Path, block: Block, methods: Sequence[Assessed]) -> dict[str, Values] | None:
    """The values of a block; None if it is missing, damaged or of other images, methods or columns."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        with np.load(path, allow_pickle=False) as stored:
            values: dict[str, Values] = {method.name: {} for method in methods}
            for name in stored.files:
                number, _, column = name.partition("/")
                values[methods[int(number)].name][column] = np.asarray(stored[name], np.float64)
    # NumPy and zipfile raise many kinds of errors for damaged files
    except Exception:
        return None
    for method in methods:
        expected = {name for metric in block.metrics_of(method) for name in metric.names}
        parts = values[method.name]
        if parts.keys() != expected or any(part.shape[:1] != (len(block.positions),) for part in parts.values()):
            return None
    return values


def remove_blocks(folder: Path) -> None:
    """Remove all blocks of a folder.

    Raises:
        SalpipeError: one cannot be removed.
    """
    for kind in ("explained", "scores", "maps"):
        for path in folder.glob(f"{kind}-*.npz"):
            with disk_errors_explained(path):
                path.unlink()


def scattered(
    blocks: Sequence[tuple[Block, dict[str, Values]]], method: str, name: str, count: int
) -> npt.NDArray[np.float64]:
    """Values (count,) or curves (count, P) of one method from all blocks; NaN for images in none of them."""
    parts = [(block.positions, values[method][name]) for block, values in blocks if name in values[method]]
    shape = parts[0][1].shape[1:] if parts else ()
    result = np.full((count, *shape), np.nan)
    for positions, part in parts:
        result[positions] = part
    return result
