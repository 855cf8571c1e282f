"""Builder of a catalogue of images with WordNet ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.imagenet.class_folders import LocatedImage
from saliency_pipeline.datasets.imagenet.synsets import readable
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import natural, stem
from saliency_pipeline.images.record import Box, Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

_SPLITS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}
"""Splits by the first folder of a key."""


class _Entry(NamedTuple):
    key: str
    wnid: str
    path: str
    offset: int
    length: int | None


class CatalogueBuilder:
    """Collects the images of one data set.

    Labels need all classes, so entries are kept in a compact form and sorted folder by folder.

    Attributes:
        notes: notes of what is skipped.
    """

    def __init__(self, root: str, layout: str) -> None:
        self.root = root
        self.layout = layout
        self.notes = Notes()
        self._folders: dict[str, list[_Entry]] = {}

    def add(self, folder: str, image: LocatedImage, wnid: str) -> None:
        """Add an image.

        Args:
            folder: its key without the name; the first part is its split: train, val or test.
            image: its name and location.
            wnid: WordNet id of its class; empty if it is unlabeled.
        """
        entry = _Entry(f"{folder}/{image.name}", wnid, image.path, image.offset, image.length)
        self._folders.setdefault(folder, []).append(entry)

    def __len__(self) -> int:
        return sum(map(len, self._folders.values()))

    def wnids(self) -> tuple[str, ...]:
        """The classes with images, sorted: the order of the labels."""
        return tuple(sorted({entry.wnid for entries in self._folders.values() for entry in entries} - {""}))

    def parts(self) -> set[str]:
        """Those of train, val and test that have images."""
        return {folder.partition("/")[0] for folder in self._folders}

    def classes(self, part: str) -> dict[str, str]:
        """WordNet ids of the images of a part by their file names without suffix."""
        folders = [folder for folder in self._folders if folder.partition("/")[0] == part]
        return {stem(entry.key): entry.wnid for folder in folders for entry in self._folders[folder]}

    def catalogue(self, names: Mapping[str, str], boxes: Mapping[str, tuple[Box, ...]]) -> Catalogue:
        """The catalogue of all images; the builder is empty afterwards.

        Args:
            names: the data set's own names of its classes by WordNet id, as for `readable`.
            boxes: boxes of objects by the image's file name without suffix.

        Raises:
            SalpipeError: there are no images, or an image has two classes.
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
        """Error message if there are no images: the first note, and `reason`."""
        cause = f"{self.notes.lines()[0]}; that leaves " if len(self.notes) else ""
        return f"{shown(self.root)}: {cause}{reason}"

    def _twice(self, first: _Entry, second: _Entry) -> None:
        if first.wnid != second.wnid:
            raise SalpipeError(
                f"{shown(first.key)}: {first.wnid or 'unlabeled'} in {shown(first.path)} but "
                f"{second.wnid or 'unlabeled'} in {shown(second.path)}; remove the one that is wrong"
            )
        self.notes.add(second.path if second.length is None else f"{second.path}: {second.key}", "there twice")
