"""Images in folders and tars that are called by WordNet ids. What they mean to a data set stands in its reader."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from saliency_pipeline.datasets.files.archive import members
from saliency_pipeline.datasets.files.listing import is_hidden, listing
from saliency_pipeline.datasets.files.walk import MemberImages
from saliency_pipeline.datasets.imagenet.synsets import is_wnid
from saliency_pipeline.datasets.notes import Notes
from saliency_pipeline.images.keys import key_part

CLASS_TAR = re.compile(r"(n[0-9]{8})\.tar")
"""The archive of one class, of which ILSVRC2012_img_train.tar holds a thousand."""


class LocatedImage(NamedTuple):
    """An image somewhere: the class its folder or archive is called after, if any, and where its bytes are."""

    wnid: str
    name: str
    path: str
    offset: int = 0
    length: int | None = None

    @property
    def place(self) -> str:
        """Where it is, for notes."""
        return self.path if self.length is None else f"{self.path}: {self.name}"


def in_folder(
    path: str, notes: Notes, *, own: str = "", others: Collection[str] = (), used: Collection[str] = ()
) -> Iterator[LocatedImage]:
    """The images in a folder, in the folders of classes within it, and in tars of classes that lie there.

    Args:
        path: the folder.
        notes: what was passed over.
        own: a folder of this name within it is only its own again, as after unpacking in a folder made for it.
        others: folders within it that somebody else reads.
        used: files within it that somebody else reads. So are XML files, which hold boxes.

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
    """The images in a tar, in the folders of classes within it, and in tars of classes that lie there.

    Args:
        path: the archive.
        notes: what was passed over.
        wnid: the class of images that lie in no folder of one.

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
