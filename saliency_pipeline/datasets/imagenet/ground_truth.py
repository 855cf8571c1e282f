"""Ground truth in the lists beside ImageNet's images: classes of flat validation images, boxes, class names."""

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
"""One per devkit; the later ones, with ids of map_clsloc.txt, have the images and classes of 2012."""

VAL_SOLUTION, TRAIN_SOLUTION = "LOC_val_solution.csv", "LOC_train_solution.csv"
DEVKITS = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12.tar")

_META, _MAP = "meta.mat", "map_clsloc.txt"
_CAFFE, _SYNSETS = "val.txt", "synsets.txt"
_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")

FILES = {*GROUND_TRUTHS, VAL_SOLUTION, TRAIN_SOLUTION, *DEVKITS, _META, _MAP, _CAFFE, _SYNSETS, *_NAMES}
"""Names of the files that `Lists` finds."""


class Lists:
    """Finds the lists of a data set.

    Args:
        folders: the data set's folder and those around it, in order of precedence; `data` and a packed or unpacked
            devkit in each are searched too.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = tuple(folders)
        below = ("", "data", "ILSVRC2012_devkit_t12/data", "ILSVRC2014_devkit/data", "devkit/data", "caffe_ilsvrc12")
        self._places = [os.path.join(folder, name) for folder in folders for name in below]

    def find(self, name: str) -> Lines | None:
        """The list of a name; `meta.mat` and the ground truth also in the devkit's archive."""
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
        """The data set's own names of classes, synonyms separated by commas; only of classes in its list."""
        for name in _NAMES:
            if (lines := self.find(name)) is not None:
                return read_words(lines, wnids)
        if (lines := self.find(_META)) is not None:
            return {synset.wnid: synset.words for synset in read_meta(lines) if synset.wnid in wnids}
        return {}

    def boxes(self, builder: CatalogueBuilder) -> Boxes:
        """The boxes of images in Kaggle's lists, or in ILSVRC's XML files for a part without a list.

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
    """The classes of the flat validation images according to all lists.

    Raises:
        SalpipeError: a list is damaged; the message has file and line.
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
                    lines.fail(line, f"{image} is listed twice with different classes")
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
                    f"{shown(lines.path)} has ids that only {_META} or {_MAP} of the devkit explain; put one of them "
                    "beside it"
                )
        if (lines := lists.find(_CAFFE)) is not None and is_caffe(lines):
            if (synsets := lists.find(_SYNSETS)) is not None:
                self._sources[lines.path] = read_caffe(lines, synsets.path, read_wnids(synsets))
            elif not self._sources:
                self._remedy = f"{shown(lines.path)} has indices that only {_SYNSETS} explains; put it beside it"

    def of(self, number: int, name: str, folder: str) -> str:
        """The WordNet id of a validation image.

        Args:
            number: its number.
            name: name of its file, for messages.
            folder: WordNet id of its folder; empty without one.

        Raises:
            SalpipeError: no list has the image, or two lists contradict each other.
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
        contradiction = ", ".join(f"{wnid} according to {shown(source)}" for source, wnid in answers.items())
        raise SalpipeError(f"{shown(name)}: {contradiction}; remove what is wrong")
