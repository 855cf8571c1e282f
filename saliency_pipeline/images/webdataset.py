"""Data sets packed as WebDataset shards: tars in which the files of a sample lie side by side. No other tars."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from saliency_pipeline.documents import DocumentError, parse_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.archive import Member, members
from saliency_pipeline.images.folder import SPLIT_FOLDERS, has_class_folders
from saliency_pipeline.images.keys import SUFFIXES, key_part, natural, shown
from saliency_pipeline.images.layout import Layout, ReadOptions
from saliency_pipeline.images.lines import Lines
from saliency_pipeline.images.listing import listing
from saliency_pipeline.images.notes import Notes
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.images.samples import Labels, Original, catalogue, original, split_of

NAME_FILES = ("classnames.txt", "classes.txt")
"""What files beside the shards are called that name a class a line, in label order."""

_MAX_NUMBER_BYTES = 64
_MAX_JSON_BYTES = 2**20
_MAX_NAMES = 2**20
_PEEK = 16

_NUMBER = re.compile(rb"-?[0-9]{1,9}")
_NUMBERED = re.compile(r"(?:.*[-_])?[0-9]+\.tar", re.DOTALL)
_OTHERS = re.compile(r"n[0-9]{8}\.tar|ILSVRC20.*\.tar|\..*", re.DOTALL)
_IMAGENET = re.compile(r"imagenet(?:[-_]?1k)?(?![a-z0-9]|[-_][0-9]+k?[-_])", re.IGNORECASE)


class _Shard(NamedTuple):
    """One tar: its path, what it is called in keys and messages, and the part of the data set it holds."""

    path: str
    name: str
    split: Split


def _recognise(path: Path) -> bool:
    try:
        shards = _shards(path)
        if shards and path.is_dir() and has_class_folders(path):
            return False
    except SalpipeError:
        return False
    # the first that is not damaged tells; `_read` names those that are
    endings = next(filter(None, map(_endings, shards[:_PEEK])), set())
    if endings and endings.isdisjoint(SUFFIXES):
        return False
    # without labels, or damaged, a tar can be anything, but a folder of numbered ones with nothing else cannot
    return not endings.isdisjoint({"cls", "json"}) or (path.is_dir() and bool(shards) and _is_series(path, shards))


def _endings(shard: _Shard) -> set[str]:
    """What the first files in a shard end with; nothing where it is empty or damaged."""
    endings: set[str] = set()
    with suppress(SalpipeError):
        for member in itertools.islice(members(shard.path, Notes()), _PEEK):
            endings.add(member.name.rpartition("/")[2].partition(".")[2].lower())
    return endings


def _is_series(folder: Path, shards: list[_Shard]) -> bool:
    numbered = all(_NUMBERED.fullmatch(os.path.basename(shard.path)) for shard in shards)
    folders, images, _ = listing(str(folder))
    return numbered and not images and all(name.lower() in SPLIT_FOLDERS for name in folders)


def _read(path: Path, options: ReadOptions) -> Catalogue:
    """The images of all shards in a folder and its split folders, or of one."""
    root = os.path.abspath(path)
    notes, labels = Notes(), Labels()
    records: list[ImageRecord] = []
    shards = _shards(Path(root))
    for shard in shards:
        try:
            records.extend(_records(shard, labels, notes))
        except OSError as error:
            raise SalpipeError(f"{shown(shard.path)}: {error.strerror}; make it a file one can read") from None
    if not records:
        missing = "no images in its shards" if shards else "no shards (*.tar)"
        raise SalpipeError(f"{shown(root)}: {missing}; give a folder of WebDataset shards, or one of them")
    imagenet = all(_IMAGENET.match(os.path.basename(shard.path)) for shard in shards)
    classes = labels.classes(*_names(root), imagenet=imagenet)
    return catalogue(root, "webdataset", records, classes, notes)


def _shards(root: Path) -> list[_Shard]:
    """The tars of a data set in natural order, without those that are layouts of their own."""
    found = []
    try:
        folders = [(Split.NONE, "", str(root.parent), [root.name])]
        if not root.is_file():
            names = sorted(os.listdir(root))
            folders = [(Split.NONE, "", str(root), names)]
            folders += [
                (SPLIT_FOLDERS[name.lower()], f"{name}/", str(root / name), os.listdir(root / name))
                for name in names
                if name.lower() in SPLIT_FOLDERS and (root / name).is_dir()
            ]
    except OSError as error:
        raise SalpipeError(f"{shown(root)}: {error.strerror}; make it a folder one can read") from None
    for split, before, folder, names in folders:
        for name in names:
            path = os.path.join(folder, name)
            if name.lower().endswith(".tar") and not _OTHERS.fullmatch(name) and os.path.isfile(path):
                found.append(_Shard(path, before + name, split_of(name, split)))
    return sorted(found, key=lambda shard: natural(shard.name))


def _names(root: str) -> tuple[list[str], str]:
    """The names of classes that lie beside the shards, and the file they stand in."""
    folder = root if os.path.isdir(root) else os.path.dirname(root)
    for path in (os.path.join(folder, name) for name in NAME_FILES):
        if os.path.isfile(path):
            lines, names = Lines(path), list[str]()
            for number, text in lines:
                names.append(text.strip())
                if number > len(names):
                    lines.fail(number - 1, "blank, so it is not clear which class the next names; remove or fill it")
                if number > _MAX_NAMES:
                    lines.fail(number, "too many classes; give the list of this data set")
            return names, path
    return [], ""


def _records(shard: _Shard, labels: Labels, notes: Notes) -> Iterator[ImageRecord]:
    """The images of one shard, with the labels they have there."""
    before = "/".join(key_part(part) for part in shard.name[: -len(".tar")].split("/"))
    unlabelled: list[str] = []
    count = 0
    with open(shard.path, "rb", buffering=0) as file:
        read = partial(os.pread, file.fileno())
        for sample in _samples(members(shard.path, notes, called=shard.name)):
            images = [member for ending, member in sample.items() if ending in SUFFIXES]
            if len(images) != 1:
                for member in images[1:] or list(sample.values())[:1]:
                    reason = "the second image of a sample" if images else "a sample without an image"
                    notes.add(f"{shard.name}: {member.name}", reason)
                if not images:
                    continue
            image = images[0]
            known, number = _facts(read, image, sample, shard.name, notes)
            count += 1
            label = -1
            if number is None:
                unlabelled.append(image.name)
            elif number >= 0:
                label = labels.add(number, known and known.wnid, shard.name, image.name)
            key = known.key if known else f"{before}/{image.name}"
            yield ImageRecord(key, shard.path, label, shard.split, None, (), image.offset, image.size)
    if len(unlabelled) < count:
        for name in unlabelled:
            notes.add(f"{shard.name}: {name}", "a sample without a label")


def _samples(files: Iterator[Member]) -> Iterator[dict[str, Member]]:
    """The files of each sample by what their names end with: their names are the same up to the first dot."""
    sample: dict[str, Member] = {}
    last = ""
    for member in files:
        name = member.name
        base = name.rfind("/") + 1
        dot = name.find(".", base)
        if dot <= base:  # of no kind, or hidden
            continue
        if name[:dot] != last and sample:
            yield sample
            sample = {}
        last = name[:dot]
        sample.setdefault(name[dot + 1 :].lower(), member)
    if sample:
        yield sample


def _facts(
    read: Callable[[int, int], bytes], image: Member, sample: dict[str, Member], shard: str, notes: Notes
) -> tuple[Original | None, int | None]:
    """Which image it is, if one of ILSVRC, and its number of a class, if any; what is too long is not read."""
    known, label = original(image.name), None
    if number := sample.get("cls"):
        text = read(min(number.size, _MAX_NUMBER_BYTES), number.offset).strip()
        if number.size <= _MAX_NUMBER_BYTES and _NUMBER.fullmatch(text):
            label = int(text)
        else:
            notes.add(f"{shard}: {number.name}", "no number of a class")
    described = sample.get("json")
    if described and (label is None or known is None):
        try:
            facts = parse_json(read(described.size, described.offset)) if described.size <= _MAX_JSON_BYTES else None
        except DocumentError:
            facts = None
        if not isinstance(facts, dict):
            notes.add(f"{shard}: {described.name}", "no description in JSON")
            return known, label
        number, name = facts.get("label"), facts.get("filename")
        if label is None and type(number) is int and abs(number) < 10**9:
            label = number
        if known is None and isinstance(name, str):
            known = original(name)
    return known, label


LAYOUTS = (
    Layout("webdataset", "WebDataset shards: *.tar with <key>.jpg and <key>.cls or <key>.json", _recognise, _read),
)
