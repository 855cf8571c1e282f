"""Batches of image-map pairs: `PairDataset` reads them from shards, `Prefetcher` transforms them in the background."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.methods import stored_method
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import (
    CENTER_PRIOR,
    MISMATCHED,
    ORACLE,
    OWN,
    SAME_CLASS,
    SHUFFLED,
    STORED,
    UNIFORM,
)
from saliency_pipeline.training.data.augment import augment
from saliency_pipeline.training.data.controls import center_prior, partners, partners_of_class, shuffle_cells
from saliency_pipeline.training.data.maps import normalize, upsample
from saliency_pipeline.training.data.mixed import Mixed
from saliency_pipeline.training.data.sources import MapSource
from saliency_pipeline.uses.use import Limits, Seeds, Use
from saliency_pipeline.workers import usable_cores

Item = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None, int]
Indices = Sequence[int] | npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class PairRows:
    """Rows of shards as stored.

    Attributes:
        positions: positions in the folder, int64 (B,).
        images: uint8 (B, S, S, 3) RGB.
        maps: float32 (B, h, w) raw maps at native resolution, any range; None without maps.
        labels: int64 (B,), index into the classes, -1 unlabeled.
    """

    positions: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]
    maps: npt.NDArray[np.float32] | None
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """A transformed batch.

    Attributes:
        images: uint8 (V * B, 3, S, S) RGB in channels_last strides: all first views, then all second ones.
        maps: float32 (B, 1, S, S), normalized; None without maps, or where a use has applied them.
        labels: int64 (B,), index into the classes, -1 unlabeled.
        positions: positions in the folder, int64 (B,).
        mixed: what the images are mixed with; None if none is.
        views: number V of views of each image.
    """

    images: Tensor
    maps: Tensor | None
    labels: Tensor
    positions: npt.NDArray[np.int64]
    mixed: Mixed | None = None
    views: int = 1

    def average(self, logits: Tensor) -> Tensor:
        """Mean over the views of each image: (V * B, C) to (B, C)."""
        return logits if self.views == 1 else logits.view(self.views, -1, logits.shape[1]).mean(0)


class PairDataset(Dataset[Item]):
    """Images of a folder of shards with the maps of one method; shards are opened on first use.

    Shards are read as plain files and no HDF5 handle is kept, so that a `torch.utils.data.DataLoader` may have any
    number of workers, forked or spawned.

    Args:
        folder: the shards.
        rows: (N,) positions in the folder, in any order; they may repeat.
        method: saliency method of the maps, by any spelling of its name, see `stored_method`; None for no maps, or
            those of `source`.
        target: index of the map, for methods that store several per image.
        maps: `own`, or a control, see `training.data.controls`, in the shape of the method's maps.
        seed: random seed of the control.
        source: maps from elsewhere instead of those of a method; prepared before they are read.

    Raises:
        SalpipeError: the folder has no such method, target or position.

    Example:
        A loader for a training loop of one's own::

            dataset = PairDataset(ShardFolder("shards"), rows, "gradcam")
            loader = DataLoader(dataset, 32, shuffle=True, num_workers=2, collate_fn=PairDataset.collate)
    """

    def __init__(
        self,
        folder: ShardFolder,
        rows: npt.NDArray[np.integer[Any]],
        method: str | None,
        target: int = 0,
        maps: str = OWN,
        seed: int = 0,
        source: MapSource | None = None,
    ) -> None:
        if method is not None:
            method = stored_method(folder, method)
            targets = folder.header.maps[method].targets
            if not 0 <= target < targets:
                raise SalpipeError(
                    f"{folder.path} holds {targets} maps of '{method}' per image; use a target from 0 to "
                    f"{targets - 1}, not {target}"
                )
        positions: npt.NDArray[np.int64] = np.asarray(rows, dtype=np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < len(folder)):
            raise SalpipeError(
                f"{folder.path} holds {len(folder)} images, not those from {positions.min()} to {positions.max()}"
            )
        self.folder, self.rows, self.method, self.target = folder, positions, method, target
        self.maps, self.seed, self.source = maps, seed, source

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index into the classes of every row, int64 (N,); -1 unlabeled.

        Raises:
            IntegrityError: a shard is damaged.
        """
        return self.folder.labels_at(self.rows)

    @cached_property
    def map_rows(self) -> npt.NDArray[np.int64]:
        """Positions in the folder of the images that the maps belong to, int64 (N,)."""
        if self.maps == MISMATCHED:
            return self.rows[partners(len(self), self.seed)]
        return self.rows[partners_of_class(self.labels, self.seed)] if self.maps == SAME_CLASS else self.rows

    @cached_property
    def scales(self) -> npt.NDArray[np.float32]:
        """Greatest absolute value of the map of every row, float32 (N,); reading one costs as much as a small map.

        Raises:
            IntegrityError: a shard is damaged, or a scale in it negative or not finite.
        """
        assert self.method is not None
        return self.folder.scales_at(self.map_rows, self.method, self.target)

    @property
    def unmarked(self) -> int:
        """Number of images whose map is 0 everywhere and marks no place; 0 without maps and for maps that are made."""
        if self.source is not None:
            return int((~self.source.marked(self.rows)).sum())
        if self.method is None or self.maps not in STORED:
            return 0
        return int((self.scales == 0).sum())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("labels", "map_rows", "scales")}

    def __getitem__(self, index: int) -> Item:
        """The image uint8 (S, S, 3), its raw map float32 (h, w) or None, and its label."""
        rows = self.__getitems__([index])
        return rows.images[0], None if rows.maps is None else rows.maps[0], int(rows.labels[0])

    def __getitems__(self, indices: Indices) -> PairRows:
        """The rows at some indices of this data set, in their order.

        Raises:
            IntegrityError: a shard is damaged.
        """
        indices = np.asarray(indices, dtype=np.int64)
        positions: npt.NDArray[np.int64] = self.rows[indices]
        # worker processes decode beside one another already
        images = self.folder.images_at(positions, 1 if get_worker_info() else usable_cores())
        return PairRows(positions, images, self._maps(indices), self.labels[indices])

    def read_at(self, indices: Indices) -> npt.NDArray[np.int64]:
        """Positions in the folder of all that is read for some indices: images, and maps of other images."""
        own: npt.NDArray[np.int64] = self.rows[np.asarray(indices, dtype=np.int64)]
        if self.method is None or self.maps not in (MISMATCHED, SAME_CLASS):
            return own
        return np.concatenate([own, self.map_rows[np.asarray(indices, dtype=np.int64)]])

    def _maps(self, indices: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32] | None:
        """The maps at some indices, or the maps of the control: float32 (B, h, w); None without maps."""
        if self.source is not None:
            return self.source.at(self.rows[indices])
        if self.method is None:
            return None
        shape = self.folder.header.maps[self.method]
        maps = np.ones((len(indices), shape.height, shape.width), np.float32)
        if self.maps == UNIFORM:
            return maps
        if self.maps == CENTER_PRIOR:
            maps[:] = center_prior(shape.height, shape.width)
            return maps
        stored = self.folder.stored_maps_at(self.map_rows[indices], self.method, self.target)
        np.multiply(stored, self.scales[indices, None, None], out=maps)
        return shuffle_cells(maps, self.rows[indices], self.seed) if self.maps == SHUFFLED else maps

    @staticmethod
    def collate(rows: PairRows) -> dict[str, Tensor]:
        """`PairRows` as tensors by name, the form in which a `DataLoader` pins them and shares them among processes.

        Returns:
            positions, images, labels and, where a method was asked for, maps, as in `PairRows`.
        """
        return {name: torch.from_numpy(value) for name, value in vars(rows).items() if value is not None}


