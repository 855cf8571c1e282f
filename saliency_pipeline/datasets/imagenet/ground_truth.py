"""What the lists beside ImageNet's images say: classes of the flat validation images, boxes, names. No images here."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from saliency_pipeline.datasets.files.archive import read_small
from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.datasets.imagenet.annotations import (
    Boxes,
    is_caffe,
    read_caffe,
    read_ground_truth,
    read_map,
    read_meta,
    read_solution,
    validation_number,
)
from saliency_pipeline.datasets.imagenet.boxes import find_boxes
from saliency_pipeline.datasets.imagenet.builder import CatalogueBuilder
from saliency_pipeline.datasets.imagenet.synsets import read_wnids, read_words
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown

GROUND_TRUTHS = (
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2014_clsloc_validation_ground_truth.txt",
    "ILSVRC2015_clsloc_validation_ground_truth.txt",
)
"""One a devkit; the later ones, which explain their ids by map_clsloc.txt, are about the images and classes of 2012."""

VAL_SOLUTION, TRAIN_SOLUTION = "LOC_val_solution.csv", "LOC_train_solution.csv"
DEVKITS = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar")

_META, _MAP = "meta.mat", "map_clsloc.txt"
_CAFFE, _SYNSETS = "val.txt", "synsets.txt"
_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")

FILES = {*GROUND_TRUTHS, VAL_SOLUTION, TRAIN_SOLUTION, *DEVKITS, _META, _MAP, _CAFFE, _SYNSETS, *_NAMES}
"""What the files are called that `Lists` looks for; those of boxes stand in `boxes.py`."""


class Lists:
    """Where the lists of a data set are looked for.

    Args:
        folders: the data set's folder and those around it, the first that has a file counts; each is searched also in
            its `data`, and in a devkit that lies in it, be it packed or not.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(folders)
        below = ("", "data", "ILSVRC2012_devkit_t12/data", "ILSVRC2014_devkit/data", "devkit/data", "caffe_ilsvrc12")
        self._places = [os.path.join(folder, name) for folder in folders for name in below]

    def find(self, name: str) -> Lines | None:
        """A list by its name; those of the devkit (`meta.mat`, the ground truth) also in its archive."""
        for place in self._places:
            if os.path.isfile(path := os.path.join(place, name)):
                return Lines(path)
        if name not in (GROUND_TRUTHS[0], _META):
            return None
        for folder in self.folders:
            for devkit in DEVKITS:
                if os.path.isfile(path := os.path.join(folder, devkit)):
                    return Lines(os.path.join(path, name), read_small(path, name))
        return None

    def names(self, wnids: Collection[str]) -> dict[str, str]:
        """What the data set calls classes, synonyms separated by commas; only those that a list of it names."""
        for name in _NAMES:
            if (lines := self.find(name)) is not None:
                return read_words(lines, wnids)
        if (lines := self.find(_META)) is not None:
            return {synset.wnid: synset.words for synset in read_meta(lines) if synset.wnid in wnids}
        return {}

    def boxes(self, builder: CatalogueBuilder) -> Boxes:
        """The boxes of images: Kaggle's lists have them, and for a part of which there is no list ILSVRC's XML files.

        Args:
            builder: the images; its notes take XML files that cannot be read.

        Raises:
            SalpipeError: a list is damaged.
        """
        by_image: Boxes = {}
        for part, name in (("train", TRAIN_SOLUTION), ("val", VAL_SOLUTION)):
            if part not in builder.parts():
                continue
            if (lines := self.find(name)) is None:
                by_image |= find_boxes(self.folders, part, builder)
            else:
                by_image |= {image: boxes for _, image, _, boxes in read_solution(lines)}
        return by_image


class GroundTruth:
    """The classes of the flat validation images according to every list there is.

    Args:
        lists: where to look.
        remedy: what is missing where there is no list at all, as the error says it.

    Raises:
        SalpipeError: a list is damaged; the message gives file and line.
    """

    def __init__(self, lists: Lists, remedy: str) -> None:
        self._sources: dict[str, dict[int, str]] = {}
        self._remedy = remedy
        if (lines := lists.find(VAL_SOLUTION)) is not None:
            truth = self._sources[lines.path] = {}
            for line, image, wnid, _ in read_solution(lines):
                number = validation_number(image)
                if number is None:
                    lines.fail(line, f"{shown(image[:40])} is no validation image such as ILSVRC2012_val_00000001")
                if truth.setdefault(number, wnid) != wnid:
                    lines.fail(line, f"{image} is in the list twice, with two classes")
        for lines in filter(None, map(lists.find, GROUND_TRUTHS)):
            ids: list[tuple[str, dict[int, str]]] = []
            if (meta := lists.find(_META)) is not None:
                ids.append((meta.path, {synset.number: synset.wnid for synset in read_meta(meta)}))
            if (table := lists.find(_MAP)) is not None:
                ids.append((table.path, read_map(table)))
            for path, wnids in ids:
                self._sources[f"{lines.path} with {os.path.basename(path)}"] = read_ground_truth(lines, path, wnids)
            if not ids:
                self._remedy = (
                    f"{shown(lines.path)} gives ids that only {_META} or {_MAP} of the devkit explain; put one of them "
                    "beside it"
                )
        if (lines := lists.find(_CAFFE)) is not None and is_caffe(lines):
            if (synsets := lists.find(_SYNSETS)) is not None:
                self._sources[lines.path] = read_caffe(lines, synsets.path, read_wnids(synsets))
            elif not self._sources:
                self._remedy = f"{shown(lines.path)} gives indices that only {_SYNSETS} explains; put it beside"

    def of(self, number: int, name: str, folder: str) -> str:
        """The WordNet id of a validation image.

        Args:
            number: of the image.
            name: of its file, for messages.
            folder: WordNet id of the folder it lies in; empty where it lies in none.

        Raises:
            SalpipeError: no list has the image, or two say different things of it.
        """
        answers = {source: truth[number] for source, truth in self._sources.items() if number in truth}
        if folder:
            answers["the folder it is in"] = folder
        if len(set(answers.values())) == 1:
            return next(iter(answers.values()))
        if not self._sources:
            raise SalpipeError(f"{shown(name)}: its class is not known; {self._remedy}")
        if not answers:
            raise SalpipeError(
                f"{shown(name)}: not in {shown(' or '.join(self._sources))}; use the whole list, or remove the image"
            )
        answers_text = ", ".join(f"{wnid} according to {shown(source)}" for source, wnid in answers.items())
        raise SalpipeError(f"{shown(name)}: {answers_text}; remove what is wrong")
