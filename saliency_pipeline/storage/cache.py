"""The cache of shards on this host: each object is fetched once, verified, and kept while there is room for it.

    CACHE/<SHA-256 of the manifest>/<name>/   manifest.json, rejects.jsonl, origin.json, shard-00000.h5, ...
                                     locks/   for each shard its lock, in which is recorded which file was fetched

All processes of the host share it. A process that reads a shard holds a shared lock (`flock`) on its file, and a file
is removed only with an exclusive one, so that nothing goes that is being read. A file without its record was not
fetched and is never removed. What is being fetched has its full size from the start and counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.documents import open_regular, read_json
from saliency_pipeline.errors import IntegrityError, OptionError, SalpipeError
from saliency_pipeline.files import disk_errors_explained, sha256_of
from saliency_pipeline.locks import is_at, try_lock, unlock
from saliency_pipeline.storage.settings import CacheSettings, shown_size
from saliency_pipeline.storage.store import Store
from saliency_pipeline.temporaries import exclusive, remove_stale_temporaries, temporary_name

LOCKS = "locks"
_POLL = 0.05
# nanoseconds within which a second use need not be recorded
_TOUCHED = 10**9


@dataclass(frozen=True)
class CachedObject:
    """An object of the cache.

    Attributes:
        folder: its folder in the cache.
        name: its name, there and in the store.
        bytes: its size.
        sha256: its SHA-256 in hexadecimal.
    """

    folder: Path
    name: str
    bytes: int
    sha256: str

    @property
    def path(self) -> Path:
        """The file, which may not be there."""
        return self.folder / self.name

    @property
    def lock(self) -> Path:
        """The file of its lock and record."""
        return self.folder / LOCKS / self.name


class ShardCache:
    """The cache of the current settings."""

    def __init__(self, settings: CacheSettings | None = None) -> None:
        self.settings = settings or CacheSettings.current()

    def open(self, wanted: CachedObject, store: Callable[[], Store]) -> int:
        """Open an object for reading, and fetch it if it is not there.

        Args:
            wanted: the object.
            store: opens the store that has it.

        Returns:
            A descriptor with a shared lock: the file stays until it is closed.

        Raises:
            IntegrityError: its bytes are not those that are wanted, twice in succession.
            SalpipeError: it cannot be fetched or stored, or is larger than the cache.
        """
        if (file := self.present(wanted)) is not None:
            return file
        with self._locked(wanted.lock):
            # another process may have fetched it meanwhile
            if (file := self.present(wanted)) is not None:
                return file
            return self._fetch(wanted, store())

    def has(self, wanted: CachedObject) -> bool:
        """Return whether an object is there."""
        return _is_fetched(wanted)

    def limit(self) -> int:
        """Most bytes of the cache at present."""
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        return self.settings.limit_beside(sum(size for _, size, _ in self._held()))

    def touch(self, objects: Iterable[CachedObject]) -> None:
        """Record that objects are used now, as far as they are there."""
        now = time.time_ns()
        for each in objects:
            with suppress(OSError):
                os.utime(each.path, ns=(now, each.path.stat().st_mtime_ns), follow_symlinks=False)

    def discard(self, wanted: CachedObject) -> None:
        """Remove an object that was fetched and is not being read."""
        with suppress(OSError):
            if _is_fetched(wanted):
                _remove_unused(wanted.path)

    def present(self, wanted: CachedObject) -> int | None:
        """A locked descriptor of an object that is there; None if it is not.

        Raises:
            IntegrityError: a file in its place was not fetched and is not that object.
        """
        try:
            file = open_regular(wanted.path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            try_lock(file, shared=True, wait=True)
            if not is_at(file, wanted.path):
                os.close(file)
                return None
            if not _is_fetched(wanted) and sha256_of(wanted.path) != wanted.sha256:
                raise IntegrityError(
                    f"{wanted.path}: was changed in the cache; remove it and run the same command again"
                )
            # the least recently used are removed first; the time of change is part of the record and stays
            with suppress(PermissionError):  # another user fetched it
                os.utime(file, ns=(time.time_ns(), os.fstat(file).st_mtime_ns))
        except BaseException:
            with suppress(OSError):
                os.close(file)
            raise
        return file

    def _fetch(self, wanted: CachedObject, store: Store) -> int:
        """Fetch an object into its place, a second time if its bytes are wrong; returns a locked descriptor."""
        reason = ""
        for _ in range(2):
            with disk_errors_explained(wanted.path):
                temporary, file = self._reserve(wanted)
                try:
                    if not (reason := self._download(wanted, store, file)):
                        # one that makes room would miss a file whose name changes while it counts
                        with self._making_room():
                            _record(wanted, file)
                            os.replace(temporary, wanted.path)
                        # it was written under an exclusive lock; one that removes files may have it in between
                        try_lock(file, shared=True, wait=True)
                        return file
                except BaseException:
                    os.close(file)
                    raise
                finally:
                    temporary.unlink(missing_ok=True)
                os.close(file)
        raise IntegrityError(
            f"{store.place(wanted.name)}: {reason}, twice in succession; delete it and run 'salpipe generate' again to "
            "write it anew"
        )

    def _download(self, wanted: CachedObject, store: Store, file: int) -> str:
        """Write an object into an open file; returns what is wrong with it, or an empty text."""
        try:
            head = store.head(wanted.name)
            if head is not None and head.size != wanted.bytes:
                return f"{head.size:,} bytes instead of the {wanted.bytes:,} in the manifest"
            digest = store.fetch(wanted.name, file, wanted.bytes)
        except FileNotFoundError as error:
            raise IntegrityError(
                f"{store.place(wanted.name)}: there is no such object; run 'salpipe generate' again to write it anew"
            ) from error
        return "" if digest == wanted.sha256 else f"its SHA-256 is {digest[:12]}…, not the one in the manifest"

    def _reserve(self, wanted: CachedObject) -> tuple[Path, int]:
        """Make room for an object, and create a file of its size under a temporary name."""
        while True:
            with self._making_room():
                held = sorted(self._held())
                total = sum(size for _, size, _ in held)
                limit = self.settings.limit_beside(total)
                if wanted.bytes > limit:
                    raise OptionError(
                        f"--cache-size {shown_size(limit)}: smaller than {wanted.name} ({shown_size(wanted.bytes)}); "
                        "use several times that, or another --cache folder with more space"
                    )
                for _, size, path in held:
                    if total + wanted.bytes <= limit:
                        break
                    if _remove_unused(path):
                        total -= size
                if total + wanted.bytes <= limit:
                    temporary = temporary_name(wanted.path)
                    file = exclusive(temporary)
                    os.ftruncate(file, wanted.bytes)
                    return temporary, file
            # others read or fetch all that is there; they will be done
            time.sleep(_POLL)

    def _held(self) -> Iterator[tuple[float, int, Path]]:
        """Time of the last use, size and path of every file that was fetched or is being fetched."""
        for locks in self.settings.folder.glob(f"*/*/{LOCKS}"):
            folder = locks.parent
            with suppress(OSError):
                remove_stale_temporaries(folder)
            for path in [*(folder / lock.name for lock in locks.iterdir()), *folder.glob("tmp.*")]:
                fetching = path.name.startswith("tmp.")
                with suppress(OSError):
                    if fetching or is_recorded(locks / path.name, path):
                        status = path.stat()
                        yield float("inf") if fetching else status.st_atime, status.st_size, path

    def _making_room(self) -> AbstractContextManager[None]:
        """The lock of all who change what is counted; taken after that of an object."""
        return self._locked(self.settings.folder / ".lock")

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold a lock file while a block runs.

        Raises:
            SalpipeError: the folder cannot be written, or its file system has no locks.
        """
        with disk_errors_explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            if not try_lock(file, wait=True):
                raise SalpipeError(
                    f"{self.settings.folder}: this file system has no locks; give a folder of a local disk with --cache"
                )
            yield
        finally:
            unlock(file)


