"""A catalogue in the making: images with WordNet ids, put in order and numbered at the end. Nothing is listed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from saliency_pipeline.datasets.imagenet.synsets import readable
from saliency_pipeline.datasets.notes import Notes
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import natural, stem
from saliency_pipeline.images.record import Box, Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

_SPLITS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}
"""By the first folder of a key."""


class _Entry(NamedTuple):
    key: str
    wnid: str
    path: str
    offset: int
    length: int | None


class CatalogueBuilder:
    """Collects the images of one data set.

    A label can be given only when all classes are known, so that what is collected is kept in a form that takes
    little memory; sorting goes folder by folder for the same reason.

    Attributes:
        notes: what was passed over.

    Args:
        root: the folder or archive that is read, absolute.
        layout: as what it is read.
    """

    def __init__(self, root: str, layout: str) -> None:
        self.root = root
        self.layout = layout
        self.notes = Notes()
        self._folders: dict[str, list[_Entry]] = {}

    def add(self, folder: str, name: str, wnid: str, path: str, offset: int = 0, length: int | None = None) -> None:
        """Put an image in.

        Args:
            folder: its key but for the name; begins with train, val or test, which tells the split.
            name: the last part of its key.
            wnid: WordNet id of its class; empty where the image is unlabeled.
            path: the file that holds it.
            offset: where in an archive it begins.
            length: how many bytes it has there.
        """
        entry = _Entry(f"{folder}/{name}", wnid, path, offset, length)
        if (entries := self._folders.get(folder)) is None:
            self._folders[folder] = [entry]
        else:
            entries.append(entry)

    def __len__(self) -> int:
        return sum(map(len, self._folders.values()))

    def wnids(self) -> tuple[str, ...]:
        """The classes that have images, sorted: the order of the labels."""
        return tuple(sorted({entry.wnid for entries in self._folders.values() for entry in entries} - {""}))

    def parts(self) -> set[str]:
        """Which of train, val and test have images."""
        return {folder.partition("/")[0] for folder in self._folders}

    def classes(self, part: str) -> dict[str, str]:
        """WordNet ids of the images of a part by their file names without suffix, as boxes are kept by them."""
        folders = [folder for folder in self._folders if folder.partition("/")[0] == part]
        return {stem(entry.key): entry.wnid for folder in folders for entry in self._folders[folder]}

    def catalogue(self, names: Mapping[str, str], boxes: Mapping[str, tuple[Box, ...]]) -> Catalogue:
        """All that was put in; the builder is empty afterwards.

        Args:
            names: what the data set calls its classes, by WordNet id, as `readable` takes them.
            boxes: of objects in an image, by its file name without suffix.

        Raises:
            SalpipeError: nothing was put in, or an image was put in twice, as images of two classes.
        """
        wnids = self.wnids()
        labels = {wnid: label for label, wnid in enumerate(wnids)} | {"": -1}
        records: list[ImageRecord] = []
        for folder in sorted(self._folders, key=natural):
            split = _SPLITS.get(folder.partition("/")[0], Split.NONE)
            last: _Entry | None = None
            for entry in sorted(self._folders.pop(folder), key=lambda entry: natural(entry.key)):
                if last is not None and last.key == entry.key:
                    self._twice(last, entry)
                    continue
                last = entry
                key, wnid, path, offset, length = entry
                there = boxes.get(stem(key), ()) if boxes else ()
                records.append(ImageRecord(key, path, labels[wnid], split, None, there, offset, length))
        if not records:
            raise SalpipeError(self.empty("no images found; check the path and whether they were unpacked"))
        notes, passed_over = self.notes.lines(), self.notes.passed_over()
        return Catalogue(self.root, records, readable(wnids, names), wnids, self.layout, notes, passed_over)

    def empty(self, reason: str) -> str:
        """The message of an error where there are no images: the first thing that was passed over, and `reason`."""
        cause = f"{self.notes.lines()[0]}; that leaves " if len(self.notes) else ""
        return f"{shown(self.root)}: {cause}{reason}"

    def _twice(self, first: _Entry, second: _Entry) -> None:
        if first.wnid != second.wnid:
            raise SalpipeError(
                f"{shown(first.key)}: {first.wnid or 'unlabeled'} in {shown(first.path)} but "
                f"{second.wnid or 'unlabeled'} in {shown(second.path)}; remove the one that is wrong"
            )
        self.notes.add(second.path if second.length is None else f"{second.path}: {second.key}", "there twice")
