"""Layouts `ilsvrc` and `kaggle`: ILSVRC 2012 in folders, in its tars, and in Kaggle's tree.

Labels are indices into the sorted WordNet ids of the classes with images, and keys are the same in every layout:
`train/<wnid>/<name>`, `val/ILSVRC2012_val_00000001.JPEG`, `test/ILSVRC2012_test_00000001.JPEG`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

from saliency_pipeline.datasets.files.archive import members
from saliency_pipeline.datasets.files.listing import is_hidden, listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.imagenet.annotations import validation_number
from saliency_pipeline.datasets.imagenet.boxes import ARCHIVES as BOX_ARCHIVES
from saliency_pipeline.datasets.imagenet.boxes import FOLDERS as BOX_FOLDERS
from saliency_pipeline.datasets.imagenet.builder import CatalogueBuilder
from saliency_pipeline.datasets.imagenet.class_folders import CLASS_TAR, LocatedImage, in_folder, in_tar
from saliency_pipeline.datasets.imagenet.ground_truth import (
    DEVKITS,
    FILES,
    GROUND_TRUTHS,
    TRAIN_SOLUTION,
    VAL_SOLUTION,
    GroundTruth,
    Lists,
)
from saliency_pipeline.datasets.imagenet.synsets import is_wnid
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.text import shown

FOLDERS = {
    "train": ("train", "ILSVRC2012_img_train"),
    "val": ("val", "validation", "valid", "ILSVRC2012_img_val"),
    "test": ("test", "ILSVRC2012_img_test", "ILSVRC2012_img_test_v10102019"),
}
"""Names of the folder of a part of the data set, in order of precedence."""

_LIST_FILES = FILES | BOX_ARCHIVES
_LIST_FOLDERS = {*chain.from_iterable(BOX_FOLDERS.values()), "data", "devkit", "caffe_ilsvrc12", "ImageSets"}

_PART_FOLDERS = {name.lower() for names in FOLDERS.values() for name in names}

_TAR = re.compile(r"ILSVRC2012_img_(train|val|test)\w*\.tar")
_NAMED = re.compile(r"(?:(n[0-9]{8})_[0-9]+|ILSVRC2012_(?:val|test)_[0-9]{8})\.[A-Za-z]+")
_GLANCE = 4096
"""Number of entries of a folder that are read to recognize it, more than the thousand classes."""


def read_ilsvrc(path: Path, options: ReadOptions) -> Catalogue:
    """Read ILSVRC 2012 in folders and tars, in any mixture; or one of its tars alone.

    The first of these is read for each part, tars in place: `train/`, ILSVRC2012_img_train.tar; `val/`, flat or one
    folder per class, ILSVRC2012_img_val.tar; `test/`, ILSVRC2012_img_test_v10102019.tar. Without parts, the folders of
    classes may be in the folder itself. A tar per class may replace its folder.

    The classes of flat validation images are in the devkit, Kaggle's LOC_val_solution.csv or Caffe's val.txt with
    synsets.txt; several lists must agree.

    Raises:
        SalpipeError: there are no images, or no list of the validation images' classes; a list is damaged; lists
            or folders contradict each other.
    """
    root = str(path)
    builder = CatalogueBuilder(root, "ilsvrc")
    if path.is_dir():
        return read_parts(builder, root, Lists([root]), _remedy(root))
    part = _part_of_tar(root)
    if part is None:
        raise SalpipeError(f"{shown(root)}: none of ILSVRC's tars, such as ILSVRC2012_img_train.tar; check the path")
    lists = Lists([os.path.dirname(root)])
    add_part(builder, part, in_tar(root, builder.notes), lists, _remedy(path.parent))
    return _finished(builder, lists)


def read_kaggle(path: Path, options: ReadOptions) -> Catalogue:
    """Read Kaggle's tree of ILSVRC 2012: ILSVRC/Data/CLS-LOC/{train,val,test} and LOC_*.csv with boxes.

    Args:
        path: the folder above ILSVRC, or ILSVRC, Data or CLS-LOC itself; absolute.
        options: ignored.

    Raises:
        SalpipeError: as for `read_ilsvrc`.
    """
    folders = _kaggle(path)
    if folders is None:
        raise SalpipeError(f"{shown(path)}: no ILSVRC/Data/CLS-LOC there; unpack imagenet_object_localization")
    top, images = folders
    # from 2015 on the devkit is beside Data
    beside = images.parent.parent if images.parent.name == "Data" else top
    lists = Lists(list(dict.fromkeys(map(str, (top, path, beside, images)))))
    remedy = f"put {VAL_SOLUTION} in {shown(top)}"
    return read_parts(CatalogueBuilder(str(path), "kaggle"), str(images), lists, remedy)


def read_parts(builder: CatalogueBuilder, root: str, lists: Lists, remedy: str) -> Catalogue:
    """The catalogue of a folder of train, val and test, or of the folders of classes."""
    there = listing(root)
    folders, files = there.folders, there.others
    for part, names in FOLDERS.items():
        called = [folder for name in names for folder in folders if folder.lower() == name.lower()]
        tars = sorted(name for name in files if (match := _TAR.fullmatch(name)) and match[1] == part)
        taken = ""
        for name in (*called, *tars):
            place = os.path.join(root, name)
            if taken:
                builder.notes.add(place, f"not read, since {part} images lie in {taken}")
                continue
            before = len(builder)
            images = in_tar(place, builder.notes) if name in tars else in_folder(place, builder.notes, own=part)
            add_part(builder, part, images, lists, remedy)
            taken = name if len(builder) > before else ""
    if len(builder):
        builder.notes.listed(there, _LIST_FILES | {name for name in files if _TAR.fullmatch(name)})
        for name in there.images:
            builder.notes.add(os.path.join(root, name), "an image beside train, val and test")
        for name in folders:
            if name.lower() not in _PART_FOLDERS and name not in _LIST_FOLDERS and not name.startswith("ILSVRC"):
                builder.notes.add(os.path.join(root, name), "a folder beside train, val and test")
    else:
        _add_classes(builder, root, lists, remedy)
    return _finished(builder, lists)


def add_part(builder: CatalogueBuilder, part: str, images: Iterable[LocatedImage], lists: Lists, remedy: str) -> None:
    """Add the images of one part (train, val or test) to a builder."""
    truth: GroundTruth | None = None
    if part == "train":
        for image in images:
            if wnid := image.wnid or _wnid_of(image.name):
                builder.add(f"train/{wnid}", image, wnid)
            else:
                builder.notes.add(image.place, "a training image of no class")
        return
    for image in images:
        number = validation_number(image.name) if part == "val" else None
        if number is not None:
            truth = truth or GroundTruth(lists, remedy)
            builder.add("val", image, truth.of(number, f"val/{image.name}", image.wnid))
        elif image.wnid or part == "test":
            builder.add(f"{part}/{image.wnid}" if image.wnid else part, image, image.wnid)
        else:
            builder.notes.add(image.place, "no validation image of ILSVRC 2012")


def _add_classes(builder: CatalogueBuilder, root: str, lists: Lists, remedy: str) -> None:
    """The classes' folders without train and val above: an image's name tells its part, or else the folder's does."""
    base = os.path.basename(root).lower()
    usual = next((part for part, names in FOLDERS.items() if base in [name.lower() for name in names]), "train")
    parts: dict[str, list[LocatedImage]] = {}
    for image in in_folder(root, builder.notes, others=_LIST_FOLDERS, used=_LIST_FILES):
        part = "val" if validation_number(image.name) is not None else usual
        parts.setdefault(part, []).append(image)
    for part, images in parts.items():
        add_part(builder, part, images, lists, remedy)


