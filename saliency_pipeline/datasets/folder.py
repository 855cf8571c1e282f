"""Layout `folders`: one folder per class, or one flat folder, on disk or in a tar."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice

from saliency_pipeline.datasets.files.archive import is_archive
from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.files.walk import Folder, walk, walk_tar
from saliency_pipeline.datasets.layout import Layout
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import class_name, ending_of, has_image_suffix, key_part, natural
from saliency_pipeline.images.magic import first_bytes, format_of
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

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
"""Splits by the names of their folders, in lower case."""

_NO_IMAGES = {
    re.compile(r"shard-[0-9]{5,}\.h5"): "a shard that salpipe made of images; give the folder of those images",
    re.compile(r".*_urls.*\.txt", re.DOTALL): (
        "a list of PubFig, which holds no images; give the folder of its images, which salpipe fetch pubfig --list "
        "LIST -o FOLDER downloads"
    ),
    re.compile(r".*\.(?:tar\.\w+|tgz|tbz2?|txz|zip|7z|rar)", re.DOTALL | re.IGNORECASE): (
        "a compressed archive; unpack it, since images are read where they lie"
    ),
}
"""Explanations of files that are no images, by patterns of their names."""

_GLANCE = 256
"""Number of folders that are searched for images before a data set is assumed to have none in folders."""


def read_folder(root: str | os.PathLike[str], *, label_level: int = 1) -> Catalogue:
    r"""List the images in a folder and everything below it, labeled by their folders.

    Images are the files with one of `SUFFIXES`, and those with another or no suffix that begin like an image. Links
    are followed; a dangling one with an image's name counts as an image, which is rejected later. Everything else is
    skipped and counted: other files, links back to a folder that contains them, hidden files and folders (".name"),
    and those of operating systems (lost+found, @eaDir, __MACOSX, ...).

    If all folders directly in `root` that hold images have names in `SPLIT_FOLDERS`, they are splits and the levels
    count below them. With other folders beside them, "train" or "test" may be a class: they are splits if there is
    training and validation, or training in folders and test, and the other folders are then skipped. Either is noted,
    as are classes and splits without images.

    Args:
        root: the folder, an uncompressed tar of it, or one image file, which becomes a catalogue of one.
        label_level: level of the folders that name the classes: 1 is the first below the root (or below the split), 0
            leaves every image unlabeled. Images above it are unlabeled; folders of the same name are the same class,
            wherever they are and whatever their Unicode form.

    Returns:
        The catalogue: records and classes in natural order ("img2" before "img10"), the same on every machine. A key
        is the path relative to `root`; bytes of names that are not valid UTF-8 are escaped as \xNN and backslashes
        doubled, so that keys are unique.

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
        raise SalpipeError(f"label level {label_level}: use 0 for unlabeled images, 1 for the first level of folders")
    # absolute, because records are read by worker processes with other working folders
    top = os.path.abspath(root)
    notes = Notes()
    if os.path.isfile(top) and (has_image_suffix(top) or format_of(first_bytes(top))):
        if not has_image_suffix(top):
            notes.take({ending_of(os.path.basename(top)): 1})
        return Catalogue(top, [ImageRecord(key_part(os.path.basename(top)), top)], notes=notes.lines())
    walked = _walked(top, notes)
    folders = [folder for folder in walked if folder.images]
    splits = _splits(folders, notes)
    if splits:
        notes.count("images beside the splits", sum(len(each.images) for each in folders if not _is_within(each)))
        walked, folders = (list(filter(_is_within, those)) for those in (walked, folders))
    _note_empty(walked, folders, label_level + bool(splits), notes)
    depth = max(len(folder.parts) for folder in folders) - bool(splits)
    if label_level > max(depth, 1):
        raise SalpipeError(
            f"{shown(top)}: label level {label_level} is too deep; the deepest images lie at level {depth}"
            f"{', counted below the splits' if splits else ''}"
        )
    if label_level:
        _note_depth([folder.parts[bool(splits) :] for folder in folders], label_level, notes)
    labeled = [(folder, *_split_and_class(folder, splits, label_level)) for folder in folders]
    classes, labels = _labels([name for _, _, name in labeled if name is not None], notes)
    records = [record for folder, split, name in labeled for record in folder.records(labels.get(name, -1), split)]
    records.sort(key=lambda record: natural(record.key))
    _note_untrained(records, classes, notes)
    return Catalogue(top, records, tuple(classes), notes=notes.lines(), passed_over=notes.passed_over())


