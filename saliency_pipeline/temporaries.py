"""Temporary files, in which other files are written until they are whole: names, creation, and what the dead left.

Whoever writes one holds a lock on it. So it is known in every container of a machine whether its writer is alive;
process ids would not tell, as each container has its own.
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
"""Seconds without a write after which a file whose lock says nothing counts as a dead writer's."""

# tmp.<host>.<random>.<final name>; version 0.1.0 had <process>.<counter> instead, and held no lock
_NAME = re.compile(r"^tmp\.(?P<host>[A-Za-z0-9-]+)\.(?:[0-9a-f]{16}|(?P<unlocked>[0-9]+\.[0-9]+))\.(?=.)")
# characters of the host's and the final name, so that the whole fits the 255 bytes of a name
_OF_HOST, _OF_NAME = 32, 50
# how often a file is made again that somebody who cleaned up took for a dead writer's before it was locked
_ATTEMPTS = 10


def temporary_name(final: Path) -> Path:
    """A name of its own beside `final`, `tmp.<host>.<random>.<final name>`, for what becomes it when it is whole."""
    return final.with_name(f"tmp.{_host()}.{secrets.token_hex(8)}.{final.name[:_OF_NAME]}")


def final_name(path: Path) -> Path:
    """What a temporary file is to become; any other path as it is."""
    return path.with_name(_NAME.sub("", path.name)) if path.name else path


def exclusive(path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
    """Create a file that must not exist, a link neither, and hold its lock until it is closed: an `opener` of `open`.

    All reading and writing has to go through this descriptor: some network file systems refuse others while it is
    locked.

    Raises:
        OSError: it exists or cannot be created.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try_lock(file, wait=True)
        if os.path.lexists(path) or attempt == _ATTEMPTS:
            break
        os.close(file)
    return file


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove the temporary files in a folder that nobody writes any more.

    Those that somebody holds the lock of stay. So do those written to within a day, where the lock says nothing: the
    file system has none, or the file is another host's, which some cluster file systems keep from seeing our locks.

    Returns:
        The files that were removed, sorted.
    """
    removed = []
    for path in sorted(folder.iterdir()):
        # another run may be cleaning up as well, or the file be somebody else's
        if match := _NAME.match(path.name):
            telling = match["host"] == _host() and match["unlocked"] is None
            if _removed(path, telling=telling):
                removed.append(path)
    return removed


def _removed(path: Path, *, telling: bool) -> bool:
    """Remove one, if it is a file and its writer is gone; `telling`: a lock that nobody holds says so by itself."""
    with suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            written = os.fstat(file).st_mtime
            dead = (try_lock(file) and telling) or time.time() - written > ABANDONED
            if dead and is_at(file, path):
                path.unlink()
                return True
        finally:
            unlock(file)
    return False


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:_OF_HOST] or "localhost"
