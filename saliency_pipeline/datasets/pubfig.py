"""Layouts `pubfig`, `pubfig-kaggle` and `pubfig83`: trees of faces with one folder per person."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.folder import SPLIT_FOLDERS
from saliency_pipeline.datasets.layout import Layout, ReadOptions
from saliency_pipeline.datasets.pubfig_list import ListedFace, is_list, person_name, read_list, read_people
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import class_name, has_image_suffix, key_part, natural
from saliency_pipeline.images.record import Box, Catalogue, ImageRecord, Split
from saliency_pipeline.text import shown

LIST_NAMES, PEOPLE_NAMES = "*_urls*.txt", "*_people*.txt"
"""Patterns of the names of lists and files of people: `dev_urls.txt`, `eval_urls_truncated.txt`, `dev_people.txt`."""

FETCH_LOG = "fetch.jsonl"
"""File that `fetch` writes beside the images."""

_KAGGLE = "CelebDataProcessed"
_PUBFIG83_PEOPLE = 83
_NEEDED = "each person needs a folder of images"
_MANY = 1000
"""Largest number of entries of a folder of people, to recognize other folders without reading all of them."""


class FaceFile(NamedTuple):
    """An image in a tree.

    Attributes:
        person: the folder's name as `person_name` returns it, valid UTF-8.
        name: name of the file, as the operating system spells it.
        path: path of the file.
    """

    person: str
    name: str
    path: str


def files(folder: str | os.PathLike[str], notes: Notes) -> Iterator[FaceFile]:
    """The images of a tree with one folder per person, in natural order of folders and files.

    Raises:
        SalpipeError: a folder cannot be read.
    """
    top = listing(os.path.abspath(folder))
    lists = [name for name in top.others if fnmatch(name, LIST_NAMES) or fnmatch(name, PEOPLE_NAMES)]
    notes.listed(top, [*lists, FETCH_LOG])
    for name in top.images:
        notes.add(name, "an image in nobody's folder")
    for person, path in _people(folder):
        entries = listing(path)
        notes.listed(entries)
        notes.count("folders within those of people", len(entries.folders))
        if not entries.images:
            notes.add(os.path.basename(path), "a folder without images, left out")
        for name in sorted(entries.images, key=natural):
            yield FaceFile(person, name, os.path.join(path, name))


def numbered(folder: str | os.PathLike[str], notes: Notes) -> dict[tuple[str, int], str]:
    """Paths of the images of a tree whose names are numbers, by (person, number).

    Args:
        folder: folder of the people's folders, their words separated by ' ' or '_'.
        notes: receives names that are no numbers, and second files of a number.

    Raises:
        SalpipeError: a folder cannot be read.
    """
    paths: dict[tuple[str, int], str] = {}
    for person, name, path in files(folder, notes):
        stem = name.rpartition(".")[0] or name
        if not (stem.isascii() and stem.isdigit() and len(stem) < 10):
            notes.add(_short(path), "its name is no image number")
        elif paths.setdefault((person, int(stem)), path) != path:
            notes.add(_short(path), "another file has this person's image of this number")
    return paths


def lists_of(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The lists in a folder; if there are none, those in the folder above it."""
    return _beside(Path(folder), LIST_NAMES, is_list)


def _read_pubfig(path: Path, options: ReadOptions) -> Catalogue:
    notes = Notes()
    lists = (options.list,) if options.list else lists_of(path)
    rows = _merged(lists, notes)
    people = {row.person for row in rows.values()}
    if not rows:
        people = {name for each in _beside(path, PEOPLE_NAMES, os.path.isfile) for name in read_people(each)}
    if not people:
        raise SalpipeError(
            f"{shown(path)}: neither dev_urls.txt nor eval_urls.txt nor a list of people in it or above it; put one "
            "there or name it (--list)"
        )
    records = []
    for (person, number), file in numbered(path, notes).items():
        if person not in people:
            notes.add(_short(file), "its folder is nobody's in the list")
        elif rows and (person, number) not in rows:
            notes.add(_short(file), "not in the list")
        else:
            row = rows.get((person, number))
            box = _widened(row.box, options.margin) if row and row.box and options.crop else None
            dot, suffix = os.path.basename(file).rpartition(".")[1:]
            key = f"{person}/{number}" + (f".{suffix}" if dot else "")
            records.append((person, ImageRecord(key, file, box=box)))
    named = "--list makes it layout pubfig, in which " if options.list else ""
    fetch = f"salpipe fetch pubfig --list {shown(lists[0] if lists else 'dev_urls.txt')} -o {shown(path)}"
    return _catalogue(path, records, "pubfig", notes, f"{named}{_NEEDED}, as {fetch} makes them")


def _read_kaggle(path: Path, options: ReadOptions) -> Catalogue:
    notes = Notes()
    images = _plain(path / _KAGGLE if (path / _KAGGLE).is_dir() else path, notes)
    return _catalogue(path, images, "pubfig-kaggle", notes)


def _read_pubfig83(path: Path, options: ReadOptions) -> Catalogue:
    notes = Notes()
    records = []
    splits = _splits(path, notes)
    for folder, split in splits.items():
        records += [(person, replace(record, split=split)) for person, record in _plain(folder, notes)]
    # an image has the same key in both kinds of tree, unless train and test are both numbered from 1
    if len({record.key for _, record in records}) < len(records) and len(splits) > 1:
        top = len(os.fspath(path)) + 1
        records = [(p, replace(r, key=f"{key_part(r.path[top:].partition('/')[0])}/{r.key}")) for p, r in records]
    return _catalogue(path, records, "pubfig83", notes)