def _walked(top: str, notes: Notes) -> list[Folder]:
    """All folders of a tree or tar. Raises SalpipeError if there are no images."""
    if not os.path.isfile(top):
        walked = list(walk(top, notes))
    elif is_archive(top):
        walked = _without_wrapper(walk_tar(top, notes), notes)
    else:
        _explain(os.path.dirname(top), [os.path.basename(top)])
        raise SalpipeError(f"{shown(top)}: neither an image nor an archive of images; give a folder, a tar or an image")
    if not any(folder.images for folder in walked):
        if os.path.isdir(top):
            _explain(top, listing(top).others)
        there = "; ".join(notes.lines()[:3]) or "it is empty"
        raise SalpipeError(
            f"{shown(top)}: no images found; they must end in .jpg, .png or the like, or begin like an image ({there})"
        )
    return walked


def _labels(names: Iterable[str], notes: Notes) -> tuple[list[str], dict[str | None, int]]:
    """Classes in label order, and labels by folder name; Unicode forms of a name are the same class."""
    forms: dict[str, set[str]] = {}
    for name in names:
        forms.setdefault(class_name(name), set()).add(name)
    for name in (name for name, written in forms.items() if len(written) > 1):
        notes.remark(name, "written in two Unicode forms (composed and decomposed letters), taken as one class")
    classes = sorted(forms, key=natural)
    return classes, {written: label for label, name in enumerate(classes) for written in forms[name]}


def has_class_folders(root: str | os.PathLike[str]) -> bool:
    """True if two or more folders below `root` hold images: these are the data set, whatever tables or archives are
    beside them. A single one may hold figures of a README.

    Raises:
        SalpipeError: a folder cannot be read.
    """
    below = islice(walk(os.path.abspath(root), Notes()), 1, _GLANCE)
    return len(list(islice((folder for folder in below if folder.images), 2))) == 2


def _explain(folder: str, names: list[str]) -> None:
    """Raise SalpipeError if one of the files in a folder explains why there are no images."""
    for pattern, explanation in _NO_IMAGES.items():
        if name := next(filter(pattern.fullmatch, names), None):
            raise SalpipeError(f"{shown(os.path.join(folder, name))}: {explanation}")


def _splits(folders: list[Folder], notes: Notes) -> dict[str, Split]:
    """Splits by folder name, of the folders that hold images; none if these are classes."""
    names = sorted({folder.parts[0] for folder in folders if folder.parts}, key=natural)
    splits = {name: SPLIT_FOLDERS[name.lower()] for name in names if name.lower() in SPLIT_FOLDERS}
    others = [name for name in names if name not in splits]
    if not others:
        return splits
    parts = set(splits.values())
    in_folders = any(len(folder.parts) > 1 and splits.get(folder.parts[0]) is Split.TRAIN for folder in folders)
    if Split.TRAIN in parts and (Split.VALIDATION in parts or (Split.TEST in parts and in_folders)):
        beside = f"{', '.join(list(splits)[:-1])} and {list(splits)[-1]}"
        for name in others:
            notes.add(
                name, f"passed over beside {beside}; move its images into one of them, or call it train, val or test"
            )
        return splits
    for name in splits:
        notes.remark(
            name, "taken as a class, like the folders beside it; move those away if it is a part of the data set"
        )
    return {}


def _note_untrained(records: Iterable[ImageRecord], classes: Sequence[str], notes: Notes) -> None:
    """Note the classes without training images that other splits have, if there is training."""
    there: dict[Split, set[int]] = {}
    for record in records:
        there.setdefault(record.split, set()).add(record.label)
    trained = there.pop(Split.TRAIN, set()) - {-1}
    untrained = sorted(set().union(*there.values()) - trained - {-1})
    if trained and untrained:
        first = ", ".join(classes[label] for label in untrained[:3]) + (", ..." if len(untrained) > 3 else "")
        notes.remark(
            f"{len(untrained):,} of {len(classes):,} classes ({first})",
            "no training image; the folders of a class must be called the same in all splits",
        )


