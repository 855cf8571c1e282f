"""Layout `webdataset`: tar shards in which the files of a sample are side by side."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from saliency_pipeline.contents import open_contents
from saliency_pipeline.datasets.files.archive import Member, members
from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.datasets.files.listing import HIDDEN, ByContent, is_hidden, listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.folder import SPLIT_FOLDERS, has_class_folders
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.datasets.samples import NO_NUMBER, Labels, Original, catalogue, original, split_of
from saliency_pipeline.documents import DocumentError, parse_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import NO_ENDING, SUFFIXES, ending_of, key_part, natural
from saliency_pipeline.images.magic import first_bytes, format_of
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

NAME_FILES = ("classnames.txt", "classes.txt")
"""Names of files beside the shards with one class per line, in label order."""

_MAX_NUMBER_BYTES = 64
_MAX_JSON_BYTES = 2**20
_MAX_NAMES = 2**20
_PEEK = 16
_LABELS = frozenset({"cls", "json"})

_DOTS = "keys have dots: they end at the last dot of a file name here, and at the first in WebDataset itself"
_PART = "a picture that its dots make a part of a sample; one with dots in its key needs a .cls or .json of its own"

_NUMBER = re.compile(rb"-?[0-9]{1,9}")
_NUMBERED = re.compile(r"(?:.*[-_])?[0-9]+\.tar", re.DOTALL)
_OTHERS = re.compile(r"n[0-9]{8}\.tar|ILSVRC20.*\.tar|\..*", re.DOTALL)
_IMAGENET = re.compile(r"imagenet(?:[-_]?1k)?(?![a-z0-9]|[-_][0-9]+k?[-_])", re.IGNORECASE)


class _Shard(NamedTuple):
    """One tar: its path, its name in keys and messages, and its split."""

    path: str
    name: str
    split: Split


def _recognize(path: Path) -> bool:
    try:
        shards = _shards(path)
        if shards and path.is_dir() and has_class_folders(path):
            return False
    except SalpipeError:
        return False
    # the first intact one decides; `_read` reports damaged ones
    endings = next(filter(None, map(_endings, shards[:_PEEK])), set())
    if endings and endings.isdisjoint(SUFFIXES):
        return False
    # a tar without labels, or a damaged one, can be anything, but a folder of nothing but numbered ones is a data set
    return not endings.isdisjoint(_LABELS) or (path.is_dir() and bool(shards) and _is_series(path, shards))


def _endings(shard: _Shard) -> set[str]:
    """Suffixes of the first files in a shard, "jpg" for images with another; empty if it is empty or damaged."""
    endings: set[str] = set()
    with suppress(SalpipeError):
        for member in itertools.islice(members(shard.path, Notes()), _PEEK):
            ending = member.name.rpartition("/")[2].rpartition(".")[2].lower()
            named = ending in SUFFIXES or ending in _LABELS
            endings.add(ending if named or not format_of(first_bytes(shard.path, member.offset)) else "jpg")
    return endings


def _is_series(folder: Path, shards: list[_Shard]) -> bool:
    numbered = all(_NUMBERED.fullmatch(os.path.basename(shard.path)) for shard in shards)
    folders, images, *_ = listing(str(folder))
    return numbered and not images and all(name.lower() in SPLIT_FOLDERS for name in folders)


def _read(path: Path, options: ReadOptions) -> Catalogue:
    """The images of all shards in a folder and its split folders, or of one."""
    root = os.path.abspath(path)
    notes, labels = Notes(), Labels()
    records: list[ImageRecord] = []
    shards = _shards(Path(root))
    for shard in shards:
        with file_errors_explained(shard.path):
            records.extend(_records(shard, labels, notes))
    if not records:
        missing = f"no images in its shards{notes.cause()}" if shards else "no shards (*.tar)"
        raise SalpipeError(f"{shown(root)}: {missing}; give a folder of WebDataset shards, or one of them")
    used = {shard.path for shard in shards} | {os.path.join(root, name) for name in NAME_FILES}
    imagenet = all(_IMAGENET.match(os.path.basename(shard.path)) for shard in shards)
    classes = labels.classes(*_names(root), imagenet=imagenet)
    return catalogue(root, "webdataset", records, labels, classes, used, notes)


def _shards(root: Path) -> list[_Shard]:
    """The tars of a data set in natural order, without those of other layouts."""
    shards = []
    with file_errors_explained(str(root)):
        is_file = root.is_file()
        folders = [(Split.NONE, "", str(root.parent), [root.name])]
        if not is_file:
            names = sorted(os.listdir(root))
            folders = [(Split.NONE, "", str(root), names)]
            folders += [
                (SPLIT_FOLDERS[name.lower()], f"{name}/", str(root / name), os.listdir(root / name))
                for name in names
                if name.lower() in SPLIT_FOLDERS and (root / name).is_dir()
            ]
    for split, before, folder, names in folders:
        for name in names:
            path = os.path.join(folder, name)
            # a single file is tried whatever its name: `members` reports what is wrong with it
            if not _OTHERS.fullmatch(name) and (is_file or name.lower().endswith(".tar")):
                shards.append(_Shard(path, before + name, split_of(name, split)))
    return sorted(shards, key=lambda shard: natural(shard.name))


def _names(root: str) -> tuple[list[str], str]:
    """The names of classes in a file beside the shards, and its path."""
    folder = root if os.path.isdir(root) else os.path.dirname(root)
    for path in (os.path.join(folder, name) for name in NAME_FILES):
        if os.path.isfile(path):
            lines, names = Lines(path), list[str]()
            for number, text in lines:
                names.append(text.strip())
                if number > len(names):
                    lines.fail(number - 1, "blank, so that the classes of the next lines are ambiguous; remove it")
                if number > _MAX_NAMES:
                    lines.fail(number, "too many classes; give the list of this data set")
            return names, path
    return [], ""


def _records(shard: _Shard, labels: Labels, notes: Notes) -> Iterator[ImageRecord]:
    """The images of one shard with its labels."""
    name = shard.name[: -len(".tar")] if shard.name.lower().endswith(".tar") else shard.name
    before = "/".join(key_part(part) for part in name.split("/"))
    looked = ByContent()
    unlabeled: list[str] = []
    count = 0
    with open_contents(shard.path) as file:
        for sample in _samples(members(shard.path, notes, called=shard.name), shard.name, notes):
            images = [member for ending, member in sample.items() if ending in SUFFIXES]
            rest = [member for ending, member in sample.items() if ending not in SUFFIXES and ending not in _LABELS]
            if not images:
                images = [each for each in rest if each.size and looked.is_image(each.name, shard.path, each.offset)]
                notes.take(Counter(ending_of(member.name) for member in images))
            for member in rest:
                if member not in images:
                    notes.count(ending_of(member.name))
            for member in images[1:]:
                notes.add(f"{shard.name}: {member.name}", "the second image of a sample")
            if not images:
                labels_there = [member for ending, member in sample.items() if ending in _LABELS]
                if named := labels_there or [member for member in rest if ending_of(member.name) != NO_ENDING]:
                    notes.add(f"{shard.name}: {named[0].name}", "a sample without an image")
                continue
            image = images[0]
            of_ilsvrc, number = _facts(file.read, image, sample, shard.name, labels, notes)
            count += 1
            label = -1
            if number is None:
                unlabeled.append(image.name)
            else:
                label = labels.add(number, of_ilsvrc and of_ilsvrc.wnid, shard.name, image.name, shard.split)
            key = of_ilsvrc.key if of_ilsvrc else f"{before}/{image.name}"
            yield ImageRecord(key, shard.path, label, shard.split, None, (), image.offset, image.size)
    if len(unlabeled) < count:
        for name in unlabeled:
            notes.remark(f"{shard.name}: {name}", "a sample without a label")


def _samples(files: Iterator[Member], shard: str, notes: Notes) -> Iterator[dict[str, Member]]:
    """The files of each sample by suffix: their names are the same up to the first dot.

    If that leaves a sample without an image of its own, since keys have dots, they are the same up to the last dot.
    """
    waiting: list[dict[str, Member]] = []
    dots = False
    usual = False  # True once a sample has an image named by its key and .jpg or the like
    for _, together in itertools.groupby(_visible(files, notes), key=_first_dot):
        sample: dict[str, Member] = {}
        dotted: dict[str, dict[str, Member]] = {}
        for member in together:
            tail = member.name[len(_first_dot(member)) + 1 :]
            key, _, ending = tail.rpartition(".")
            there = dotted.setdefault(key, {}) if key else sample
            if there.setdefault(ending.lower(), member) is not member:
                notes.add(f"{shard}: {member.name}", "the second file of a sample with this ending")
        usual = usual or not SUFFIXES.isdisjoint(sample)
        if dotted:
            own = _own_samples(sample, dotted, shard, notes)
            waiting += [files for files in own if _LABELS.isdisjoint(files)]
            own = [files for files in own if not _LABELS.isdisjoint(files)]
            dots = dots or bool(own)
            yield from own
        if sample:
            yield sample
    if dots or (waiting and not usual):
        notes.remark(shard, _DOTS)
    if not usual:
        yield from waiting
    for files_of in waiting if usual else ():
        notes.add(f"{shard}: {next(iter(files_of.values())).name}", _PART)


def _visible(files: Iterator[Member], notes: Notes) -> Iterator[Member]:
    for member in files:
        if is_hidden(member.name):
            notes.count(HIDDEN)
        else:
            yield member


def _first_dot(member: Member) -> str:
    """The name of a member up to the first dot of its last part."""
    name = member.name
    dot = name.find(".", name.rfind("/") + 1)
    return name if dot < 0 else name[:dot]


def _own_samples(
    sample: dict[str, Member], dotted: dict[str, dict[str, Member]], shard: str, notes: Notes
) -> list[dict[str, Member]]:
    """The samples among files whose names are the same up to the first dot, and have more dots.

    1.left.jpg beside 1.cls is a part of the sample 1; 1.5.jpg beside 1.5.cls, or without 1.cls, is one itself. One
    image and one label named 1.image.jpg and 1.label.cls are the sample 1.

    Args:
        sample: files with one dot by suffix; receives its image if that is one of the others.
        dotted: the others, by the text between the first dot and the last, and by suffix.
        shard: name of the shard, for notes.
        notes: receives what is skipped.
    """
    own, images = [], []
    if not sample and len(dotted) > 1:
        each = [(ending, member) for files in dotted.values() for ending, member in files.items()]
        endings = Counter(ending for ending, _ in each)
        labels = [endings[ending] for ending in _LABELS if ending in endings]
        if max(labels, default=0) == 1 == sum(endings[ending] for ending in SUFFIXES):
            for ending, member in each:
                if sample.setdefault(ending, member) is not member:
                    notes.count(ending_of(member.name))
            return []
    for files in dotted.values():
        pictures = [(ending, member) for ending, member in files.items() if ending in SUFFIXES]
        if not sample or (pictures and not _LABELS.isdisjoint(files)):
            own.append(files)
            continue
        images += pictures
        for ending, member in files.items():
            if ending not in SUFFIXES:
                notes.count(ending_of(member.name))
    if len(images) == 1 and SUFFIXES.isdisjoint(sample):
        sample.update(images)
    else:
        for _, member in images:
            notes.add(f"{shard}: {member.name}", _PART)
    return own


def _facts(
    read: Callable[[int, int], bytes],
    image: Member,
    sample: dict[str, Member],
    shard: str,
    labels: Labels,
    notes: Notes,
) -> tuple[Original | None, int | None]:
    """The image of ILSVRC, if it is one, and its label, if any; too long files are not read."""
    of_ilsvrc, label = original(image.name), None
    if number := sample.get("cls"):
        text = read(min(number.size, _MAX_NUMBER_BYTES), number.offset).strip()
        if number.size <= _MAX_NUMBER_BYTES and _NUMBER.fullmatch(text):
            label = int(text)
        else:
            notes.remark(f"{shard}: {number.name}", "no number of a class")
    described = sample.get("json")
    if described and (label is None or of_ilsvrc is None):
        try:
            facts = parse_json(read(described.size, described.offset)) if described.size <= _MAX_JSON_BYTES else None
        except DocumentError:
            facts = None
        if not isinstance(facts, dict):
            notes.remark(f"{shard}: {described.name}", "no description in JSON")
            return of_ilsvrc, label
        number, name = facts.get("label"), facts.get("filename")
        if label is None and type(number) is int and abs(number) < 10**9:
            label = number
        elif label is None and number is not None:
            labels.unusable(NO_NUMBER, shard, described.name)
        if of_ilsvrc is None and isinstance(name, str):
            of_ilsvrc = original(name)
    return of_ilsvrc, label


LAYOUTS = (
    Layout("webdataset", "WebDataset shards: *.tar with <key>.jpg and <key>.cls or <key>.json", _recognize, _read),
)
