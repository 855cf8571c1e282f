"""Locks of the kernel on open files. Who needs one, and on which file, is decided elsewhere."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


def try_lock(file: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file (`flock`); the lock goes with the last descriptor of it, however the process ends.

    Args:
        file: its descriptor.
        shared: beside other shared locks, instead of alone.
        wait: until another holder is gone.

    Returns:
        False where the file system has no locks, whatever it answers: NFS and Lustre without their lock service, FUSE,
        sandboxes and SMB each have an error number of their own.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise
        return False
    return True


def unlock(file: int) -> None:
    """Give a lock back and close the file; closing alone would leave it to any child that inherited the descriptor."""
    try:
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        pass  # there was none
    finally:
        os.close(file)


def is_at(file: int, path: Path) -> bool:
    """Whether a path still leads to an open file; not where it was removed or replaced meanwhile."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
