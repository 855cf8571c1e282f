"""Kernel locks (`flock`) on open files."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


def try_lock(file: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file; the lock ends with its last descriptor, however the process ends.

    Returns:
        False if the file system has no locks. Every error number counts as that: NFS and Lustre without their lock
        service, FUSE, sandboxes and SMB all raise different ones.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise
        return False
    return True


def unlock(file: int) -> None:
    """Release a lock and close the file; after closing alone, a child with the descriptor would still hold it."""
    try:
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        pass  # there was none
    finally:
        os.close(file)


def is_at(file: int, path: Path) -> bool:
    """Return whether a path still leads to an open file, and was not removed or replaced."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
