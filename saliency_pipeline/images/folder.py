"""Catalogues of plain folders: a folder a class, or one flat folder. Named data sets have readers of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import SUFFIXES, has_image_suffix, key_part, natural, shown
from saliency_pipeline.images.layout import Layout
from saliency_pipeline.images.listing import folder_errors_explained, listing
from saliency_pipeline.images.notes import Notes
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split

SPLIT_FOLDERS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "val": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
    "testing": Split.TEST,
}
"""Names, in any case, of folders that hold one part of a data set."""

_NO_IMAGES = {
    re.compile(r"shard-[0-9]{5,}\.h5"): "a shard that salpipe made of images; give the folder of those images",
    re.compile(r".*_urls.*\.txt", re.DOTALL): (
        "a list of PubFig, which holds no images; give the folder of its images, which salpipe fetch pubfig --list "
        "LIST -o FOLDER downloads"
    ),
}
"""Files that are given in place of images, by their names: what each is, and what to give."""

_GLANCE = 256
"""How many folders are looked into for images before a data set is taken to have none in folders."""


class _Folder(NamedTuple):
    """One folder: its path, its names in the key from the root down, and the names of the images directly in it."""

    path: str
    parts: tuple[str, ...]
    images: list[str]


def read_folder(root: str | os.PathLike[str], *, label_level: int = 1) -> Catalogue:
    r"""Lists the images in a folder and everything below it, labelled by the folders they lie in.

    Images are the files whose names end with one of `SUFFIXES`. Links are followed, also those to nowhere: such an
    image cannot be read and is rejected later, not overlooked. A link back to a folder that contains it is passed
    over, as are hidden files and folders (".name") and what operating systems put among the data (lost+found,
    @eaDir, __MACOSX, ...).

    Where all folders directly in `root` that hold images are called by names in `SPLIT_FOLDERS`, they are splits and
    the levels are counted below them. Where folders of other names lie beside them, "train" or "test" may well be a
    class: they are splits if there is training and validation, or training in folders and test, and the others are
    then passed over. Either is noted, as are classes and splits without images.

    Args:
        root: the folder; or one image file, which becomes a catalogue of one.
        label_level: which level of folders names the class: 1 is the first below the root (or below the split), 0
            leaves every image unlabelled. Images that lie higher up are unlabelled; folders of the same name are
            the same class, wherever they lie.

    Returns:
        The catalogue: records and classes in natural order ("img2" before "img10"), which is the same on every
        machine. A key is the path relative to `root`; in names that are not valid UTF-8 the odd bytes stand as
        \xNN, and a backslash in a name is doubled, so that keys differ whenever paths do.

    Raises:
        SalpipeError: `root` is missing, holds no image or no folder at `label_level`, or a folder cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     for name in ("cat/10.jpg", "cat/9.jpg", "dog/1.PNG"):
        ...         Path(root, name).parent.mkdir(exist_ok=True)
        ...         Path(root, name).touch()
        ...     catalogue = read_folder(root)
        >>> catalogue.classes, [(record.key, record.label) for record in catalogue.records]
        (('cat', 'dog'), [('cat/9.jpg', 0), ('cat/10.jpg', 0), ('dog/1.PNG', 1)])
    """
    if label_level < 0:
        raise SalpipeError(f"label level {label_level}: use 0 for unlabelled images, 1 for the first level of folders")
    # Absolute, because the records are read by worker processes that may run elsewhere.
    top = os.path.abspath(root)
    if os.path.isfile(top):
        if not has_image_suffix(top):
            _explain(os.path.dirname(top), [os.path.basename(top)])
            raise SalpipeError(
                f"{shown(top)}: not a folder; give one (unpack it, if it is an archive), or a file ending in "
                f"{_suffixes()}"
            )
        return Catalogue(top, [ImageRecord(key_part(os.path.basename(top)), top)])
    walked = list(_walk(top))
    folders = [folder for folder in walked if folder.images]
    if not folders:
        _explain(top, listing(top).others)
        raise SalpipeError(f"{shown(top)}: no images found; they must end in {_suffixes()} and not be hidden")

    notes = Notes()
    splits = _splits(folders, notes)
    if splits:
        walked, folders = (list(filter(_is_within, those)) for those in (walked, folders))
    _note_empty(walked, folders, label_level + bool(splits), notes)
    depth = max(len(folder.parts) for folder in folders) - bool(splits)
    if label_level > max(depth, 1):
        raise SalpipeError(
            f"{shown(top)}: label level {label_level} is too deep; the deepest images lie at level {depth}"
            f"{', counted below the splits' if splits else ''}"
        )
    labelled = [(folder, *_split_and_class(folder, splits, label_level)) for folder in folders]
    classes = sorted({name for _, _, name in labelled if name is not None}, key=natural)
    labels: dict[str | None, int] = {name: label for label, name in enumerate(classes)}
    records = [
        ImageRecord("/".join((*folder.parts, key_part(image))), os.path.join(folder.path, image), label, split)
        for folder, split, name in labelled
        for label in (labels.get(name, -1),)
        for image in folder.images
    ]
    records.sort(key=lambda record: natural(record.key))
    return Catalogue(top, records, tuple(classes), notes=notes.lines())


def has_class_folders(root: str | os.PathLike[str]) -> bool:
    """Whether two or more folders below `root` hold images: these are the data set, whatever tables or archives lie
    beside them. A single one may be pictures of a README.

    Raises:
        SalpipeError: a folder cannot be read.
    """
    below = islice(_walk(os.path.abspath(root)), 1, _GLANCE)
    return len(list(islice((folder for folder in below if folder.images), 2))) == 2


def _walk(top: str) -> Iterator[_Folder]:
    """All visible folders from the top down, each with the images in it, in no particular order.

    A link to nowhere may have been one, and comes as a folder without images.
    """
    # A loop is a folder met again on its own way down; one reached by two ways is no loop and read twice. The way
    # down is told by device and inode, since the same folder has many names.
    waiting: list[tuple[str, tuple[str, ...], frozenset[tuple[int, int]]]] = [(top, (), frozenset())]
    while waiting:
        path, parts, above = waiting.pop()
        with folder_errors_explained(path):
            status = os.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in above:
            continue
        within = above | {identity}
        folders, images, others = listing(path)
        waiting += [(os.path.join(path, name), (*parts, key_part(name)), within) for name in folders]
        yield _Folder(path, parts, images)
        for name in others:
            if os.path.islink(link := os.path.join(path, name)) and not os.path.exists(link):
                yield _Folder(link, (*parts, key_part(name)), [])


def _suffixes() -> str:
    return ", ".join(f".{suffix}" for suffix in sorted(SUFFIXES))


def _explain(folder: str, names: list[str]) -> None:
    """Raise SalpipeError where one of the files in a folder tells why there are no images."""
    for pattern, what in _NO_IMAGES.items():
        if name := next(filter(pattern.fullmatch, names), None):
            raise SalpipeError(f"{shown(os.path.join(folder, name))}: {what}")


def _splits(folders: list[_Folder], notes: Notes) -> dict[str, Split]:
    """The splits by the names of their folders, of those that hold images; none where these are classes."""
    names = sorted({folder.parts[0] for folder in folders if folder.parts}, key=natural)
    splits = {name: SPLIT_FOLDERS[name.lower()] for name in names if name.lower() in SPLIT_FOLDERS}
    others = [name for name in names if name not in splits]
    if not others:
        return splits
    there = set(splits.values())
    in_folders = any(len(folder.parts) > 1 and splits.get(folder.parts[0]) is Split.TRAIN for folder in folders)
    if Split.TRAIN in there and (Split.VALIDATION in there or (Split.TEST in there and in_folders)):
        parts = f"{', '.join(list(splits)[:-1])} and {list(splits)[-1]}"
        for name in others:
            notes.add(
                name, f"passed over beside {parts}; move its images into one of them, or call it train, val or test"
            )
        return splits
    for name in splits:
        notes.add(name, "taken as a class, like the folders beside it; move those away if it is a part of the data set")
    return {}


def _is_within(folder: _Folder) -> bool:
    """Whether a folder is the root, or is or lies in a split."""
    return not folder.parts or folder.parts[0].lower() in SPLIT_FOLDERS


def _note_empty(walked: list[_Folder], folders: list[_Folder], level: int, notes: Notes) -> None:
    """Note the splits and classes that have no images, down to a level: a class less, and labels are others."""
    holding = {folder.parts[:depth] for folder in folders for depth in range(len(folder.parts) + 1)} | {()}
    empty = [each for each in walked if each.parts not in holding and each.parts[:-1] in holding]
    for each in sorted(empty, key=lambda folder: natural("/".join(folder.parts))):
        if len(each.parts) <= level:
            what = "a folder without images" if os.path.exists(each.path) else "a link to nowhere"
            notes.add("/".join(each.parts), f"{what}, left out")


def _split_and_class(folder: _Folder, splits: dict[str, Split], label_level: int) -> tuple[Split, str | None]:
    """The split and the class, if any, of the images directly in a folder."""
    split = splits.get(folder.parts[0], Split.NONE) if folder.parts else Split.NONE
    below = folder.parts[1:] if folder.parts and splits else folder.parts
    return split, below[label_level - 1] if 0 < label_level <= len(below) else None


LAYOUTS = (
    Layout(
        "folders",
        "a folder a class, below train, val and test where there are such, or one flat folder",
        lambda path: True,
        lambda path, options: read_folder(path, label_level=options.label_level),
    ),
)
