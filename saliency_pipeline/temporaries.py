"""Temporary files that are renamed when complete: names, creation, and removal after killed runs.

The writer holds a lock on the file, so that every container of a machine can see if the writer is alive; process ids
would not do, as each container has its own.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from saliency_pipeline.locks import is_at, try_lock, unlock

ABANDONED = 24 * 3600.0
"""Seconds without a write after which a file counts as abandoned where locks are not reliable."""

# tmp.<host>.<random>.<final name>; version 0.1.0 had <process>.<counter> instead, and held no lock
_NAME = re.compile(r"^tmp\.(?P<host>[A-Za-z0-9-]+)\.(?:[0-9a-f]{16}|(?P<unlocked>[0-9]+\.[0-9]+))\.(?=.)")
# maximum characters of the host's and the final name, so that the name fits 255 bytes
_MAX_HOST, _MAX_NAME = 32, 50
# attempts to create a file that others remove as abandoned before it is locked
_ATTEMPTS = 10


def temporary_name(final: Path) -> Path:
    """Return a unique temporary name in the folder of `final`: `tmp.<host>.<random>.<final name>`."""
    return final.with_name(f"tmp.{_host()}.{secrets.token_hex(8)}.{final.name[:_MAX_NAME]}")


def final_name(path: Path) -> Path:
    """Return the final name of a temporary file; any other path is returned unchanged."""
    return path.with_name(_NAME.sub("", path.name)) if path.name else path


def exclusive(path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
    """Create a file that does not exist and lock it until it is closed; an `opener` for `open`.

    Read and write through this descriptor only: some network file systems refuse others while the file is locked.

    Raises:
        OSError: the file (or a link) exists, or cannot be created.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try_lock(file, wait=True)
        if os.path.lexists(path) or attempt == _ATTEMPTS:
            break
        os.close(file)
    return file


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove abandoned temporary files from a folder, and return them, sorted.

    Locked files stay. So do files written within a day where a missing lock proves nothing: on file systems without
    locks, and for files of other hosts, whose locks some cluster file systems do not show.
    """
    removed = []
    for path in sorted(folder.iterdir()):
        if match := _NAME.match(path.name):
            reliable = match["host"] == _host() and match["unlocked"] is None
            if _remove_if_abandoned(path, lock_is_reliable=reliable):
                removed.append(path)
    return removed


def _remove_if_abandoned(path: Path, *, lock_is_reliable: bool) -> bool:
    """Remove a file if its writer is gone; `lock_is_reliable`: a free lock proves that."""
    # another run may be removing it as well, or it may be another user's
    with suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            written = os.fstat(file).st_mtime
            abandoned = (try_lock(file) and lock_is_reliable) or time.time() - written > ABANDONED
            if abandoned and is_at(file, path):
                path.unlink()
                return True
        finally:
            unlock(file)
    return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:_MAX_HOST] or "localhost"
