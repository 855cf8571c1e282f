"""Walk over all folders of a tree with their images, on disk or in one tar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from saliency_pipeline.datasets.files.archive import Member, members
from saliency_pipeline.datasets.files.errors import folder_errors_explained
from saliency_pipeline.datasets.files.listing import HIDDEN, ByContent, is_hidden, listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.images.keys import ending_of, has_image_suffix, key_part
from saliency_pipeline.images.record import ImageRecord, Split


class Folder(NamedTuple):
    """One folder of a tree.

    Attributes:
        path: its path, or that of the tar.
        parts: its names in the key, from the root down.
        images: names of the images directly in it.
        places: offset and length of each image in a tar.
    """

    path: str
    parts: tuple[str, ...]
    images: list[str]
    places: list[tuple[int, int]] = []  # noqa: RUF012 - a NamedTuple's default, never changed

    def records(self, label: int, split: Split) -> Iterator[ImageRecord]:
        """A record for each of its images."""
        before = "".join(f"{part}/" for part in self.parts)
        if self.places:
            for name, (offset, size) in zip(self.images, self.places, strict=True):
                yield ImageRecord(before + name, self.path, label, split, None, (), offset, size)
        else:
            for name in self.images:
                yield ImageRecord(before + key_part(name), os.path.join(self.path, name), label, split)


def walk(top: str, notes: Notes) -> Iterator[Folder]:
    """All visible folders from the top down with their images, in no particular order.

    A dangling link may have been a folder, and is returned as one without images.

    Raises:
        SalpipeError: a folder cannot be read.
    """
    # A loop is a folder within itself, by device and inode; a folder that is reached on two paths is read twice.
    waiting: list[tuple[str, tuple[str, ...], frozenset[tuple[int, int]]]] = [(top, (), frozenset())]
    while waiting:
        path, parts, above = waiting.pop()
        with folder_errors_explained(path):
            status = os.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in above:
            notes.count("loops of links")
            continue
        within = above | {identity}
        entries = listing(path)
        waiting += [(os.path.join(path, name), (*parts, key_part(name)), within) for name in entries.folders]
        yield Folder(path, parts, entries.images)
        links = {name for name in entries.others if os.path.islink(os.path.join(path, name))}
        dangling = [name for name in entries.others if name in links and not os.path.exists(os.path.join(path, name))]
        notes.listed(entries, dangling)
        for name in dangling:
            yield Folder(os.path.join(path, name), (*parts, key_part(name)), [])


def files_below(top: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Files with one of some suffixes, in lower case, in a folder and below: path, and path in the folder as a key.

    The key has no suffix. Hidden files are skipped, links are followed, and each folder is read once.

    Raises:
        SalpipeError: a folder cannot be read.
    """
    waiting: list[tuple[str, tuple[str, ...]]] = [(top, ())]
    seen: set[tuple[int, int]] = set()
    while waiting:
        path, parts = waiting.pop()
        with folder_errors_explained(path):
            status = os.stat(path)
        if (identity := (status.st_dev, status.st_ino)) in seen:
            continue
        seen.add(identity)
        entries = listing(path)
        waiting += [(os.path.join(path, name), (*parts, key_part(name))) for name in reversed(entries.folders)]
        for name in sorted((*entries.images, *entries.others)):
            start, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes:
                yield os.path.join(path, name), "/".join((*parts, key_part(start)))


def walk_tar(path: str, notes: Notes) -> list[Folder]:
    """The folders in an uncompressed tar with their images, in the order of their first files.

    Raises:
        SalpipeError: it cannot be read, is compressed or is no tar.
    """
    folders: dict[tuple[str, ...], Folder] = {}
    images = MemberImages(path, notes)
    for member in members(path, notes):
        image = images.takes(member)
        *parts, name = member.name.split("/")
        folder = folders.setdefault(tuple(parts), Folder(path, tuple(parts), [], []))
        if image:
            folder.images.append(name)
            folder.places.append((member.offset, member.size))
    return list(folders.values())


class MemberImages:
    """Recognizes the images in an archive; other members are counted."""

    def __init__(self, path: str, notes: Notes) -> None:
        self._path = path
        self._notes = notes
        self._looked = ByContent()

    def takes(self, member: Member) -> bool:
        """True if a member is an image, by its name or its first bytes, and not hidden."""
        if is_hidden(member.name):
            self._notes.count(HIDDEN)
            return False
        if has_image_suffix(member.name):
            return True
        ending = ending_of(name := member.name.rpartition("/")[2])
        if member.size and self._looked.is_image(name, self._path, member.offset):
            self._notes.take({ending: 1})
            return True
        self._notes.count(ending)
        return False
