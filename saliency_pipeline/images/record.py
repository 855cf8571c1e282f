"""One labelled image of a data set, and the catalogue that lists them. How a folder is read stands elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

MAX_FILE_BYTES = 2**30
"""A file above this is no photograph, and reading it could take all memory."""


class Split(IntEnum):
    """Which part of the data set an image belongs to; the values are those stored in shards."""

    NONE = -1
    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: what it is called, where its bytes are, and what is known about it.

    Attributes:
        key: unique in its catalogue: the path relative to the data set's root, '/' separated, always valid UTF-8.
        path: the file that holds the image, as the operating system spells it.
        label: index into the catalogue's classes; -1 where the image is unlabelled.
        split: the part of the data set.
        box: x0, y0, x1, y1 in pixels of the original image where only a region of it is meant.
    """

    key: str
    path: str
    label: int = -1
    split: Split = Split.NONE
    box: tuple[int, int, int, int] | None = None

    def read(self) -> bytes:
        """The bytes of the image file. Raises OSError where it cannot be read or exceeds `MAX_FILE_BYTES`."""
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.path)
            return file.read()


@dataclass(frozen=True)
class Catalogue:
    """The images of one data set in their final order, and the names of its classes.

    Attributes:
        root: the folder or archive the data set was read from.
        records: the images, sorted by key in natural order; keys are unique.
        classes: class names in label order; empty for an unlabelled data set.
    """

    root: str
    records: Sequence[ImageRecord]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)
