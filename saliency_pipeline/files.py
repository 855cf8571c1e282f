"""Atomic, durable writing of files: a file is either complete or absent."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.temporaries import exclusive, final_name, temporary_name

# the kernel's internal number of "not supported", which NFS and Lustre pass on
_ENOTSUPP = 524
# errors of file systems that cannot sync (folders, or anything): FUSE, SMB, 9p, sandboxes
_CANNOT_SYNC = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EACCES,
    errno.EBADF,
    errno.EISDIR,
    errno.ENOTTY,
    _ENOTSUPP,
}


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing into a SalpipeError that names the file and the remedy.

    Args:
        path: the file; of a temporary file, messages name the final one.

    Raises:
        SalpipeError: the disk is full, a quota or size limit is reached, or the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        path = final_name(path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"disk full while writing {path}; free space and run the same command again"
        elif error.errno == errno.EFBIG:
            limit = "raise it (ulimit -f) and run the same command again"
            message = f"file size limit reached while writing {path}; {limit}"
        else:
            # HDF5's messages have several lines; the first one states the cause
            reason = (error.strerror or str(error)).partition("\n")[0].strip()
            message = f"cannot write {path}: {reason}; put that right and run the same command again"
        raise SalpipeError(message) from error


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; reads in chunks."""
    with open(path, "rb", opener=open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(tmp: Path, final: Path, *, file: int | None = None) -> str:
    """Sync a complete file and rename it to its final name; it then survives a crash of the machine.

    Args:
        tmp: the written file, in the same folder as `final`.
        final: the final name; an existing file is replaced.
        file: the writer's descriptor with the lock, if it is still open; it stays open.

    Returns:
        SHA-256 of the file as 64 hexadecimal digits.

    Raises:
        SalpipeError: the disk is full or cannot be written; `tmp` has been removed.
    """
    with disk_errors_explained(final):
        try:
            with open(tmp if file is None else file, "rb", closefd=file is None) as written:
                written.seek(0)
                sync(written.fileno())
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            os.replace(tmp, final)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        _sync_folder(final.parent)
    return digest


def write_atomically(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write a file (text as UTF-8) that after a crash at any moment is the old one or the new one.

    Args:
        path: the file.
        data: its content.
        durable: sync it, so that this holds for a crash of the machine, too; otherwise the caller syncs many at once.

    Raises:
        SalpipeError: the disk is full or cannot be written; the old file, if any, is untouched.
    """
    _write(path, data, os.replace, durable=durable)


def write_if_absent(path: Path, data: bytes | str) -> None:
    """Write a file as `write_atomically` does, unless it already exists, also if created at the same time.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """

    def link(tmp: Path, path: Path) -> None:
        try:
            os.link(tmp, path)  # unlike a rename it never replaces a file
        except OSError:  # the file exists, or the file system has no links
            if not path.exists():
                os.replace(tmp, path)

    _write(path, data, link)


def _write(path: Path, data: bytes | str, move: Callable[[Path, Path], None], *, durable: bool = True) -> None:
    tmp = temporary_name(path)
    with disk_errors_explained(path):
        try:
            with open(tmp, "xb", opener=exclusive) as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                if durable:
                    sync(file.fileno())
                move(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
        if durable:
            _sync_folder(path.parent)


def sync(file: int) -> None:
    """Sync an open file to disk where the file system supports that.

    Raises:
        OSError: the disk failed or is full.
    """
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _sync_folder(folder: Path) -> None:
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # writable but not listable
    try:
        sync(file)
    finally:
        os.close(file)
