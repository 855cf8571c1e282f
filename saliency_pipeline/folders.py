"""Output folders: creation, locking, and protection against symbolic links inside them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from saliency_pipeline.errors import FolderInUseError, SalpipeError
from saliency_pipeline.files import disk_errors_explained, write_atomically
from saliency_pipeline.locks import is_at, try_lock, unlock
from saliency_pipeline.temporaries import remove_stale_temporaries

# attempts to lock a file that others remove before it is locked
_ATTEMPTS = 10


def make_output(folder: Path, file: Path | None = None) -> None:
    """Create an output folder if it is missing, and remove the temporary files of killed runs from it.

    Args:
        folder: the folder, which may be a symbolic link chosen by its owner.
        file: the file to be written there, if messages should name it instead of the folder.

    Raises:
        SalpipeError: the folder cannot be created or read.
    """
    check_output(folder, file)
    with disk_errors_explained(file or folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(folder)


def check_output(folder: Path, file: Path | None = None) -> None:
    """Check before a long computation that an output folder can be created; arguments as of `make_output`.

    Raises:
        SalpipeError: a file or a dangling link is in its place.
    """
    target = file or folder
    with disk_errors_explained(target):
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                problem = f"is a dangling link to {os.readlink(place)}"
            elif place.exists() and not place.is_dir():
                problem = "is not a folder"
            else:
                continue
            raise SalpipeError(f"cannot write {target}: {place} {problem}; choose another output folder")


def make_subfolder(path: Path, *, inside: Path | None = None) -> None:
    """Create a folder inside an output folder if it is missing.

    Links inside an output folder are refused: they may come from anyone and lead elsewhere.

    Args:
        path: the folder.
        inside: the output folder; missing folders between the two are created. Defaults to the parent of `path`.

    Raises:
        SalpipeError: the folder cannot be created, or is a symbolic link.
    """
    inside = path.parent if inside is None else inside
    place = inside
    for name in path.relative_to(inside).parts:
        place /= name
        with disk_errors_explained(place):
            refuse_link(place)
            place.mkdir(exist_ok=True)


def refuse_link(path: Path) -> None:
    """Raise SalpipeError if a path inside an output folder is a symbolic link."""
    if path.is_symlink():
        raise SalpipeError(f"{path}: a symbolic link inside the output folder is not followed; remove it")


def open_to_append(path: Path, limit: int) -> int:
    """Open a file of an output folder for reading and appending, and return its descriptor; creates a missing file.

    Symbolic links are not followed. A file with several hard links is replaced by a copy first, so that the other
    ones are not appended to.

    Raises:
        SalpipeError: it is a link, not a regular file or too large, or cannot be opened.
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
    """Open a regular file for reading and writing, or create it; links and anything else are refused."""
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
    """Lock an output folder while a `with` block runs.

    An exclusive lock has one holder, a shared one any number (the parts of a job array). The kernel's `flock` on
    `<folder>/.lock` is used, so that the lock ends with the process; where possible the folder is locked as well, in
    case the file is removed. On file systems without locks the block runs without one, after a note; files are
    still published atomically.

    Raises:
        FolderInUseError: on entry, if another process holds the lock.
        SalpipeError: the folder cannot be written, or its `.lock` is a link or not a regular file.
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

    def __exit__(self, *error: object) -> None:
        self._release()

    def _acquire(self, path: Path) -> bool:
        """Take the lock; return False if the file system has none."""
        try:
            for _ in range(_ATTEMPTS):
                self._held = [_open_regular(path)]
                if not try_lock(self._held[0], shared=self.shared):
                    return False
                if is_at(self._held[0], path):
                    break
                self._release()  # it was removed before it was locked
            with suppress(PermissionError):  # writable but not listable
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