def _finished(builder: CatalogueBuilder, lists: Lists) -> Catalogue:
    if not len(builder):
        remedy = (
            "give another of its tars, or a folder of them"
            if os.path.isfile(builder.root)
            else "put ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, or what they hold as train and val, there"
        )
        raise SalpipeError(builder.empty(f"no images of ImageNet; {remedy}"))
    return builder.catalogue(lists.names(builder.wnids()), lists.boxes(builder))


def _remedy(root: str | Path) -> str:
    return (
        f"put {DEVKITS[0]}, {VAL_SOLUTION}, or val.txt and synsets.txt in {shown(root)}, or use the layout folders, "
        "which leaves images unlabeled"
    )


def _wnid_of(name: str) -> str:
    """The class in a training image's name; empty without one."""
    match = _NAMED.fullmatch(name)
    return (match[1] or "") if match else ""


# recognizing


def is_ilsvrc(path: Path) -> bool:
    """True if a folder or tar looks like ILSVRC 2012 or a part of it."""
    if not path.is_dir():
        return _part_of_tar(str(path)) is not None
    folders, _, files, *_ = listing(str(path), _GLANCE)
    if any(_TAR.fullmatch(name) or name in (*DEVKITS, *GROUND_TRUTHS) for name in files):
        return True
    parts = [str(path / name) for name in folders if name.lower() in _PART_FOLDERS]
    if any(map(_holds_classes, parts)):
        # classes of another kind in any part mean another data set
        return not any(map(_holds_others, parts))
    tars = [name for name in files if CLASS_TAR.fullmatch(name)]
    others = [name for name in folders if not is_wnid(name)]
    return len(folders) - len(others) + len(tars) >= 2 and not any(_has_images(str(path / name)) for name in others)


