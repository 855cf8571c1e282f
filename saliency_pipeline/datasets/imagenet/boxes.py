"""ILSVRC's bounding boxes in XML, one file per image, in folders or archives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple

from saliency_pipeline.datasets.files.archive import small_files
from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.files.voc import MAX_XML_BYTES, objects, parse_annotation
from saliency_pipeline.datasets.imagenet.annotations import Boxes, box_of
from saliency_pipeline.datasets.imagenet.builder import CatalogueBuilder
from saliency_pipeline.datasets.imagenet.synsets import is_wnid
from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import stem
from saliency_pipeline.images.record import Box
from saliency_pipeline.text import shown

_ARCHIVES = {"train": "ILSVRC2012_bbox_train_v2", "val": "ILSVRC2012_bbox_val_v3"}
_SUFFIXES = (".tar.gz", ".tgz", ".tar")

_UNPACKED = ("Annotations/CLS-LOC", "Annotations", "Annotation", "bbox", "bboxes", "bounding_boxes")
FOLDERS = {part: (*_UNPACKED, f"bbox_{part}", archive) for part, archive in _ARCHIVES.items()}
"""Names of the folders with the unpacked files of a part."""

ARCHIVES = {f"{archive}{suffix}" for archive in _ARCHIVES.values() for suffix in _SUFFIXES}
"""Names of the archives of boxes."""

_USUAL_BYTES = 2**14

_MAX_UNPACKED_BYTES, _MAX_FILES, _MAX_BOXES = 2**32, 2**20, 2**22
"""Limits per part. The training images have 615,299 boxes in 544,546 files, which take about 1 GB in a tar."""

_THREADS, _TOGETHER = 8, 512
"""Number of reading threads, since disks need concurrent requests, and of files in memory."""


def find_boxes(folders: Sequence[str], part: str, builder: CatalogueBuilder) -> Boxes:
    """The boxes of the images of a part (train or val), from the first folder, or else archive, that has any.

    A file belongs to the image of its own name, since the name in some files is "%s". The image size in files is
    ignored, as in Kaggle's lists. tensorflow/models, research/inception, process_bounding_boxes.py describes such
    irregularities.
    """
    trees = [path for folder in folders for name in FOLDERS[part] if os.path.isdir(path := os.path.join(folder, name))]
    # the archive of the validation images, unpacked in place, puts its files beside them
    trees += [folder for folder in folders if part == "val" and os.path.isdir(os.path.join(folder, part))]
    names = [f"{_ARCHIVES[part]}{suffix}" for suffix in _SUFFIXES]
    archives = [path for folder in folders for name in names if os.path.isfile(path := os.path.join(folder, name))]
    if not trees and not archives:
        return {}
    classes = builder.classes(part)
    sources = (
        *(_in_folders(path, part, classes) for path in trees),
        *(_in_archive(path, classes, builder.notes) for path in archives),
    )
    return next(filter(None, (_boxes(files, classes, builder.notes) for files in sources)), {})


class _File(NamedTuple):
    """Its image, its path, and its bytes; None if they cannot be read or are too many."""

    image: str
    place: str
    data: bytes | None


def _boxes(files: Iterable[_File], classes: Mapping[str, str], notes: Notes) -> Boxes:
    boxes: Boxes = {}
    numbers: dict[str, int] = {}
    total = 0
    for image, place, data in files:
        try:
            if own := read_xml(data, classes[image], numbers):
                boxes[image] = own
                total += len(own)
        except ValueError as error:
            notes.add(place, str(error))
        if total > _MAX_BOXES:
            notes.add(place, "more boxes than ImageNet has, and none read after it")
            break
    return boxes


def _image(name: str) -> str:
    """The stem of the image of a file; empty if it has none."""
    return stem(name) if name.endswith(".xml") else ""


def _in_folders(place: str, part: str, classes: Mapping[str, str]) -> Iterator[_File]:
    """The XML files of images in a folder, or its folder of the part, and in the folders of classes there."""
    if part in (below := listing(place).folders):
        place = f"{place}/{part}"
        below = listing(place).folders
    with ThreadPoolExecutor(_THREADS) as pool:
        for folder in (place, *(f"{place}/{name}" for name in below if is_wnid(name))):
            there = listing(folder)
            paths = [f"{folder}/{name}" for name in (*there.others, *there.pipes) if _image(name) in classes]
            for at in range(0, len(paths), _TOGETHER):
                some = paths[at : at + _TOGETHER]
                each = -(-len(some) // _THREADS)
                yield from chain.from_iterable(
                    pool.map(_read, (some[first : first + each] for first in range(0, len(some), each)))
                )


def _read(paths: Sequence[str]) -> list[_File]:
    files = []
    for path in paths:
        data: bytes | None = None
        try:
            file = open_regular(path)
            try:
                if len(data := os.read(file, _USUAL_BYTES)) == _USUAL_BYTES:
                    data += os.read(file, MAX_XML_BYTES)
            finally:
                os.close(file)
        except OSError:
            data = None
        files.append(_File(_image(path), path, data))
    return files


def _in_archive(path: str, classes: Mapping[str, str], notes: Notes) -> Iterator[_File]:
    """The XML files of images anywhere in an archive."""
    try:
        for name, data in islice(small_files(path, notes, MAX_XML_BYTES, _MAX_UNPACKED_BYTES), _MAX_FILES):
            if (image := _image(name)) in classes:
                yield _File(image, f"{path}: {name}", data)
    except SalpipeError as error:
        notes.add(path, str(error).removeprefix(f"{shown(path)}: "))


def read_xml(data: bytes | None, wnid: str, numbers: dict[str, int]) -> tuple[Box, ...]:
    """The boxes of an image's class in an annotation of PASCAL VOC's form, with exclusive second corners.

    Objects of other classes are skipped. Those named by a word instead of a WordNet id are of the image's class, as
    are many dogs of the training images.

    Args:
        data: contents of the file.
        wnid: the image's class.
        numbers: as for `box_of`.

    Raises:
        ValueError: the file is damaged, too large or something else; the message is the reason.

    >>> read_xml(
    ...     b"<annotation><object><name>n01751748</name><bndbox><xmin>111</xmin><ymin>108</ymin><xmax>441</xmax>"
    ...     b"<ymax>193</ymax></bndbox></object></annotation>", "n01751748", {})
    ((111, 108, 442, 194),)
    """
    boxes = []
    for name, corners in objects(parse_annotation(data)):
        if name != wnid and is_wnid(name):
            continue
        # a few have decimals
        if (box := box_of([corner.partition(".")[0] for corner in corners], numbers)) is None:
            raise ValueError("a box without its four corners in pixels")
        boxes.append(box)
    return tuple(boxes)
