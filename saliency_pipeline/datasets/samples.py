"""Samples of packed data sets: what their names and the numbers that label them mean. No archives or tables here."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.folder import SPLIT_FOLDERS
from saliency_pipeline.datasets.imagenet.synsets import imagenet_names, is_wnid, readable
from saliency_pipeline.datasets.notes import Notes
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import class_name, natural
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

_ORIGINAL = re.compile(
    r"(?:(?:.*/)?(?P<train>(?P<wnid>n[0-9]{8})_[0-9]+)(?:_(?P=wnid))?"
    r"|(?:(?:.*/)?(?P<before>n[0-9]{8})[/_]|.*/|)(?P<rest>ILSVRC2012_(?P<part>val|test)_[0-9]{8})"
    r"(?:_(?P<behind>n[0-9]{8}))?)(?:\.[^/]*)?"
)


class Original(NamedTuple):
    """An image of ILSVRC 2012 by its name: its key, the same in every layout, and its class where the name tells it."""

    key: str
    wnid: str | None


def original(name: str) -> Original | None:
    """Which image of ILSVRC 2012 a file name means; None where it means none.

    Train images are called by their class and a number. Copies on the Hugging Face Hub put the class behind the
    name, of validation images as well.

    >>> original("n01440764/n01440764_10026.JPEG")
    Original(key='train/n01440764/n01440764_10026.JPEG', wnid='n01440764')
    >>> original("ILSVRC2012_val_00000001_n01751748.JPEG")
    Original(key='val/ILSVRC2012_val_00000001.JPEG', wnid='n01751748')
    """
    match = _ORIGINAL.fullmatch(name)
    if match is None:
        return None
    train, wnid, before, rest, part, behind = match.groups()
    if train:
        return Original(f"train/{wnid}/{train}.JPEG", wnid)
    return Original(f"{part}/{rest}.JPEG", behind or before)


def split_of(name: str, otherwise: Split = Split.NONE) -> Split:
    """The split that a word in the name of a shard or table tells.

    >>> split_of("imagenet1k-validation-07.tar").name, split_of("trains-00.tar").name
    ('VALIDATION', 'NONE')
    """
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), otherwise)


NO_NUMBER, NEGATIVE = "label is no number", "label is a negative number"
"""Why labels are of no use."""


class Classes(NamedTuple):
    """The classes of a data set and where among them each number that stands for one belongs."""

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    order: Mapping[int, int] = MappingProxyType({})


class Labels:
    """The numbers a data set has for labels, and the WordNet ids in the names of the images so labeled."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._wnids: dict[int, tuple[str, str]] = {}
        self._unusable: dict[str, tuple[str, int]] = {}

    def unusable(self, reason: str, file: str, name: str | int) -> None:
        """Take note of an image that stays unlabeled although a label is there; arguments as for `add`."""
        first, count = self._unusable.get(reason, (f"{file}: {name}", 0))
        self._unusable[reason] = first, count + 1

    def note_unusable(self, notes: Notes) -> None:
        """Tell of the labels that are of no use, those of a reason together."""
        for reason, (first, count) in self._unusable.items():
            more = f" and {count - 1:,} more" if count > 1 else ""
            notes.remark(f"{first}{more}", f"{reason}, so the image is unlabeled")

    def add(self, label: int, wnid: str | None, file: str, name: str | int) -> int:
        """Take note of a label.

        Args:
            label: the number, at least 0.
            wnid: the id in the image's name, if any.
            file: the archive or table the image lies in, for messages.
            name: what it is called there, or its row.

        Returns:
            The label, for each number one object.

        Raises:
            SalpipeError: an image with the same label has another id in its name.
        """
        if wnid is not None:
            earlier = self._wnids.get(label)
            if earlier is None:
                self._wnids[label] = wnid, f"{file}: {name}"
            elif earlier[0] != wnid:
                other, place = earlier
                where = shown(f"{file}: {name}")
                raise SalpipeError(f"{where}: labeled {label}, which is {other} in {shown(place)}; relabel them")
        return self._seen.setdefault(label, label)

    def classes(self, names: Sequence[str] = (), source: str = "", *, imagenet: bool = False) -> Classes:
        """What the numbers mean.

        They are ImageNet's 1,000 classes, sorted by id, where ids in names say so, or `imagenet` does and no name
        says otherwise. The ids of other classes in the names of images make a data set of WordNet's as well. Else the
        classes are those of `names`, or called by their numbers.

        Args:
            names: what the data set itself calls its classes, in the order of its numbers: WordNet ids or others.
            source: where the names stand, for messages.
            imagenet: whether the data set calls itself ImageNet-1k.

        Raises:
            SalpipeError: an image's label is not the one its name's id has, and the message names the image; or there
                are fewer names than classes.
        """
        if not self._seen:
            return Classes()
        names = tuple(map(class_name, names))
        if names and max(self._seen) >= len(names):
            raise SalpipeError(
                f"{shown(source)}: names {len(names):,} classes, but there is a label {max(self._seen)}; complete it"
            )
        if names and all(map(is_wnid, names)) and len(set(names)) == len(names):
            self._check({wnid: label for label, wnid in enumerate(names)}, source)
            return _wordnet(dict(enumerate(names)))
        if len(names) in (0, 1000):
            own = self._by_wnid(imagenet)
            if own is not None:
                return own
        if names:
            return Classes(_unique(names), (), self._seen)
        order = {label: place for place, label in enumerate(sorted(self._seen))}
        return Classes(tuple(map(str, order)), (), order)

    def _by_wnid(self, imagenet: bool) -> Classes | None:
        own = {label: wnid for label, (wnid, _) in sorted(self._wnids.items())}
        if not own and not imagenet:
            return None
        imagenet_labels = {wnid: label for label, (wnid, _) in enumerate(imagenet_names())}
        if any(wnid not in imagenet_labels for wnid in own.values()):
            self._check({wnid: label for label, wnid in own.items()}, "other images")
            return _wordnet(own) if own.keys() == self._seen.keys() else None
        if not imagenet and self._is_numbered_anew(own, imagenet_labels):
            return _wordnet(own)
        self._check(imagenet_labels, "ImageNet")
        if max(self._seen) >= len(imagenet_labels):
            return None
        return Classes(
            tuple(name for _, name in imagenet_names()), tuple(imagenet_labels), {label: label for label in self._seen}
        )

    def _is_numbered_anew(self, own: dict[int, str], imagenet_labels: dict[str, int]) -> bool:
        """Whether the classes are a part of ImageNet's in the same order, numbered without gaps."""
        ascending = sorted(set(own.values())) == list(own.values())
        without_gaps = own.keys() == self._seen.keys() == set(range(len(own)))
        return ascending and without_gaps and any(imagenet_labels[wnid] != label for label, wnid in own.items())

    def _check(self, labels: dict[str, int], source: str) -> None:
        """That no image is called by the id of one class and labeled as another."""
        for label, (wnid, where) in sorted(self._wnids.items()):
            if labels.get(wnid) != label:
                right = f"class {labels[wnid]}" if wnid in labels else "no class"
                raise SalpipeError(
                    f"{shown(where)}: labeled {label}, but {wnid} is {right} in {shown(source)}; relabel the data set"
                )


