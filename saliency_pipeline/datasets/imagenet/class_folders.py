"""Images in folders and tars that are named by WordNet ids."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from saliency_pipeline.datasets.files.archive import members
from saliency_pipeline.datasets.files.listing import is_hidden, listing
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.files.walk import MemberImages
from saliency_pipeline.datasets.imagenet.synsets import is_wnid
from saliency_pipeline.images.keys import key_part

CLASS_TAR = re.compile(r"(n[0-9]{8})\.tar")
"""Name of the archive of one class; ILSVRC2012_img_train.tar contains a thousand."""


class LocatedImage(NamedTuple):
    """An image: the class of its folder or archive, if any, and the location of its bytes."""

    wnid: str
    name: str
    path: str
    offset: int = 0
    length: int | None = None

    @property
    def place(self) -> str:
        """Its path, for notes."""
        return self.path if self.length is None else f"{self.path}: {self.name}"


def in_folder(
    path: str, notes: Notes, *, own: str = "", others: Collection[str] = (), used: Collection[str] = ()
) -> Iterator[LocatedImage]:
    """The images in a folder, in the folders of classes within it, and in tars of classes there.

    Args:
        path: the folder.
        notes: receives what is skipped.
        own: name of a folder within it that stands for it, as after unpacking an archive in a folder of its name.
        others: folders within it that have another reader.
        used: files within it that have another reader, as XML files with boxes always have.

    Raises:
        SalpipeError: a folder or tar cannot be read.
    """
    there = listing(path)
    tars = {name: match[1] for name in there.others if (match := CLASS_TAR.fullmatch(name))}
    notes.listed(there, {*used, *tars, *(name for name in there.others if name.endswith(".xml"))})
    for name in there.images:
        yield LocatedImage("", key_part(name), os.path.join(path, name))
    for name in there.folders:
        below = os.path.join(path, name)
        if is_wnid(name):
            entries = listing(below)
            notes.listed(entries, [name for name in entries.others if name.endswith(".xml")])
            notes.count("folders within classes", len(entries.folders))
            if not entries.images:
                notes.add(below, "a folder without images, left out")
            for image in entries.images:
                yield LocatedImage(name, key_part(image), f"{below}/{image}")
        elif name == own:
            yield from in_folder(below, notes)
        elif name not in others:
            notes.add(below, "a folder of no class such as n01440764")
    for name, wnid in tars.items():
        if wnid in there.folders:
            notes.add(os.path.join(path, name), "not read, since a folder has its name")
        else:
            yield from in_tar(os.path.join(path, name), notes, wnid)


def in_tar(path: str, notes: Notes, wnid: str = "") -> Iterator[LocatedImage]:
    """The images in a tar, in the folders of classes within it, and in tars of classes there.

    Args:
        path: the archive.
        notes: receives what is skipped.
        wnid: the class of images outside folders of classes.

    Raises:
        SalpipeError: the archive cannot be read.
    """
    images = MemberImages(path, notes)
    for member in members(path, notes):
        name, offset, length = member
        above, _, base = name.rpartition("/")
        if (match := CLASS_TAR.fullmatch(base)) and not is_hidden(name):
            called = f"{os.path.basename(path)}: {name}"
            for inner in members(path, notes, start=offset, length=length, called=called):
                if images.takes(inner):
                    yield LocatedImage(match[1], inner.name.rpartition("/")[2], path, inner.offset, inner.size)
        elif images.takes(member):
            folder = above.rpartition("/")[2]
            yield LocatedImage(folder if is_wnid(folder) else wnid, base, path, offset, length)
