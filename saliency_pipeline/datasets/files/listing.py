"""What lies directly in a folder, without what is hidden or the operating system's own. No tree is walked here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import UNREAD, ending_of, has_image_suffix
from saliency_pipeline.images.magic import first_bytes, format_of
from saliency_pipeline.text import shown

HIDDEN, SYSTEM = "hidden", "of the operating system"
"""Kinds of what is passed over besides files of other endings."""

_LOCK = ".lock"  # of `fetch`, in the folder of its images
_SYSTEM_FOLDERS = frozenset({"$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"})
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})

PLOTS = {
    "contact-sheet.png": "gallery.html",
    "confusion.png": "evaluation.json",
    "reliability.png": "evaluation.json",
    "curves.png": "metrics.jsonl",
    "lr-find.png": "lr-find.json",
}
"""Pictures that the commands draw, which are no data, and what lies beside each: results of a single image, for
instance, lie beside it."""
_DRAWN = "pictures that salpipe drew"

_TRIED = 32
"""Files of one ending that are looked into in a folder before the rest are taken to be no images either."""


class Listing(NamedTuple):
    """What lies directly in a folder.

    Names are sorted, so that errors and notes that name the first of them are the same on every machine.

    Attributes:
        folders: names of the folders.
        images: of the files that end like images, or that begin like one and have another ending or none.
        others: of other files.
        pipes: of pipes, sockets and devices.
        skipped: how many entries were passed over that are in none of these, by kind.
        by_content: how many of the images do not end like one, by ending.
    """

    folders: list[str]
    images: list[str]
    others: list[str]
    pipes: list[str]
    skipped: Counter[str]
    by_content: Counter[str]


def listing(path: str, most: int | None = None) -> Listing:
    """What lies in a folder. Links are followed; one to nowhere that is called like an image counts as an image.

    Args:
        path: the folder.
        most: how many entries are looked at, for a glance; all where it is None.

    Raises:
        SalpipeError: it is missing or cannot be read.
    """
    folders: list[str] = []
    images: list[str] = []
    others: list[str] = []
    unknown: list[str] = []
    pipes: list[str] = []
    skipped: Counter[str] = Counter()
    with folder_errors_explained(path), os.scandir(path) as entries:
        for entry in islice(entries, most):
            name = entry.name
            if name.startswith("."):
                skipped[HIDDEN] += name != _LOCK
            elif _is_folder(entry):
                if name in _SYSTEM_FOLDERS:
                    skipped[SYSTEM] += 1
                else:
                    folders.append(name)
            elif not _is_file_or_dangling(entry):
                pipes.append(name)
            elif has_image_suffix(name):
                images.append(name)
            elif name.lower() in _SYSTEM_FILES:
                skipped[SYSTEM] += 1
            else:
                unknown.append(name)
    by_content: Counter[str] = Counter()
    looked = ByContent()
    for name in sorted(unknown):
        if looked.is_image(name, os.path.join(path, name)):
            images.append(name)
            by_content[ending_of(name)] += 1
        else:
            others.append(name)
    if plots := {picture for picture, beside in PLOTS.items() if beside in others}.intersection(images):
        images = [name for name in images if name not in plots]
        skipped[_DRAWN] += len(plots)
    for names in (folders, images, pipes):
        names.sort()
    return Listing(folders, images, others, pipes, skipped, by_content)


class ByContent:
    """Tells images by their first bytes, where names do not end like one.

    Where the first `_TRIED` files of an ending are none, no more of that ending are looked into: a million lists beside
    the images must not cost a million reads.
    """

    def __init__(self) -> None:
        self._misses: Counter[str] = Counter()

    def is_image(self, name: str, path: str, offset: int = 0) -> bool:
        """Whether a file is an image.

        Args:
            name: of the file; has to come in an order that is the same everywhere.
            path: the file, or the archive that holds it.
            offset: where in the archive it begins.
        """
        ending = ending_of(name)
        if ending[1:] in UNREAD or name.endswith("~") or self._misses[ending] >= _TRIED:
            return False
        is_image = format_of(first_bytes(path, offset)) is not None
        # where there is one, all are looked into
        self._misses[ending] += -(2**62) if is_image else 1
        return is_image


def is_hidden(key: str) -> bool:
    """Whether a path in an archive is one that `listing` would not show.

    >>> is_hidden("val/._x.JPEG"), is_hidden("__MACOSX/x.JPEG"), is_hidden("val/x.JPEG")
    (True, True, False)
    """
    *folders, name = key.split("/")
    return name.startswith(".") or any(part.startswith(".") or part in _SYSTEM_FOLDERS for part in folders)


@contextmanager
def folder_errors_explained(path: str) -> Iterator[None]:
    """Turn an OSError met while looking into a folder into one line that names it and the remedy."""
    try:
        yield
    except FileNotFoundError:
        raise SalpipeError(f"{shown(path)}: no such folder; check the path") from None
    except OSError as error:
        raise SalpipeError(f"{shown(path)}: {error.strerror}; check its permissions or move it") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file_or_dangling(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is worth reading: not a pipe or socket, which would block for ever."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True