def _wordnet(own: dict[int, str]) -> Classes:
    """Classes numbered in an order of their own, in that of their ids."""
    wnids = sorted(own.values())
    places = {wnid: place for place, wnid in enumerate(wnids)}
    return Classes(readable(wnids), tuple(wnids), {label: places[wnid] for label, wnid in own.items()})


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name} ({label})" for label, name in enumerate(names))


def note_beside(root: str, used: Collection[str], notes: Notes) -> None:
    """Note what lies in a data set's folder, and in those below it that are read, besides the files that are read.

    Args:
        root: the folder, absolute.
        used: paths of the files that are read, within it.
        notes: takes what is passed over.
    """
    read = {folder for path in used if (folder := os.path.dirname(path)) != root}
    above = {os.path.dirname(folder) for folder in read} - {root}
    for folder in sorted({root} | read | above):
        entries = listing(folder)
        notes.listed(entries, [name for name in entries.others if os.path.join(folder, name) in used])
        for name in entries.images:
            notes.add(os.path.relpath(os.path.join(folder, name), root), "an image beside the data set's own files")
        for name in entries.folders:
            if os.path.join(folder, name) not in read | above:
                notes.add(os.path.relpath(os.path.join(folder, name), root), "a folder beside the data set's own files")


def catalogue(root: str, layout: str, records: Iterable[ImageRecord], classes: Classes, notes: Notes) -> Catalogue:
    """The catalogue of records labeled by a data set's own numbers; the second of a key is noted and left out."""
    order = classes.order
    if any(label != place for label, place in order.items()):
        records = (replace(record, label=order.get(record.label, -1)) for record in records)
    ordered = sorted(records, key=lambda record: natural(record.key))
    first: list[ImageRecord] = []
    for record in ordered:
        if first and first[-1].key == record.key:
            notes.add(record.key, "an image met before")
        else:
            first.append(record)
    return Catalogue(root, first, classes.names, classes.ids, layout, notes.lines(), notes.passed_over())