def _is_within(folder: Folder) -> bool:
    """True if a folder is the root, a split, or within a split."""
    return not folder.parts or folder.parts[0].lower() in SPLIT_FOLDERS


def _note_empty(walked: list[Folder], folders: list[Folder], level: int, notes: Notes) -> None:
    """Note the splits and classes without images, down to a level: without a class, other labels change."""
    holding = {folder.parts[:depth] for folder in folders for depth in range(len(folder.parts) + 1)} | {()}
    empty = [each for each in walked if each.parts not in holding and each.parts[:-1] in holding]
    for each in sorted(empty, key=lambda folder: natural("/".join(folder.parts))):
        kind = "without images" if os.path.exists(each.path) else "to nowhere"
        if len(each.parts) <= level:
            notes.add("/".join(each.parts), f"a {'folder' if kind == 'without images' else 'link'} {kind}, left out")
        else:
            notes.count(f"{'folders' if kind == 'without images' else 'links'} {kind}")


def _note_depth(below: Sequence[tuple[str, ...]], level: int, notes: Notes) -> None:
    """Note signs that the classes are other folders: deeper ones, or parts of the data set.

    Args:
        below: path below the split of each folder that holds images.
        level: level of the classes, at least 1.
        notes: receives the notes.
    """
    within: dict[str, set[str]] = {}  # classes by the names of the folders in them
    for parts in below:
        if len(parts) > level:
            within.setdefault(parts[level], set()).add(parts[level - 1])
    classes = {parts[level - 1] for parts in below if len(parts) >= level}
    if parts_within := [name for name in sorted(within, key=natural) if name.lower() in SPLIT_FOLDERS]:
        alone = "; give that folder itself if it is the data set" if len(classes) == 1 else ""
        for name in parts_within:
            reason = f"a part within a class is no split: arrange the folders as train/cat, val/cat{alone}"
            notes.remark(f"{min(within[name], key=natural)}/{name}", reason)
    elif shared := [name for name in sorted(within, key=natural) if len(within[name]) > 1]:
        reason = f"lies in several classes and is read as part of each; --label-level {level + 1} makes it a class"
        for name in shared:
            notes.remark(f"{name} ({len(within[name]):,} of {len(classes):,})", reason)
    elif classes and all(len(parts) != level for parts in below):
        first = min((parts for parts in below if len(parts) > level), key=lambda parts: natural("/".join(parts)))
        reason = f"all images lie deeper than the folders that name the classes; --label-level {level + 1} takes deeper"
        notes.remark("/".join(first), f"{reason} ones")


def _without_wrapper(folders: list[Folder], notes: Notes) -> list[Folder]:
    """The folders of a tar relative to the one that holds all folders of images, if there is one."""
    while (
        len(tops := {folder.parts[:1] for folder in folders if folder.images}) == 1
        and (top := next(iter(tops)))
        and top[0].lower() not in SPLIT_FOLDERS
        and not any(folder.images for folder in folders if folder.parts == top)
    ):
        notes.remark(top[0], "the folder that holds all others in the archive, taken as the root")
        folders = [folder._replace(parts=folder.parts[1:]) for folder in folders if folder.parts[:1] == top]
    return folders


def _split_and_class(folder: Folder, splits: dict[str, Split], label_level: int) -> tuple[Split, str | None]:
    """The split and the class, if any, of the images directly in a folder."""
    split = splits.get(folder.parts[0], Split.NONE) if folder.parts else Split.NONE
    below = folder.parts[1:] if folder.parts and splits else folder.parts
    return split, below[label_level - 1] if 0 < label_level <= len(below) else None


LAYOUTS = (
    Layout(
        "folders",
        "one folder per class, below train, val and test where there are such, or one flat folder; also as a tar",
        lambda path: True,
        lambda path, options: read_folder(path, label_level=options.label_level),
    ),
)