def reopen(path: Path, identity: tuple[int, int, int, int]) -> int | None:
    """Open a file of the cache that was opened before, with a shared lock; None if it is no longer there.

    Args:
        path: the file.
        identity: its device, inode, size and time of change then.
    """
    try:
        file = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        try_lock(file, shared=True, wait=True)
        status = os.fstat(file)
        if (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns) == identity and status.st_nlink:
            if (now := time.time_ns()) - status.st_atime_ns > _TOUCHED:
                with suppress(PermissionError):
                    os.utime(file, ns=(now, status.st_mtime_ns))
            return file
    except OSError:
        pass
    os.close(file)
    return None


def is_recorded(lock: Path, path: Path) -> bool:
    """Return whether a file is the one whose download a lock file records."""
    try:
        return bool(read_json(lock, 1000) == _identity(os.stat(path, follow_symlinks=False)))
    except (OSError, ValueError):
        return False


def _is_fetched(wanted: CachedObject) -> bool:
    return is_recorded(wanted.lock, wanted.path)


def _record(wanted: CachedObject, file: int) -> None:
    """Record which file was fetched; the lock is held."""
    wanted.lock.write_text(json.dumps(_identity(os.fstat(file))))


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a process reads or writes it; returns whether it is gone."""
    try:
        file = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not try_lock(file):
            return False
        path.unlink(missing_ok=True)
        return True
    except (BlockingIOError, PermissionError):
        return False
    finally:
        unlock(file)
