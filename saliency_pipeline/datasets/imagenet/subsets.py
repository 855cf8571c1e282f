"""Layouts of subsets of ImageNet: Tiny-ImageNet, Imagenette, Imagewoof, Imagewang and ImageNet-100.

Labels and keys are those of `ilsvrc.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.imagenet.annotations import Boxes, read_boxes
from saliency_pipeline.datasets.imagenet.builder import CatalogueBuilder
from saliency_pipeline.datasets.imagenet.class_folders import LocatedImage, in_folder
from saliency_pipeline.datasets.imagenet.ground_truth import Lists
from saliency_pipeline.datasets.imagenet.ilsvrc import add_part
from saliency_pipeline.datasets.imagenet.synsets import is_wnid, read_labels, read_wnids
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import key_part, stem
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.text import shown

NOISY_LISTS = ("noisy_imagenette.csv", "noisy_imagewoof.csv", "noisy_imagewang.csv")

_ANNOTATIONS = "val_annotations.txt"
_NOISY_COLUMN = re.compile(r"noisy_labels_[0-9]+")
_PART_OF_100 = re.compile(r"(train|val)\.X([0-9]*)")


# Tiny-ImageNet


def read_tiny(path: Path, options: ReadOptions) -> Catalogue:
    """Read Tiny-ImageNet: train/<wnid>/images, val/images with val_annotations.txt, test/images without labels.

    Validation images may also be in folders of their classes, and `images` may be missing. Labels follow the sorted
    ids, not the order of wnids.txt. Names are those of words.txt, boxes those of the lists beside the images.

    Raises:
        SalpipeError: the path is train or val alone; val_annotations.txt is missing though validation images are in no
            folder of a class, contradicts their folders or is damaged; there are no images.
    """
    if _is_part_of_tiny(path):
        raise SalpipeError(f"{shown(path)}: a part of Tiny-ImageNet; give the folder above it, {shown(path.parent)}")
    builder, boxes = CatalogueBuilder(str(path), "tiny-imagenet"), Boxes()
    _note_missing_parts(path, builder)
    for image in _tiny_images(path / "train", builder):
        if image.wnid:
            builder.add(f"train/{image.wnid}", image, image.wnid)
        else:
            builder.notes.add(image.path, "a training image of no class")
    for wnid in builder.wnids():
        if (table := path / "train" / wnid / f"{wnid}_boxes.txt").is_file():
            boxes |= {stem(name): (box,) for name, _, box in read_boxes(Lines(table), labeled=False)}
    wnids_by_name: dict[str, str] = {}
    if (annotations := path / "val" / _ANNOTATIONS).is_file():
        for name, wnid, box in read_boxes(Lines(annotations), labeled=True):
            wnids_by_name[name] = wnid
            boxes[stem(name)] = (box,)
    for image in _tiny_images(path / "val", builder):
        wnid = wnids_by_name.get(image.name, image.wnid)
        if not wnid:
            reason = "does not list it" if wnids_by_name else "not there"
            raise SalpipeError(f"{shown(image.path)}: its class is not known; {shown(annotations)}: {reason}")
        if image.wnid not in ("", wnid):
            raise SalpipeError(f"{shown(image.path)}: {wnid} according to {_ANNOTATIONS}; remove what is wrong")
        builder.add("val", image, wnid)
    for image in _tiny_images(path / "test", builder):
        builder.add("test", image, image.wnid)
    _note_beside(path, builder, ("train", "val", "test"), ("wnids.txt", "words.txt"))
    wnids = builder.wnids()
    if (table := path / "wnids.txt").is_file():
        for wnid in sorted({*read_wnids(Lines(table))} - {*wnids}):
            builder.notes.remark(f"{table}: {wnid}", "a class without images")
    return builder.catalogue(Lists([str(path)]).names(wnids), boxes)


def is_tiny(path: Path) -> bool:
    """True if a folder looks like Tiny-ImageNet."""
    train = path / "train"
    if (path / "val" / _ANNOTATIONS).is_file() or ((path / "wnids.txt").is_file() and train.is_dir()):
        return True
    return _has_images_below(train) or _is_part_of_tiny(path)


def _is_part_of_tiny(path: Path) -> bool:
    return (path / _ANNOTATIONS).is_file() or _has_images_below(path)


def _has_images_below(part: Path) -> bool:
    """True if the first class has a folder `images`, as none of ILSVRC's do."""
    first = next((name for name in listing(str(part), 64).folders if is_wnid(name)), "") if part.is_dir() else ""
    return bool(first) and (part / first / "images").is_dir()


def _tiny_images(part: Path, builder: CatalogueBuilder) -> Iterator[LocatedImage]:
    """The images of a part, with or without folders `images` between."""
    waiting = [(part, "")] if part.is_dir() else []
    while waiting:
        folder, wnid = waiting.pop()
        entries = listing(str(folder))
        builder.notes.listed(entries, {_ANNOTATIONS, f"{wnid}_boxes.txt"})
        for name in entries.images:
            yield LocatedImage(wnid, key_part(name), f"{folder}/{name}")
        for name in entries.folders:
            if name == "images" and folder.name != "images":
                waiting.append((folder / name, wnid))
            elif is_wnid(name) and not wnid:
                waiting.append((folder / name, name))
            else:
                builder.notes.add(str(folder / name), "a folder of no class such as n01440764")


def _note_missing_parts(path: Path, builder: CatalogueBuilder) -> None:
    """Note a missing folder of train and val. Raises SalpipeError if both are missing."""
    missing = [part for part in ("train", "val") if not (path / part).is_dir()]
    if len(missing) == 2:
        raise SalpipeError(f"{shown(path)}: the folders train and val are missing; put them there")
    for part in missing:
        builder.notes.remark(str(path / part), "not there")


