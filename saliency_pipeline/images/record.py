"""Records of labeled images, and catalogues of records."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from saliency_pipeline.documents import open_regular

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_FILE_BYTES = 2**30
"""Largest image file that is read."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the image as stored in its file, before it is rotated upright; x1, y1 are exclusive."""


class Split(IntEnum):
    """Split of an image; the values are those stored in shards."""

    NONE = -1
    TRAIN = 0
    VALIDATION = 1
    TEST = 2


SPLITS = {"": Split.NONE} | {split.name.lower(): split for split in Split if split != Split.NONE}
"""Splits by the names that users read and write; that of images without one is empty."""


class RawMaps(NamedTuple):
    """Maps that a data set has of an image.

    Attributes:
        maps: for each method raw maps of the whole image, float32 (T, h, w), any finite values.
        targets: for each method the explained class, int32 (T,); -1 for a map that explains no class.
        seen: True if a network that made one of the maps was trained on the image.
    """

    maps: dict[str, npt.NDArray[np.float32]]
    targets: dict[str, npt.NDArray[np.int32]]
    seen: bool


class StoredMaps(Protocol):
    """Place of the maps that a data set has of an image."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """(T, h, w) of the maps of each method."""

    def read(self) -> RawMaps:
        """Read the maps. Raises BadImageError if they are damaged, with the reason; OSError."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: its key, the location of its bytes, and its annotations.

    Attributes:
        key: path relative to the data set's root, '/' separated, valid UTF-8, unique in its catalogue. The same image
            has the same key in every layout of a data set.
        path: the file of the image, as the operating system spells it.
        label: index into the catalogue's classes; -1 if it is unlabeled.
        split: its split.
        box: region to be used instead of the whole image; it may extend beyond the image's borders.
        boxes: boxes of objects of its class, if the data set has them.
        boxes_size: width and height of the image that `boxes` refer to, where their file states it: those of the file
            or those of the upright image.
        offset: where in the file the image begins: 0 except in archives.
        length: its number of bytes; None for the whole file.
        group: equal for images that belong together, such as duplicates; -1 for none, or if they were not searched.
        map_path: file of a map that was made elsewhere; empty for none.
        maps: raw maps that the data set itself has, used if `map_path` is a file of it; None if that is another file.
    """

    key: str
    path: str
    label: int = -1
    split: Split = Split.NONE
    box: Box | None = None
    boxes: tuple[Box, ...] = ()
    offset: int = 0
    length: int | None = None
    group: int = -1
    boxes_size: tuple[int, int] | None = None
    map_path: str = ""
    maps: StoredMaps | None = None

    def read(self) -> bytes:
        """The bytes of the image. Raises OSError if they cannot be read or exceed `MAX_FILE_BYTES`."""
        with open(self.path, "rb", opener=open_regular) as file:
            length = os.fstat(file.fileno()).st_size if self.length is None else self.length
            if length > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.path)
            if self.length is None:
                return file.read()
            file.seek(self.offset)
            data = file.read(length)
            if len(data) < length:
                raise OSError(errno.EIO, "the archive ends within the image", self.path)
            return data

    def size(self) -> int:
        """Number of bytes; -1 if it is unknown."""
        if self.length is not None:
            return self.length
        try:
            return os.stat(self.path).st_size
        except OSError:
            return -1


@dataclass(frozen=True)
class Catalogue:
    """The images of one data set in their final order, and the names of its classes.

    Attributes:
        root: the folder or archive of the data set.
        records: the images, sorted by key in natural order; keys are unique.
        classes: unique class names in label order; empty for an unlabeled data set.
        ids: WordNet ids of the classes, in the same order, sorted; empty for other classes.
        layout: name of its layout.
        notes: notes on skipped things with reasons, one per line.
        passed_over: number of skipped files and other things, by kind and reason; few entries.
        taken: options of reading and selection other than the defaults; JSON-serializable.
        origin: `url` and `revision` of a remote data set; empty for one of this machine.
    """

    root: str
    records: Sequence[ImageRecord]
    classes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    layout: str = "folders"
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    taken: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)
