"""Keys, splits and classes of samples in packed data sets, by their names and numeric labels."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.folder import SPLIT_FOLDERS
from saliency_pipeline.datasets.imagenet.synsets import imagenet_names, is_wnid, readable
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
    """An image of ILSVRC 2012: its key, the same in every layout, and its class if its name has it."""

    key: str
    wnid: str | None


def original(name: str) -> Original | None:
    """The image of ILSVRC 2012 that has a file name; None if there is none.

    Training images are named by their class and a number. Copies on the Hugging Face Hub append the class, also to
    the names of validation images.

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
    """The split by a word in the name of a shard or table.

    >>> split_of("imagenet1k-validation-07.tar").name, split_of("trains-00.tar").name
    ('VALIDATION', 'NONE')
    """
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), otherwise)


NO_NUMBER, NULL, _NEGATIVE = "label is no number", "label is null", "label is a negative number"
"""Faults of labels."""


class Classes(NamedTuple):
    """The classes of a data set, and the index of the class of each number."""

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    order: Mapping[int, int] = MappingProxyType({})


class Labels:
    """The numeric labels of a data set, and the WordNet ids in the names of their images."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._wnids: dict[int, tuple[str, str]] = {}
        self._unusable: dict[str, tuple[str, int]] = {}

    def unusable(self, reason: str, file: str, name: str | int) -> None:
        """Record an image with an invalid label; arguments as for `add`."""
        first, count = self._unusable.get(reason, (f"{file}: {name}", 0))
        self._unusable[reason] = first, count + 1

    def note_unusable(self, notes: Notes) -> None:
        """Note the invalid labels, one line per reason."""
        for reason, (first, count) in self._unusable.items():
            more = f" and {count - 1:,} more" if count > 1 else ""
            notes.remark(f"{first}{more}", f"{reason}, so the image is unlabeled")

    def add(self, label: int, wnid: str | None, file: str, name: str | int, split: Split) -> int:
        """Record a label.

        Args:
            label: the number.
            wnid: the id in the image's name, if any.
            file: the archive or table of the image, for messages.
            name: its name there, or its row.
            split: its split; in test, -1 stands for unpublished labels.

        Returns:
            The label, the same object for each number; -1 if it is negative.

        Raises:
            SalpipeError: an image with the same label has another id in its name.
        """
        if label < 0:
            if split is not Split.TEST:
                self.unusable(_NEGATIVE, file, name)
            return -1
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
        """The classes of the labels.

        They are ImageNet's 1,000 classes, sorted by id, if the ids in names of images agree, or if `imagenet` is True
        and no name disagrees. Ids of other classes make WordNet classes as well. Else the classes have `names`, or
        their numbers as names.

        Args:
            names: the data set's own names of its classes in the order of its numbers, WordNet ids or others.
            source: the file of the names, for messages.
            imagenet: True if the data set is named ImageNet-1k.

        Raises:
            SalpipeError: an image's label contradicts the id in its name, or there are fewer names than classes.
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
        """True if the classes are a subset of ImageNet's in the same order, numbered without gaps."""
        ascending = sorted(set(own.values())) == list(own.values())
        without_gaps = own.keys() == self._seen.keys() == set(range(len(own)))
        return ascending and without_gaps and any(imagenet_labels[wnid] != label for label, wnid in own.items())

    def _check(self, labels: dict[str, int], source: str) -> None:
        """Raise SalpipeError if the id in an image's name is not that of its label."""
        for label, (wnid, where) in sorted(self._wnids.items()):
            if labels.get(wnid) != label:
                right = f"class {labels[wnid]}" if wnid in labels else "no class"
                raise SalpipeError(
                    f"{shown(where)}: labeled {label}, but {wnid} is {right} in {shown(source)}; relabel the data set"
                )


def _wordnet(own: dict[int, str]) -> Classes:
    """WordNet classes, sorted by id, of a data set with numbers in another order."""
    wnids = sorted(own.values())
    places = {wnid: place for place, wnid in enumerate(wnids)}
    return Classes(readable(wnids), tuple(wnids), {label: places[wnid] for label, wnid in own.items()})


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"{name} ({label})" for label, name in enumerate(names))


def _note_beside(root: str, used: Collection[str], notes: Notes) -> None:
    """Note other entries of a data set's folder, and of those below it that are read, than the `used` paths."""
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


def catalogue(
    root: str,
    layout: str,
    records: Iterable[ImageRecord],
    labels: Labels,
    classes: Classes,
    used: Collection[str],
    notes: Notes,
) -> Catalogue:
    """The catalogue of a packed data set, from records with its own labels; the second one of a key is left out.

    In a folder, files other than the `used` ones are noted.
    """
    labels.note_unusable(notes)
    if os.path.isdir(root):
        _note_beside(root, used, notes)
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