@dataclass(frozen=True)
class Transform:
    """Normalization of maps and augmentation of pairs.

    Attributes:
        normalize: normalization of the maps, one of `maps.NORMALIZATIONS`.
        augment: augmentations, some of `augment.AUGMENTATIONS`.
        training: whether random choices are made, as for training images.
        seed: random seed of these choices.
        signed: whether values of the maps below 0 speak against the class.
        use: use of the maps that acts on pairs; None for networks that read the maps themselves.
        size: side of the network's frames in pixels; None for that of the shards.
        mean: mean color in [0, 1] of the network's normalization.
    """

    normalize: str = "minmax"
    augment: tuple[str, ...] = ()
    training: bool = False
    seed: int = 0
    signed: bool = False
    use: Use | None = None
    size: int | None = None
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)


class Prefetcher:
    """Prepares up to `ahead` batches in background threads; their content does not depend on the threads.

    Attributes:
        waited: seconds that the consumer has waited for batches; the consumer may reset it.
    """

    def __init__(self, dataset: PairDataset, transform: Transform, ahead: int = 2) -> None:
        if ahead < 1:
            raise SalpipeError(f"{ahead} batches ahead: use at least 1")
        self.dataset, self.transform, self.ahead = dataset, transform, ahead
        self.waited = 0.0

    def run(self, batches: Sequence[npt.NDArray[np.integer[Any]]], epoch: int) -> Iterator[Batch]:
        """The batches of an epoch in order; closing the iterator ends its threads.

        Args:
            batches: indices into the data set.
            epoch: number of the epoch, from which, with the seed and position, each augmentation is drawn.

        Raises:
            IntegrityError: a shard is damaged.
        """
        waiting: deque[Future[Batch]] = deque()
        prefetch = self.dataset.folder.prefetch(self.dataset.read_at(batch) for batch in batches)
        pool = _pool(min(self.ahead, max(1, usable_cores() // 2)))
        try:
            for number in range(len(batches) + self.ahead):
                if number < len(batches):
                    waiting.append(pool.submit(self.prepare, batches[number], epoch))
                if number >= self.ahead:
                    if prefetch is not None:
                        prefetch.reached(number - self.ahead)
                    start = time.perf_counter()
                    batch = waiting.popleft().result()
                    self.waited += time.perf_counter() - start
                    yield batch
        finally:
            pool.shutdown(cancel_futures=True)
            if prefetch is not None:
                prefetch.close()

    def prepare(self, indices: Indices, epoch: int) -> Batch:
        """One batch, prepared in the calling thread."""
        rows = self.dataset.__getitems__(indices)
        images = torch.from_numpy(rows.images).permute(0, 3, 1, 2)
        maps = None
        if rows.maps is not None:
            # in [0, 1] already; normalized, a map that is 1 everywhere would be 0 like every constant map
            how = "none" if self.dataset.maps in (UNIFORM, ORACLE) else self.transform.normalize
            maps = normalize(upsample(torch.from_numpy(rows.maps), images.shape[-1]), how, self.transform.signed)
        stored, own, seeds = Batch(images, maps, torch.from_numpy(rows.labels), rows.positions), self.transform, None
        if own.augment or own.training:
            seeds = [(own.seed, epoch, position) for position in rows.positions.tolist()]
        if own.use is not None:
            return self._used(stored, own.use, seeds)
        images, maps = self._framed(images, maps, seeds)
        return replace(stored, images=images, maps=maps)

    def _used(self, stored: Batch, use: Use, seeds: Seeds | None) -> Batch:
        """A batch as the network gets it, from one as stored, with a use of its maps."""
        own, images, maps = self.transform, stored.images, stored.maps
        regions, limits, mixed, views = None, None, None, 1
        if maps is not None:
            images, regions = use.change(images, maps, own.mean), use.regions(maps, seeds)
            limits = use.limits(maps) if own.training else None
            views = 1 if own.training else use.views
        images, maps = self._framed(images, maps, seeds, regions, limits)
        if own.training and seeds is not None:
            images = use.finish(images, maps, own.mean, seeds)
            if (mixture := use.mix(images, maps, seeds)) is not None:
                images, partners, share = mixture
                mixed = Mixed(stored.labels[partners], share)
        if views == 2:
            whole, _ = self._framed(stored.images, None, seeds)
            images = torch.cat([images, whole]).contiguous(memory_format=torch.channels_last)
        return Batch(images, maps if use.maps_in_batches else None, stored.labels, stored.positions, mixed, views)

    def _framed(
        self,
        images: Tensor,
        maps: Tensor | None,
        seeds: Seeds | None,
        regions: Tensor | None = None,
        limits: Limits | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Pairs augmented, and in the size of the network's frames."""
        own, side = self.transform, images.shape[-1]
        if not own.augment and regions is None and own.size in (None, side):
            return images, maps
        return augment(
            images, maps, own.augment, seeds or [()] * len(images), size=own.size, regions=regions, limits=limits
        )


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose tensor operations stay in the thread: they must not fight the training step for its cores."""
    pool = ThreadPoolExecutor(threads, "batches")
    started = threading.Barrier(threads)

    def settle() -> None:
        torch.set_num_threads(1)
        # a thread adopts the number when it first asks for it
        torch.get_num_threads()
        started.wait()

    before = torch.get_num_threads()
    for future in [pool.submit(settle) for _ in range(threads)]:
        future.result()
    # the number also applies to later threads of others
    torch.set_num_threads(before)
    return pool
