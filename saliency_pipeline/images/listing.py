"""What lies directly in a folder, without what is hidden or the operating system's own. No tree is walked here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.keys import has_image_suffix, shown

_SYSTEM_FOLDERS = frozenset({"$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"})


class Listing(NamedTuple):
    """Names of the folders, of the files called like images, and of other files.

    They are sorted, so that errors and notes that name the first of them are the same on every machine.
    """

    folders: list[str]
    images: list[str]
    others: list[str]


def listing(path: str, most: int | None = None) -> Listing:
    """What lies in a folder. Links are followed; one to nowhere that is called like an image counts as an image.

    Args:
        path: the folder.
        most: how many entries are looked at, for a glance; all where it is None.

    Raises:
        SalpipeError: it is missing or cannot be read.
    """
    found = Listing([], [], [])
    with folder_errors_explained(path), os.scandir(path) as entries:
        for entry in islice(entries, most):
            name = entry.name
            if name.startswith("."):
                continue
            if _is_folder(entry):
                if name not in _SYSTEM_FOLDERS:
                    found.folders.append(name)
            elif not has_image_suffix(name):
                found.others.append(name)
            elif _is_file_or_dangling(entry):
                found.images.append(name)
    for names in found:
        names.sort()
    return found


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
        raise SalpipeError(f"{shown(path)}: {error.strerror}; make it a folder one can read, or move it") from None


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