def _note_beside(path: Path, builder: CatalogueBuilder, parts: Collection[str], lists: Collection[str]) -> None:
    """Note other entries of the data set's folder than its parts and lists."""
    entries = listing(str(path))
    builder.notes.listed(entries, lists)
    for name in entries.images:
        builder.notes.add(str(path / name), "an image beside the parts of the data set")
    for name in entries.folders:
        if name not in parts:
            builder.notes.add(str(path / name), "a folder beside the parts of the data set")


# Imagenette, Imagewoof, Imagewang


def read_imagenette(path: Path, options: ReadOptions) -> Catalogue:
    """Read Imagenette, Imagewoof and Imagewang: {train,val}/<wnid>, unsup, and noisy labels in a CSV file.

    With `noise` the training labels are those of the CSV file's column of that percentage; validation labels are
    always correct. Images of Imagewang's `unsup` are unlabeled and in no split.

    Source: https://github.com/fastai/imagenette

    Raises:
        SalpipeError: there is no CSV file, it has no such percentage, lacks an image or is damaged; no images.
    """
    builder, root = CatalogueBuilder(str(path), "imagenette"), str(path)
    _note_missing_parts(path, builder)
    labels = _noisy_labels(path, options.noise) if options.noise else None
    for image in in_folder(f"{root}/train", builder.notes, others=["unsup"]) if (path / "train").is_dir() else ():
        if not image.wnid:
            builder.notes.add(image.place, "a training image of no class")
            continue
        wnid = labels.get(f"{image.wnid}/{image.name}", "") if labels is not None else image.wnid
        if not wnid:
            raise SalpipeError(f"{shown(image.path)}: not in the CSV file of noisy labels; remove one or the other")
        builder.add(f"train/{image.wnid}", image, wnid)
    lists = Lists([root])
    if (path / "val").is_dir():
        add_part(builder, "val", in_folder(f"{root}/val", builder.notes), lists, "put it in the folder of its class")
    for folder in (path / "unsup", path / "train" / "unsup"):
        for image in in_folder(str(folder), builder.notes) if folder.is_dir() else ():
            builder.add("unsup", image, "")
    _note_beside(path, builder, ("train", "val", "unsup"), NOISY_LISTS)
    return builder.catalogue(lists.names(builder.wnids()), {})


def is_imagenette(path: Path) -> bool:
    """True if a folder has Imagenette's list of noisy labels or Imagewang's unlabeled images."""
    if any((path / name).is_file() for name in NOISY_LISTS):
        return True
    train = path / "train"
    unlabeled = train.is_dir() and any((folder / "unsup").is_dir() for folder in (path, train))
    return unlabeled and any(map(is_wnid, listing(str(train), 64).folders))


def _noisy_labels(path: Path, noise: int) -> dict[str, str]:
    """WordNet ids of training images by their path below train, `noise` percent of them wrong."""
    table = next((path / name for name in NOISY_LISTS if (path / name).is_file()), None)
    if table is None:
        raise SalpipeError(f"{shown(path)}: noise {noise} needs {NOISY_LISTS[0]} or {NOISY_LISTS[1]} there")
    lines, column = Lines(table), f"noisy_labels_{noise}"
    header = next(iter(lines), (1, ""))[1]
    if column not in (there := _NOISY_COLUMN.findall(header)):
        choice = ", ".join(name.rpartition("_")[2] for name in there) or "0"
        raise SalpipeError(f"{shown(table)}: no noise of {noise} %; choose from {choice}")
    labels = {}
    for number, row in lines.rows("path", column):
        part, _, image = row["path"].strip().partition("/")
        if part == "train":
            labels[image] = wnid = row[column].strip()
            if not is_wnid(wnid):
                lines.fail(number, f"{shown(wnid[:40])} is no WordNet id such as n01440764")
    return labels


# ImageNet-100


def read_100(path: Path, options: ReadOptions) -> Catalogue:
    """Read ImageNet-100 as on Kaggle: classes in train.X1 to train.X4 and val.X, names in Labels.json.

    Raises:
        SalpipeError: Labels.json is damaged; there are no images.
    """
    builder, lists = CatalogueBuilder(str(path), "imagenet-100"), Lists([str(path)])
    folders = listing(str(path)).folders
    for name in sorted(folders):
        if match := _PART_OF_100.fullmatch(name):
            images = in_folder(str(path / name), builder.notes)
            add_part(builder, match[1], images, lists, "put it in the folder of its class")
    for name in ("train.X1", "train.X2", "train.X3", "train.X4", "val.X"):
        if name not in folders:
            builder.notes.remark(str(path / name), "not there, so that its images are missing")
    labels = path / "Labels.json"
    _note_beside(path, builder, [name for name in folders if _PART_OF_100.fullmatch(name)], [labels.name])
    return builder.catalogue(read_labels(labels) if labels.is_file() else {}, {})


def is_100(path: Path) -> bool:
    """True if a folder has one of ImageNet-100's folders."""
    return path.is_dir() and any(map(_PART_OF_100.fullmatch, listing(str(path), 64).folders))


LAYOUTS = (
    Layout("tiny-imagenet", "train/<wnid>/images, val/images and val_annotations.txt", is_tiny, read_tiny),
    Layout(
        "imagenette", "train and val, and noisy_imagenette.csv or noisy_imagewoof.csv", is_imagenette, read_imagenette
    ),
    Layout("imagenet-100", "train.X1 to train.X4, val.X and Labels.json", is_100, read_100),
)
