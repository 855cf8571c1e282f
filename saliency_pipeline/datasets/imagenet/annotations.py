"""Readers of the lists that come with ImageNet's images, one per format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.datasets.imagenet import matlab
from saliency_pipeline.datasets.imagenet.synsets import is_wnid
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Box
from saliency_pipeline.text import shown

Boxes = dict[str, tuple[Box, ...]]
"""Boxes of objects of an image's class, by the image's file name without suffix."""

_VALIDATION = re.compile(r"ILSVRC2012_val_([0-9]{8})(?:\.[A-Za-z]+)?")
_CAFFE_LINE = re.compile(r"(?:\S*/)?(ILSVRC2012_val_[0-9]{8}\.[A-Za-z]+)\s+([0-9]{1,6})")
_NUMBER = re.compile(r"[0-9]{1,6}")
_COORDINATE = re.compile(r"-?[0-9]{1,6}")


def validation_number(name: str) -> int | None:
    """The number of a validation image of ILSVRC 2012 by its file name; None for other names.

    >>> validation_number("ILSVRC2012_val_00000293.JPEG"), validation_number("n01440764_293.JPEG")
    (293, None)
    """
    match = _VALIDATION.fullmatch(name)
    return int(match[1]) if match else None


class Synset(NamedTuple):
    """A class in the devkit: its ILSVRC2012_ID from 1, WordNet id and synonyms."""

    number: int
    wnid: str
    words: str


def read_meta(lines: Lines) -> list[Synset]:
    """The classes in the devkit's meta.mat: synsets without children; the others are their ancestors."""
    try:
        rows = matlab.structures(lines.read(matlab.MAX_BYTES), "synsets")
        leaves = [
            Synset(int(str(row["ILSVRC2012_ID"])), str(row["WNID"]).strip(), str(row.get("words") or ""))
            for row in rows
            if row["num_children"] == 0
        ]
        valid = all(is_wnid(leaf.wnid) for leaf in leaves) and len({leaf.number for leaf in leaves}) == len(leaves)
    except (ValueError, KeyError):
        valid = False
    if not valid:
        raise SalpipeError(f"{shown(lines.path)}: not the meta.mat of ILSVRC 2012, or damaged; unpack the devkit again")
    return leaves


def read_map(lines: Lines) -> dict[int, str]:
    """The devkit's map_clsloc.txt: `n02119789 1 kit_fox`, where 1 is the ILSVRC2012_ID."""
    wnids: dict[int, str] = {}
    for number, text in lines:
        wnid, _, rest = text.partition(" ")
        key = rest.partition(" ")[0]
        if not is_wnid(wnid) or not _NUMBER.fullmatch(key):
            lines.fail(number, "not like 'n02119789 1 kit_fox'")
        if int(key) in wnids:
            lines.fail(number, f"id {key} is also that of {wnids[int(key)]}")
        wnids[int(key)] = wnid
    return wnids


def read_ground_truth(lines: Lines, explained: str, wnids: dict[int, str]) -> dict[int, str]:
    """WordNet ids by image number: line i has the ILSVRC2012_ID of image i, in the devkit's order, not WordNet's."""
    truth = {}
    for number, text in lines:
        text = text.strip()
        wnid = wnids.get(int(text)) if _NUMBER.fullmatch(text) else None
        if wnid is None:
            lines.fail(number, f"{shown(text[:40])} is no id that {shown(os.path.basename(explained))} explains")
        truth[number] = wnid
    return truth


def is_caffe(lines: Lines) -> bool:
    """True if a list named val.txt is Caffe's."""
    try:
        return any(_CAFFE_LINE.fullmatch(text) for _, text in islice(lines, 1))
    except SalpipeError:
        return False


def read_caffe(lines: Lines, explained: str, wnids: Sequence[str]) -> dict[int, str]:
    """Caffe's val.txt: `ILSVRC2012_val_00000001.JPEG 65`, where 65 counts the lines of synsets.txt from 0."""
    truth: dict[int, str] = {}
    for number, text in lines:
        match = _CAFFE_LINE.fullmatch(text)
        if match is None:
            lines.fail(number, "not like 'ILSVRC2012_val_00000001.JPEG 65'")
        if int(match[2]) >= len(wnids):
            lines.fail(number, f"no line {int(match[2]) + 1} in {shown(os.path.basename(explained))}")
        image = validation_number(match[1])
        assert image is not None
        if truth.setdefault(image, wnids[int(match[2])]) != wnids[int(match[2])]:
            lines.fail(number, f"{match[1]} is listed twice with different classes")
    return truth


def read_solution(lines: Lines) -> Iterator[tuple[int, str, str, tuple[Box, ...]]]:
    """Kaggle's LOC_train_solution.csv and LOC_val_solution.csv: `ILSVRC2012_val_00048981,n03995372 85 1 499 272 `.

    There may be several groups of five; corners are inclusive, and some are swapped.

    Yields:
        Line, image, WordNet id and boxes of the image's class with exclusive second corners.
    """
    numbers: dict[str, int] = {}  # half a million boxes share few of them
    for line, row in lines.rows("ImageId", "PredictionString"):
        image, words = row["ImageId"].strip(), row["PredictionString"].split()
        wnid = image.partition("_")[0]
        if not is_wnid(wnid):
            wnid = words[0] if words else ""
            if any(word != wnid for word in words[::5]):
                lines.fail(line, "boxes of several classes; an image has one")
        if not is_wnid(wnid) or len(words) % 5:
            lines.fail(line, "not like 'ILSVRC2012_val_00048981,n03995372 85 1 499 272'")
        boxes = []
        for at in range(0, len(words), 5):
            if words[at] == wnid:
                boxes.append(_box(lines, line, words[at + 1 : at + 5], numbers))
        yield line, image, wnid, tuple(boxes)


def read_boxes(lines: Lines, *, labeled: bool) -> Iterator[tuple[str, str, Box]]:
    """Tiny-ImageNet's lists: file, WordNet id if `labeled`, and a box with inclusive corners, separated by tabs.

    Yields:
        Name, WordNet id or the empty string, and the box with an exclusive second corner.
    """
    numbers: dict[str, int] = {}
    for number, text in lines:
        name, *cells = text.split("\t")
        wnid = cells.pop(0) if labeled and cells else ""
        if labeled and not is_wnid(wnid):
            lines.fail(number, "not a file's name, a WordNet id and four corners, with tabs between them")
        yield name, wnid, _box(lines, number, cells, numbers)


def _box(lines: Lines, line: int, corners: Sequence[str], numbers: dict[str, int]) -> Box:
    if (box := box_of(corners, numbers)) is None:
        lines.fail(line, f"{shown(' '.join(corners)[:40])} are not the four corners of a box in whole pixels")
    return box


def box_of(corners: Sequence[str], numbers: dict[str, int]) -> Box | None:
    """A box from the texts of its inclusive corners; None if they are not whole pixels.

    Args:
        corners: x and y of a corner and of the opposite one, in any order.
        numbers: cache of numbers by text, so that boxes share them.

    >>> box_of(["499", "272", "85", "1"], {})
    (85, 1, 500, 273)
    """
    if len(corners) != 4 or not all(text in numbers or _COORDINATE.fullmatch(text) for text in corners):
        return None
    x0, y0, x1, y1 = (numbers.get(text) or numbers.setdefault(text, int(text)) for text in corners)
    left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    return left, top, right + 1, bottom + 1
