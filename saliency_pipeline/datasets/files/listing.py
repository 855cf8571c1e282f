"""Listing of one folder, without hidden files and those of operating systems."""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from typing import NamedTuple

from saliency_pipeline.datasets.files.errors import folder_errors_explained
from saliency_pipeline.images.keys import UNREAD, ending_of, has_image_suffix
from saliency_pipeline.images.magic import first_bytes, format_of

HIDDEN, SYSTEM = "hidden", "of the operating system"
"""Kinds of skipped entries, besides the suffixes of other files."""

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
"""Plots of the commands, which are no data, and a file that is always beside each."""
_DRAWN = "pictures that salpipe drew"

_TRIED = 32
"""Number of files with one suffix that are opened in a folder before the rest is assumed to be no images either."""


class Listing(NamedTuple):
    """Entries of a folder; names are sorted, so that errors and notes are the same on every machine.

    Attributes:
        folders: names of the folders.
        images: names of files with an image's suffix, or with another or none that begin like an image.
        others: names of other files.
        pipes: names of pipes, sockets and devices.
        skipped: number of other entries, by kind.
        by_content: number of images without an image's suffix, by suffix.
    """

    folders: list[str]
    images: list[str]
    others: list[str]
    pipes: list[str]
    skipped: Counter[str]
    by_content: Counter[str]


def listing(path: str, most: int | None = None) -> Listing:
    """List a folder. Links are followed; a dangling one with an image's name counts as an image.

    Args:
        path: the folder.
        most: largest number of entries; None for all.

    Raises:
        SalpipeError: it is missing or cannot be read.
    """
    result = Listing([], [], [], [], Counter(), Counter())
    unknown: list[str] = []
    with folder_errors_explained(path), os.scandir(path) as entries:
        for entry in islice(entries, most):
            name = entry.name
            if name.startswith("."):
                result.skipped[HIDDEN] += name != _LOCK
            elif _is_folder(entry):
                if name in _SYSTEM_FOLDERS:
                    result.skipped[SYSTEM] += 1
                else:
                    result.folders.append(name)
            elif not _is_file_or_dangling(entry):
                result.pipes.append(name)
            elif has_image_suffix(name):
                result.images.append(name)
            elif name.lower() in _SYSTEM_FILES:
                result.skipped[SYSTEM] += 1
            else:
                unknown.append(name)
    looked = ByContent()
    for name in sorted(unknown):
        if looked.is_image(name, os.path.join(path, name)):
            result.images.append(name)
            result.by_content[ending_of(name)] += 1
        else:
            result.others.append(name)
    if plots := {plot for plot, beside in PLOTS.items() if beside in result.others}.intersection(result.images):
        result.images[:] = [name for name in result.images if name not in plots]
        result.skipped[_DRAWN] += len(plots)
    for names in (result.folders, result.images, result.pipes):
        names.sort()
    return result


class ByContent:
    """Recognizes images without an image's suffix by their first bytes.

    If the first `_TRIED` files with a suffix are none, no more of them are opened: a million lists beside the images
    must not cost a million reads.
    """

    def __init__(self) -> None:
        self._misses: Counter[str] = Counter()

    def is_image(self, name: str, path: str, offset: int = 0) -> bool:
        """True if a file is an image.

        Args:
            name: name of the file; calls must come in the same order on every machine.
            path: the file, or the archive that holds it.
            offset: where in the archive it begins.
        """
        ending = ending_of(name)
        if ending[1:] in UNREAD or name.endswith("~") or self._misses[ending] >= _TRIED:
            return False
        is_image = format_of(first_bytes(path, offset)) is not None
        # after one image, all are opened
        self._misses[ending] += -(2**62) if is_image else 1
        return is_image


def is_hidden(key: str) -> bool:
    """True if a path in an archive is one that `listing` skips.

    >>> is_hidden("val/._x.JPEG"), is_hidden("__MACOSX/x.JPEG"), is_hidden("val/x.JPEG")
    (True, True, False)
    """
    *folders, name = key.split("/")
    return name.startswith(".") or any(part.startswith(".") or part in _SYSTEM_FOLDERS for part in folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file_or_dangling(entry: os.DirEntry[str]) -> bool:
    """False for pipes and sockets, which would block for ever."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True
