"""Output folders: made, locked while a run writes there, and never left through a link that somebody put inside."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from saliency_pipeline.errors import FolderInUseError, SalpipeError
from saliency_pipeline.files import disk_errors_explained, write_atomically
from saliency_pipeline.locks import is_at, try_lock, unlock
from saliency_pipeline.temporaries import remove_stale_temporaries

# how often a lock is taken again that somebody removed before it was locked
_ATTEMPTS = 10


def make_output(folder: Path, file: Path | None = None) -> None:
    """Make an output folder where it is missing, and remove what killed runs left half written in it.

    The folder itself may be a link: its owner chose it.

    Args:
        folder: the folder.
        file: what is to be written there, where messages are to name that.

    Raises:
        SalpipeError: it cannot be made or read.
    """
    check_output(folder, file)
    with disk_errors_explained(file or folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(folder)


def check_output(folder: Path, file: Path | None = None) -> None:
    """Check that nothing stands where an output folder is to be made, before anything long begins.

    Raises:
        SalpipeError: as `make_output`.
    """
    named = file or folder
    with disk_errors_explained(named):
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                target = os.readlink(place)
                raise SalpipeError(
                    f"cannot write {named}: {place} is a dangling link to {target}; choose another output folder"
                )
            if place.exists() and not place.is_dir():
                raise SalpipeError(f"cannot write {named}: {place} is not a folder; choose another output folder")


def make_subfolder(path: Path, *, inside: Path | None = None) -> None:
    """Make a folder inside an output folder where it is missing.

    The output folder itself may be a link, which its owner chose. A link inside it may come from anyone, and what is
    written there would land elsewhere.

    Args:
        path: the folder.
        inside: the output folder, whose other folders above it are made as well; by default the folder above it.

    Raises:
        SalpipeError: it cannot be made, or a link stands in its place.
    """
    inside = path.parent if inside is None else inside
    place = inside
    for name in path.relative_to(inside).parts:
        place /= name
        with disk_errors_explained(place):
            refuse_link(place)
            place.mkdir(exist_ok=True)


def refuse_link(path: Path) -> None:
    """Raise SalpipeError where something inside an output folder is a symbolic link."""
    if path.is_symlink():
        raise SalpipeError(f"{path}: a symbolic link inside the output folder is not followed; remove it")


def open_to_append(path: Path, limit: int) -> int:
    """Open a file of an output folder for reading and appending, made where it is missing; its descriptor.

    A symbolic link is not followed, and one of several hard links is replaced by a copy first: what is appended would
    land in another place as well.

    Args:
        path: the file.
        limit: greatest size in bytes that it may have.

    Raises:
        SalpipeError: it is a link, no regular file or too large, or cannot be opened.
    """
    with disk_errors_explained(path):
        file = _open_regular(path, os.O_APPEND)
        status = os.fstat(file)
        if status.st_size > limit:
            os.close(file)
            raise SalpipeError(f"{path}: larger than {limit:,} bytes; remove it")
        if status.st_nlink > 1:
            with open(file, "rb") as shared:
                data = shared.read()
            write_atomically(path, data)
            file = _open_regular(path, os.O_APPEND)
    return file


def _open_regular(path: Path, flags: int = 0) -> int:
    """Open a regular file to read and write, made where it is missing; nothing else, and no link."""
    try:
        file = os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_link(path)
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise SalpipeError(f"{path}: not a regular file; remove it")
    return file


class FolderLock:
    """Holds the lock of an output folder while the `with` block runs.

    Any number of runs may hold it shared (the slices of one job array); an exclusive holder is alone. The lock is
    the kernel's (`flock` on `<folder>/.lock`, and on the folder itself where that can be locked, so that somebody who
    removes the file lets nobody in): it goes with the process that holds it, however that ends. Where the file system
    has no locks the block runs without one; every file is published atomically all the same.

    Args:
        folder: an existing folder.
        shared: hold it together with other shared holders.
        note: called where the file system has no locks.

    Raises:
        FolderInUseError: on entry, when somebody else holds it.
        SalpipeError: the folder cannot be written, or its `.lock` is a link or no regular file.
    """

    def __init__(self, folder: Path, *, shared: bool = False, note: Callable[[str], None] | None = None) -> None:
        self.folder = Path(folder)
        self.shared = shared
        self.note = note
        self._held: list[int] = []

    def __enter__(self) -> FolderLock:
        path = self.folder / ".lock"
        try:
            with disk_errors_explained(path):
                locked = self._acquire(path)
        except BaseException:
            self._release()
            raise
        if not locked and self.note:
            self.note(f"{self.folder}: this file system has no locks; make sure that no other run is writing there")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _acquire(self, path: Path) -> bool:
        """Whether it could be locked at all."""
        try:
            for _ in range(_ATTEMPTS):
                self._held = [_open_regular(path)]
                if not try_lock(self._held[0], shared=self.shared):
                    return False
                if is_at(self._held[0], path):
                    break
                self._release()  # it was removed before it was locked
            with suppress(PermissionError):  # a folder that may be written to but not listed
                self._held.append(os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                try_lock(self._held[-1], shared=self.shared)
        except BlockingIOError:
            raise FolderInUseError(
                f"{self.folder}: another run is writing there; wait until it ends or choose another folder"
            ) from None
        return True

    def _release(self) -> None:
        while self._held:
            unlock(self._held.pop())