def is_kaggle(path: Path) -> bool:
    """True if a folder looks like Kaggle's tree, or like its lists without the tree."""
    if not path.is_dir():
        return False
    solutions = any((path / name).is_file() for name in (TRAIN_SOLUTION, VAL_SOLUTION))
    return _kaggle(path) is not None or (solutions and not is_ilsvrc(path))


def _kaggle(path: Path) -> tuple[Path, Path] | None:
    """The folder of the lists and the folder of train, val and test."""
    for tail in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC", ""):
        images = path / tail
        if images.name == "CLS-LOC" and images.is_dir():
            whole = images.parts[-3:] == ("ILSVRC", "Data", "CLS-LOC")
            return (images.parents[2] if whole else path), images
    return None


def _part_of_tar(path: str) -> str | None:
    """The part of ILSVRC 2012 in a tar, by its name or its first member."""
    if match := _TAR.fullmatch(os.path.basename(path)):
        return match[1]
    if not path.lower().endswith(".tar"):
        return None
    try:
        first = next((member for member in members(path, Notes()) if not is_hidden(member.name)), None)
    except SalpipeError:
        return None
    return "train" if first is not None and CLASS_TAR.fullmatch(os.path.basename(first.name)) else None


def _holds_classes(path: str) -> bool:
    """True if a part's folder contains classes of ImageNet, or images with ILSVRC's names."""
    folders, images, files, *_ = listing(path, _GLANCE)
    if any(map(is_wnid, folders)) or any(CLASS_TAR.fullmatch(name) for name in files):
        return all(map(is_wnid, folders))
    return any(_NAMED.fullmatch(name) for name in islice(images, 64))


def _holds_others(path: str) -> bool:
    """True if a part's folder contains other classes than ImageNet's."""
    folders = [os.path.join(path, name) for name in listing(path, _GLANCE).folders if not is_wnid(name)]
    return any(_has_images(folder) for folder in folders if os.path.basename(folder).lower() not in _PART_FOLDERS)


def _has_images(path: str) -> bool:
    return bool(listing(path, _GLANCE).images)


LAYOUTS = (
    Layout("kaggle", "ILSVRC/Data/CLS-LOC with train, val and test, and LOC_*.csv", is_kaggle, read_kaggle),
    Layout("ilsvrc", "ILSVRC 2012 in folders of WordNet ids or in its tars", is_ilsvrc, read_ilsvrc),
)