def _plain(folder: Path, notes: Notes) -> list[tuple[str, ImageRecord]]:
    return [(person, ImageRecord(f"{person}/{key_part(name)}", path)) for person, name, path in files(folder, notes)]


def _catalogue(
    path: Path, records: Iterable[tuple[str, ImageRecord]], layout: str, notes: Notes, needed: str = _NEEDED
) -> Catalogue:
    """A catalogue of the people who have images; of two images of one key the first is used."""
    first: dict[str, tuple[str, ImageRecord]] = {}
    for person, record in records:
        if first.setdefault(record.key, (person, record))[1] is not record:
            notes.add(_short(record.path), "another folder has this person's image of this name")
    if not first:
        more = f"; {notes.lines()[0]}" if len(notes) else ""
        raise SalpipeError(f"{shown(path)}: no images found; {needed}{more}")
    classes = tuple(sorted({person for person, _ in first.values()}, key=natural))
    labels = {person: label for label, person in enumerate(classes)}
    kept = [replace(record, label=labels[person]) for person, record in first.values()]
    kept.sort(key=lambda record: natural(record.key))
    return Catalogue(
        os.path.abspath(path), kept, classes, layout=layout, notes=notes.lines(), passed_over=notes.passed_over()
    )


def _merged(lists: Sequence[Path], notes: Notes) -> dict[tuple[str, int], ListedFace]:
    """The rows of one list, or of the development and the evaluation list together, by person and number."""
    rows: dict[tuple[str, int], ListedFace] = {}
    for path in lists:
        for row in read_list(path, notes):
            rows.setdefault((row.person, row.number), row)
    return rows


def _widened(box: Box, margin: float) -> Box:
    """A box with a fraction of its width added on the left and right, and of its height above and below."""
    x, y = round(margin * (box[2] - box[0])), round(margin * (box[3] - box[1]))
    return box[0] - x, box[1] - y, box[2] + x, box[3] + y


def _beside(folder: Path, pattern: str, wanted: Callable[[Path], bool]) -> tuple[Path, ...]:
    """The matching files in a folder; if there are none, those in the folder above it."""
    folder = Path(os.path.abspath(folder))
    for place in (folder, folder.parent):
        with suppress(OSError):
            names = sorted(name for name in os.listdir(place) if fnmatch(name, pattern))
            if paths := tuple(place / name for name in names if wanted(place / name)):
                return paths
    return ()


def _people(folder: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Name and path of each visible folder in a folder."""
    top = os.path.abspath(folder)
    names = sorted(listing(top).folders, key=natural)
    return [(person_name(key_part(name)) or class_name(key_part(name)), os.path.join(top, name)) for name in names]


def _splits(path: Path, notes: Notes) -> dict[Path, Split]:
    """The folders of people: those of the splits, or `path` itself."""
    folders = [Path(folder) for _, folder in _people(path)]
    splits = {folder: SPLIT_FOLDERS[folder.name.lower()] for folder in folders if _is_split(folder)}
    if splits:
        parts = " and ".join(folder.name for folder in splits)
        for other in (folder for folder in folders if folder not in splits):
            notes.add(other.name, f"passed over beside {parts}; move the people in it into one of them")
    return splits or {path: Split.NONE}


def _is_split(folder: Path) -> bool:
    """True if a folder has the name of a split, such as train, which is no person's name."""
    return folder.name.lower() in SPLIT_FOLDERS


def _short(path: str) -> str:
    """A file as `<folder>/<name>`."""
    return "/".join(path.rsplit("/", 2)[-2:])


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, if they can be people; empty if there are too many entries."""
    try:
        entries = listing(str(path), _MANY + 1)
    except SalpipeError:
        return []
    return [path / name for name in entries.folders] if sum(map(len, entries[:3])) <= _MANY else []


def _is_pubfig(path: Path) -> bool:
    """True for a folder with a list; a list above it, or a file of people, must name most of its folders."""
    if not (folders := _folders(path)):
        return False
    lists = lists_of(path)
    if any(each.parent == path for each in lists):
        return True
    try:
        people = {row.person for row in _merged(lists, Notes()).values()}
        people.update(name for each in _beside(path, PEOPLE_NAMES, os.path.isfile) for name in read_people(each))
    except SalpipeError:
        return False
    return 2 * sum(person_name(folder.name) in people for folder in folders) > len(folders)


def _is_kaggle(path: Path) -> bool:
    # beside other folders it is just a class
    return path.is_dir() and (path.name == _KAGGLE or [folder.name for folder in _folders(path)] == [_KAGGLE])


def _is_pubfig83(path: Path) -> bool:
    """True by the root's name, or for 83 folders named by mostly two words or more, with images named by numbers."""
    folders = _folders(path)
    if path.name.lower().startswith("pubfig83"):
        return bool(folders)
    if split := next(filter(_is_split, folders), None):
        folders = _folders(split)
    if len(folders) != _PUBFIG83_PEOPLE:
        return False
    if sum(" " in person_name(folder.name) for folder in folders) < 0.9 * _PUBFIG83_PEOPLE:
        return False
    names: list[str] = []
    for folder in folders[:3]:
        with suppress(OSError):
            names += [name for name in os.listdir(folder) if has_image_suffix(name)]
    return bool(names) and all(name.rpartition(".")[0].isdigit() for name in names)


LAYOUTS: tuple[Layout, ...] = (
    Layout("pubfig", "dev_urls.txt or eval_urls.txt, <person>/<imagenum>.jpg", _is_pubfig, _read_pubfig),
    Layout("pubfig-kaggle", "CelebDataProcessed/<person>/<number>.jpg", _is_kaggle, _read_kaggle),
    Layout("pubfig83", "83 folders <person>/<number>.jpg, or those in train and test", _is_pubfig83, _read_pubfig83),
)
