"""Content-addressed disk cache in the user's cache folder: prepared networks, results of duplicate searches.

An entry that is damaged, unreadable or of another version is computed again; no command fails because of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from saliency_pipeline.devices import instructions
from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.home import cache_folder
from saliency_pipeline.temporaries import exclusive, remove_stale_temporaries, temporary_name

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TOTAL_BYTES = 2 << 30
"""Size of all entries together; the least recently used ones are removed."""
SUBFOLDER = "networks"
_LIBRARIES = ("torch", "torchvision", "timm", "captum", "openvino")
_DIGEST_SIZE = hashlib.sha256().digest_size


def cached(
    kind: str,
    key: Sequence[str],
    compute: Callable[[], T],
    serialize: Callable[[T], bytes],
    deserialize: Callable[[bytes], T],
) -> T:
    """Return the cached value of a key; compute and store it if there is none.

    Args:
        kind: kind of value, part of the file name.
        key: everything that determines the value. An empty key disables the cache.
        compute: computes the value.
        serialize: value to bytes; an exception means that this value is not stored.
        deserialize: bytes to value; an exception means that it is computed again. It must not execute the bytes.
    """
    if not key:
        return compute()
    path = _path(kind, key)
    if (data := _read(path)) is not None:
        try:
            return deserialize(data)
        except Exception as error:  # any defect of an entry is repaired by computing it again
            logger.info("%s: damaged entry, computing it again: %s", path.name, error)
    value = compute()
    try:
        _write(path, serialize(value))
    except Exception as error:  # a full disk, a read-only folder, a network that cannot be serialized
        logger.info("%s: not stored: %s", path.name, error)
    return value


def is_cached(kind: str, key: Sequence[str]) -> bool:
    """Return whether a key has an entry, which may turn out to be damaged."""
    return bool(key) and _path(kind, key).is_file()


def discard(kind: str, key: Sequence[str]) -> None:
    """Remove the entry of a key if it exists."""
    with suppress(OSError):
        _path(kind, key).unlink()


@cache
def environment() -> tuple[str, ...]:
    """Return the part of a key that all networks share: library versions, hash of salpipe's code, CPU instructions."""
    code = hashlib.sha256()
    for package in ("models", "saliency"):
        for file in sorted((Path(__file__).parent / package).rglob("*.py")):
            code.update(file.read_bytes())
    versions = []
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return (*versions, code.hexdigest(), instructions())


def _path(kind: str, key: Sequence[str]) -> Path:
    digest = hashlib.sha256("\0".join(key).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / SUBFOLDER / f"{kind}-{digest}"


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb", opener=open_regular) as file:
            if (size := os.fstat(file.fileno()).st_size) > _DIGEST_SIZE + MAX_TOTAL_BYTES:
                return None
            digest, data = file.read(_DIGEST_SIZE), file.read(size)
    except OSError:
        return None
    if hashlib.sha256(data).digest() != digest:
        logger.info("%s: damaged", path)
        return None
    with suppress(OSError):
        os.utime(path)  # the least recently used entries are removed first
    return data


def _write(path: Path, data: bytes) -> None:
    """Write an entry atomically, without syncing it to disk: after a crash its checksum shows that it is damaged."""
    if len(data) > MAX_TOTAL_BYTES:
        raise SalpipeError(f"{len(data):,} bytes: larger than the whole cache")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb", opener=exclusive) as file:
            file.write(hashlib.sha256(data).digest())
            file.write(data)
            file.flush()
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _evict(path.parent)


def _evict(folder: Path) -> None:
    """Remove the least recently used entries until the rest fits; other processes may do so at the same time."""
    remove_stale_temporaries(folder)
    entries = []
    for path in folder.iterdir():
        with suppress(OSError):
            if path.is_file():
                entries.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= MAX_TOTAL_BYTES:
            break
        with suppress(OSError):
            path.unlink()
            total -= size
