"""`CachedShard`: a shard on object storage, read from its copy in the cache, which may be removed between two reads."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.shards import schema
from saliency_pipeline.shards.file import ShardFile, identity_of
from saliency_pipeline.shards.layout import Layout
from saliency_pipeline.shards.manifest import ShardEntry
from saliency_pipeline.shards.shard import Rows, Shard
from saliency_pipeline.storage.cache import reopen
from saliency_pipeline.storage.mirror import Mirror

_SMALL = 4096
"""Most bytes per image of a data set that is kept in memory."""

# these are read image by image, however small they are
_PIXELS = ("/map", schema.IMAGE, "image_bytes")


class CachedShard(Shard):
    """A shard of a mirror; it is fetched when it is first read.

    No file stays open between two reads, since open files are kept in the cache. Data sets of a few numbers per image
    (keys, labels, splits, scales) are kept in memory, so that a set-up that asks for one after the other does not fetch
    each shard as many times where the cache is smaller than the data set.

    Raises:
        IntegrityError: as `Shard`; or the object is not the shard that the manifest describes.
        SalpipeError: it cannot be fetched.
    """

    def __init__(self, mirror: Mirror, entry: ShardEntry) -> None:
        super().__init__(mirror.folder / entry.name)
        self.mirror, self.entry = mirror, entry
        self.object = mirror.object(entry.name, entry.bytes, entry.sha256)
        self._small: dict[str, npt.NDArray[Any]] = {}

    def __reduce__(self) -> Any:
        return CachedShard, (self.mirror, self.entry)

    @property
    def layout(self) -> Layout:
        """Offsets, types and shapes of the data sets."""
        if self._layout is None:
            with self.mirror.held(self.object):
                layout = super().layout
                small = {}
                for name, (_, column) in layout.places.items():
                    if column.nbytes <= _SMALL * max(1, layout.rows) and not name.endswith(_PIXELS):
                        small[name] = super().read(name)
                self._small = small
        return super().layout

    def read(self, name: str, rows: Rows | int = None) -> npt.NDArray[Any]:
        """See `Shard.read`."""
        _ = self.layout
        if (values := self._small.get(name)) is None:
            return super().read(name, rows)
        return np.array(values[slice(None) if rows is None else rows])

    def _range(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        if (values := self._small.get(name)) is None:
            return super()._range(name, start, stop)
        return values[start:stop].copy()

    def _open(self) -> ShardFile:
        if (layout := self._layout) is not None and (number := reopen(self.path, layout.identity)) is not None:
            return ShardFile(self.path, layout.identity, number)
        number = self.mirror.open_object(self.object)
        try:
            identity = identity_of(number)
        except BaseException:
            os.close(number)
            raise
        if self._layout is not None and self._layout.identity != identity:
            # fetched again: the same bytes in another file
            self._layout = replace(self._layout, identity=identity)
        return ShardFile(self.path, identity, number)
