"""`ShardFolder`: the images and maps of a finished folder of shards as one sequence and as arrays."""

from __future__ import annotations

import hashlib
import resource
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import is_shards, no_shards
from saliency_pipeline.shards.cached import CachedShard
from saliency_pipeline.shards.file import ShardFile
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.schema import ShardHeader, all_finite
from saliency_pipeline.shards.shard import Described, Pair, Shard
from saliency_pipeline.storage.cache import CachedObject
from saliency_pipeline.storage.mirror import Mirror, local_folder, origin_of
from saliency_pipeline.storage.prefetch import Prefetch

Positions = npt.NDArray[np.int64]

# each keeps a file descriptor
_OPEN_SHARDS = 256


class ShardFolder(Described, Sequence[Pair]):
    """The images of a finished folder (or of a single shard file) as one sequence; shards are opened when needed.

    Args:
        path: a folder that `salpipe generate` finished, or one shard; or the URL of such a folder on object storage,
            such as s3://bucket/shards, whose shards are read through the cache of this host.

    Attributes:
        path: the folder on this host, for a URL that in the cache.
        mirror: of a folder on object storage, what is in the cache; otherwise None.

    Raises:
        SalpipeError: there is no such folder or it is not finished.
        IntegrityError: the manifest, or a shard on its first use, is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = local_folder(path)
        self.mirror = Mirror.at(self.path)
        if not self.path.exists():
            raise SalpipeError(f"{self.path}: no such file or folder")
        if not is_shards(self.path):
            raise no_shards(self.path)
        opened: deque[ShardFile] = deque(maxlen=_most_open())
        if self.path.is_dir():
            manifest = Manifest.read(self.path)
            self._header = manifest.header
            self.shards: tuple[Shard, ...]
            if (mirror := self.mirror) is None:
                self.shards = tuple(Shard(self.path / entry.name, opened) for entry in manifest.shards)
            else:
                self.shards = tuple(CachedShard(mirror, entry) for entry in manifest.shards)
            counts = [entry.images for entry in manifest.shards]
        else:
            self.shards = (Shard(self.path),)
            self._header = self.shards[0].header
            counts = [len(self.shards[0])]
        self._starts = list(accumulate(counts, initial=0))
        self._agreed: set[int] = set()

    def __reduce__(self) -> tuple[type[ShardFolder], tuple[Path]]:
        return ShardFolder, (self.path,)

    @property
    def origin(self) -> str:
        """What names the folder on any host: its URL, or its path without links."""
        return origin_of(self.path)

    @property
    def header(self) -> ShardHeader:
        """Header of the folder: what its images have in common."""
        return self._header

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the plan and of the images' files: equal for the same maps of the same images only."""
        return hashlib.sha256(self.header.plan.encode() + self.source_sha256.tobytes()).hexdigest()

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> list[str]:
        """Names of all images in order."""
        return [key for shard in self._in_turn() for key in shard.keys]

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index into the classes of every image, int64 (N,); -1 unlabeled."""
        return self._every(lambda shard: shard.labels, np.zeros(0, np.int64))

    @cached_property
    def splits(self) -> npt.NDArray[np.int8]:
        """Stored split of every image, int8 (N,): 0 train, 1 validation, 2 test, -1 none."""
        return self._every(lambda shard: shard.splits, np.zeros(0, np.int8))

    @cached_property
    def source_sha256(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of the original files, uint8 (N, 32): equal for copies, whatever their names."""
        return self._every(lambda shard: shard.source_sha256, np.zeros((0, 32), np.uint8))

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Stored group of every image, int64 (N,): equal for duplicates of one another; -1 for images in none."""
        return self._every(lambda shard: shard.groups, np.zeros(0, np.int64))

    def flags(self, method: str, target: int = 0) -> npt.NDArray[np.uint8]:
        """Flags of one map of every image, uint8 (N,); see `Shard.flags`."""
        return self._every(lambda shard: shard.flags(method)[:, target], np.zeros(0, np.uint8))

    def labels_at(self, positions: Positions) -> npt.NDArray[np.int64]:
        """Index into the classes of each image, int64 (B,); -1 unlabeled. Only the shards of these images are read."""
        return self._at(positions, lambda shard: shard.labels, np.int64)

    def scales_at(self, positions: Positions, method: str, target: int = 0) -> npt.NDArray[np.float32]:
        """Greatest absolute value of one map of each image, float32 (B,).

        Raises:
            IntegrityError: a shard is damaged, or a scale in it negative or not finite.
        """
        return self._at(positions, lambda shard: shard.scales(method)[:, target], np.float32)

    def stored_maps_at(self, positions: Positions, method: str, target: int = 0) -> npt.NDArray[np.float16]:
        """One map of each image as stored, divided by its scale: float16 (B, h, w) in [-1, 1].

        Raises:
            IntegrityError: a shard is damaged, or a value in it not finite.
        """
        shape = self.header.maps[method]
        maps = np.empty((len(positions), shape.height, shape.width), "<f2")
        for shard, places, rows in self.group(positions):
            shard.gather(f"saliency/{method}/map", rows * shape.targets + target, maps, places)
        if not all_finite(maps):
            for shard, _, rows in self.group(positions):
                shard.maps(method, rows)  # names the shard: training would blame the learning rate
            raise IntegrityError(f"{self.path} was changed while it was being read; run the same command again")
        return maps

    def images_at(self, positions: Positions, threads: int = 1) -> npt.NDArray[np.uint8]:
        """Frames at some positions, uint8 (B, S, S, 3) RGB, copied once from the files.

        Args:
            positions: int64 (B,), in any order.
            threads: number of threads that decode JPEG frames.

        Raises:
            IntegrityError: a shard is damaged.
        """
        images = np.empty((len(positions), self.header.size, self.header.size, 3), np.uint8)
        for shard, places, rows in self.group(positions):
            if self.header.encoding == "raw":
                shard.gather("image", rows, images, places)
            else:
                _decode(shard, rows, images, places, min(threads, len(rows)))
        return images

    def keys_at(self, positions: Positions) -> list[str]:
        """Names of the images at some positions, in their order."""
        return list(self._at(positions, lambda shard: np.array(shard.keys, object), object))

    def find(self, key: str) -> int:
        """Position of the image called `key`.

        Raises:
            SalpipeError: there is none.
        """
        try:
            return self._positions[key]
        except KeyError:
            raise SalpipeError(f"{self.path} holds no image called '{key}'") from None

    def locate(self, index: int) -> tuple[int, int]:
        """Number of the shard that holds an image, and its row there."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]

    def shard_numbers(self, positions: Positions) -> Positions:
        """Number of the shard of each image, int64 (B,)."""
        return np.searchsorted(self._starts, positions, side="right").astype(np.int64) - 1

    def objects(self, numbers: Sequence[int]) -> list[CachedObject]:
        """Those shards that are on object storage, by their numbers."""
        return [shard.object for number in numbers if isinstance(shard := self.shards[number], CachedShard)]

    def prefetch(self, steps: Iterable[Positions]) -> Prefetch | None:
        """Fetch shards ahead for reading images step by step; None where they are on this host anyway."""
        if self.mirror is None:
            return None
        return Prefetch(self.mirror, [self.objects(np.unique(self.shard_numbers(step)).tolist()) for step in steps])

    def group(self, positions: Positions) -> Iterator[tuple[Shard, Positions, Positions]]:
        """Positions by shard: each shard with their places in `positions` and their rows there, in rising order."""
        order = np.argsort(positions, kind="stable")
        ends = np.searchsorted(positions[order], self._starts)
        for number in np.flatnonzero(np.diff(ends)).tolist():
            places = order[ends[number] : ends[number + 1]]
            yield self.shard(number), places, positions[places] - self._starts[number]

    def shard(self, number: int) -> Shard:
        """A shard; on first use it is compared with the manifest.

        Raises:
            IntegrityError: it is damaged or not the one the manifest describes.
        """
        shard = self.shards[number]
        if number not in self._agreed:
            if not shard.agree(self._starts[number + 1] - self._starts[number], self.header):
                raise IntegrityError(
                    f"{shard.path} is not the one the manifest describes; run 'salpipe verify {self.path}'"
                )
            self._agreed.add(number)
        return shard

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        """The image at a position; negative positions count from the end."""
        number, row = self.locate(index)
        return self.shard(number)[row]

    def load(self, progress: Progress) -> None:
        """Fetch all shards on object storage once and keep their small columns in memory, with a progress bar.

        Nothing is done for shards on this host.

        Raises:
            IntegrityError: a shard is damaged.
            SalpipeError: one cannot be fetched.
        """
        if self.mirror is None:
            return
        progress.start(len(self.shards), "shard", "fetching")
        try:
            for shard in self._in_turn():
                len(shard)
                progress.advance(1)
        finally:
            progress.stop()

    def _in_turn(self) -> Iterator[Shard]:
        """All shards in order; those on object storage are fetched ahead."""
        numbers = range(len(self.shards))
        prefetch = None
        if self.mirror is not None and len(self._agreed) < len(self.shards):
            prefetch = Prefetch(self.mirror, [self.objects([number]) for number in numbers])
        try:
            for number in numbers:
                if prefetch is not None:
                    prefetch.reached(number)
                yield self.shard(number)
        finally:
            if prefetch is not None:
                prefetch.close()

    def _every(self, read: Callable[[Shard], npt.NDArray[Any]], empty: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([empty, *map(read, self._in_turn())])

    def _at(self, positions: Positions, read: Callable[[Shard], npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = np.empty(len(positions), dtype)
        for shard, places, rows in self.group(positions):
            values[places] = read(shard)[rows]
        return values

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {key: position for position, key in enumerate(self.keys())}


def _most_open() -> int:
    """Maximum number of open shards per folder: at most a quarter of the process's file descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_SHARDS if limit == resource.RLIM_INFINITY else max(1, min(_OPEN_SHARDS, limit // 4))


def _decode(shard: Shard, rows: Positions, images: npt.NDArray[np.uint8], places: Positions, threads: int) -> None:
    """Decode JPEG frames into their places."""

    def decode(first: int) -> None:
        for place, row in zip(places[first::threads].tolist(), rows[first::threads].tolist(), strict=True):
            images[place] = shard.frame(row)

    if threads == 1:
        decode(0)
        return
    # a permanent pool would not survive a fork, and starting threads takes far less time than decoding one image
    with ThreadPoolExecutor(threads, "decode") as pool:
        list(pool.map(decode, range(threads)))
