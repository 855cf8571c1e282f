"""Images in folders and tars that are called by WordNet ids. What they mean to a data set stands in its reader."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from saliency_pipeline.images.archive import members
from saliency_pipeline.images.keys import has_image_suffix, key_part
from saliency_pipeline.images.listing import is_hidden, listing
from saliency_pipeline.images.notes import Notes
from saliency_pipeline.images.synsets import is_wnid

CLASS_TAR = re.compile(r"(n[0-9]{8})\.tar")
"""The archive of one class, of which ILSVRC2012_img_train.tar holds a thousand."""


class Found(NamedTuple):
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


def in_folder(path: str, notes: Notes, *, own: str = "", others: Collection[str] = ()) -> Iterator[Found]:
    """The images in a folder, in the folders of classes within it, and in tars of classes that lie there.

    Args:
        path: the folder.
        notes: what was passed over.
        own: a folder of this name within it is only its own again, as after unpacking in a folder made for it.
        others: folders within it that somebody else reads.

    Raises:
        SalpipeError: a folder or tar cannot be read.
    """
    folders, images, files = listing(path)
    for name in images:
        yield Found("", key_part(name), os.path.join(path, name))
    for name in folders:
        below = os.path.join(path, name)
        if is_wnid(name):
            if not (found := listing(below).images):
                notes.add(below, "a folder without images, left out")
            for image in found:
                yield Found(name, key_part(image), f"{below}/{image}")
        elif name == own:
            yield from in_folder(below, notes)
        elif name not in others:
            notes.add(below, "a folder of no class such as n01440764")
    for name in files:
        if match := CLASS_TAR.fullmatch(name):
            if match[1] in folders:
                notes.add(os.path.join(path, name), "not read, since a folder has its name")
            else:
                yield from in_tar(os.path.join(path, name), notes, match[1])


def in_tar(path: str, notes: Notes, wnid: str = "") -> Iterator[Found]:
    """The images in a tar, in the folders of classes within it, and in tars of classes that lie there.

    Args:
        path: the archive.
        notes: what was passed over.
        wnid: the class of images that lie in no folder of one.

    Raises:
        SalpipeError: the archive cannot be read.
    """
    for name, offset, length in members(path, notes):
        if is_hidden(name):
            continue
        above, _, base = name.rpartition("/")
        if match := CLASS_TAR.fullmatch(base):
            called = f"{os.path.basename(path)}: {name}"
            for inner in members(path, notes, start=offset, length=length, called=called):
                if has_image_suffix(inner.name) and not is_hidden(inner.name):
                    yield Found(match[1], inner.name.rpartition("/")[2], path, inner.offset, inner.size)
        elif has_image_suffix(base):
            folder = above.rpartition("/")[2]
            yield Found(folder if is_wnid(folder) else wnid, base, path, offset, length)
