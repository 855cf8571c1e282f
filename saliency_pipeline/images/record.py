"""One labeled image of a data set, and the catalogue that lists them. How a data set is read stands elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from saliency_pipeline.documents import open_regular

MAX_FILE_BYTES = 2**30
"""A file above this is no photograph, and reading it could take all memory."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the original image as its file holds it, before it is turned upright; x1, y1 excluded."""


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
            The same image has the same key in every layout of a data set.
        path: the file that holds the image, as the operating system spells it.
        label: index into the catalogue's classes; -1 where the image is unlabeled.
        split: the part of the data set.
        box: the region that is meant, where that is not the whole image; it may reach beyond the image's borders.
        boxes: where in the image objects of its class are, as far as the data set says.
        offset: where in the file the image begins: 0 but in archives.
        length: how many bytes it has; None where it is the whole file.
        group: equal for images that are duplicates of one another; -1 where it has none, or nobody looked.
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

    def read(self) -> bytes:
        """The bytes of the image. Raises OSError where they cannot be read or exceed `MAX_FILE_BYTES`."""
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
        """How many bytes it has; -1 where that cannot be told."""
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
        root: the folder or archive the data set was read from.
        records: the images, sorted by key in natural order; keys are unique.
        classes: class names in label order, each another one; empty for an unlabeled data set.
        ids: WordNet ids of the classes, in the same order, sorted; empty where the classes are none of WordNet's.
        layout: name of the layout it was read as.
        notes: what was passed over and why, a line each.
        passed_over: how many files and other things were passed over, by kind and reason; few entries.
        taken: what was asked for where it is not the whole data set as it comes; what JSON can hold.
    """

    root: str
    records: Sequence[ImageRecord]
    classes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    layout: str = "folders"
    notes: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    taken: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)
