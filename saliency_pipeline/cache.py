"""The user's cache folder, and what is dear to make kept there under what it was made of.

An entry that is damaged, of another version or out of reach is made again; no run fails for want of it.
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

from platformdirs import user_cache_path

from saliency_pipeline.devices import capabilities
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import remove_stale_temporaries, write_atomically

logger = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST = 2 << 30
"""Bytes of all entries together; those unused for longest make room."""
ENTRIES = "networks"
_DIGEST = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """The user's folder for what can be made again (`~/.cache/salpipe`); it may be impossible to write or to make."""
    folder = user_cache_path("salpipe")
    # who has no home gets a path below a folder called "~", which is not to be made wherever the command is run
    return folder if folder.is_absolute() else Path(os.devnull, "salpipe")


def kept(
    kind: str,
    made_of: Sequence[str],
    make: Callable[[], T],
    pack: Callable[[T], bytes],
    unpack: Callable[[bytes], T],
) -> T:
    """What `make` gives, from the user's cache folder where it was made before.

    Args:
        kind: what it is, for the file's name.
        made_of: everything that decides it; another value of any is another entry. Where it is empty nothing is kept.
        make: makes it.
        pack: to the bytes that are kept; an exception means that it cannot be kept.
        unpack: from those bytes; an exception means that it is to be made again. It must run nothing they hold.
    """
    if not made_of:
        return make()
    name = hashlib.sha256("\0".join(made_of).encode("utf-8", "surrogateescape")).hexdigest()
    path = cache_folder() / ENTRIES / f"{kind}-{name}"
    if (data := _read(path)) is not None:
        try:
            return unpack(data)
        except Exception as error:  # whatever is wrong with an entry, making it again puts it right
            logger.info("%s is made again: %s", path.name, error)
    value = make()
    try:
        _write(path, pack(value))
    except Exception as error:  # a full disk, a folder that cannot be written, a network that cannot be packed
        logger.info("%s is not kept: %s", path.name, error)
    return value


@cache
def environment() -> tuple[str, ...]:
    """What decides how a network is prepared, beside the network: libraries' versions, salpipe's own code, the CPU."""
    code = hashlib.sha256()
    for package in ("models", "saliency"):
        for file in sorted((Path(__file__).parent / package).glob("*.py")):
            code.update(file.read_bytes())
    libraries = []
    for name in ("torch", "torchvision", "timm", "openvino"):
        with suppress(PackageNotFoundError):
            libraries.append(f"{name} {version(name)}")
    return (*libraries, code.hexdigest(), capabilities("cpu"))


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, data = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        logger.info("%s is damaged", path)
        return None
    with suppress(OSError):
        os.utime(path)  # so that it is known when an entry was last of use
    return data


def _write(path: Path, data: bytes) -> None:
    if len(data) > LARGEST:
        raise SalpipeError(f"{len(data):,} bytes are more than the whole cache may hold")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, hashlib.sha256(data).digest() + data)
    _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Remove the entries that were unused for longest, until the others fit; another process may be at it as well."""
    remove_stale_temporaries(folder)
    entries = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            entries.append((path.stat().st_mtime, path.stat().st_size, path))
    size = sum(size for _, size, _ in entries)
    for _, bytes_, path in sorted(entries):
        if size <= LARGEST:
            break
        path.unlink(missing_ok=True)
        size -= bytes_
