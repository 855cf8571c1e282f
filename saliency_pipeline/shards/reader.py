"""Reads a finished folder of shards as `ShardFolder`. One file stands in `shard.py`."""

from __future__ import annotations

import resource
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.recognition import is_shards, no_shards
from saliency_pipeline.shards.file import ShardFile
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.schema import Described, ShardHeader
from saliency_pipeline.shards.shard import Pair, Shard

# each keeps a file descriptor
_OPEN_SHARDS = 256


class ShardFolder(Described, Sequence[Pair]):
    """The images of a finished folder (or of a single shard file) as one sequence; shards are opened when needed.

    Args:
        path: a folder that `salpipe generate` finished, or one shard.

    Raises:
        SalpipeError: there is no such folder or it is not finished.
        IntegrityError: the manifest, or a shard on its first use, is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise SalpipeError(f"{self.path}: no such file or folder")
        if not is_shards(self.path):
            raise no_shards(self.path)
        opened: deque[ShardFile] = deque(maxlen=_most_open())
        if self.path.is_dir():
            manifest = Manifest.read(self.path)
            self._header = manifest.header
            self.shards = tuple(Shard(self.path / entry.name, opened) for entry in manifest.shards)
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
    def header(self) -> ShardHeader:
        """What all images of the folder share."""
        return self._header

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> list[str]:
        """Names of all images in order."""
        return [key for number in range(len(self.shards)) for key in self.shard(number).keys]

    def keys_at(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """Names of the images at some positions, in their order."""
        keys = np.empty(len(positions), object)
        for shard, places, rows in self.group(positions):
            keys[places] = np.array(shard.keys, object)[rows]
        return list(keys)

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

    def group(
        self, positions: npt.NDArray[np.int64]
    ) -> Iterator[tuple[Shard, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Positions by shard: each shard with their places in `positions` and their rows there, in rising order."""
        order = np.argsort(positions, kind="stable")
        ends = np.searchsorted(positions[order], self._starts)
        for number in np.flatnonzero(np.diff(ends)).tolist():
            places = order[ends[number] : ends[number + 1]]
            yield self.shard(number), places, positions[places] - self._starts[number]

    def shard(self, number: int) -> Shard:
        """A shard, on its first use compared with the manifest.

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

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {key: position for position, key in enumerate(self.keys())}


def _most_open() -> int:
    """How many shards of a folder may be open at a time: a quarter of the process's descriptors at the most."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _OPEN_SHARDS if limit == resource.RLIM_INFINITY else max(1, min(_OPEN_SHARDS, limit // 4))
