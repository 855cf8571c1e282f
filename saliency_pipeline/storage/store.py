"""`Store`: named objects under one URL or in one folder, created at most once. The seam between salpipe and storage."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import disk_errors_explained, sha256_of, sync, write_atomically, write_if_absent
from saliency_pipeline.temporaries import exclusive, temporary_name

CHUNK = 64 << 20
"""Bytes per request of `Store.fetch`."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


@dataclass(frozen=True)
class Head:
    """An object without its contents: size in bytes, and SHA-256 in hexadecimal, None where the store keeps none."""

    size: int
    sha256: str | None


def is_url(place: object) -> bool:
    """Return whether a text is the URL of a store rather than a path.

    >>> is_url("s3://bucket/shards"), is_url("shards")
    (True, False)
    """
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def open_store(url: str) -> Store:
    """The store at a URL. Nothing is requested yet.

    Raises:
        SalpipeError: the URL is none of a store, or the package for its protocol is missing.
    """
    url = url.rstrip("/")
    parts = _URL.fullmatch(url)
    if parts is None or not parts[2].strip("/"):
        raise SalpipeError(f"{url}: not the URL of a folder; give one such as s3://bucket/shards")
    if any(part in ("", ".", "..") for part in parts[2].lstrip("/").split("/")):
        raise SalpipeError(f"{url}: empty, . and .. are no names of folders; correct the URL")
    if parts[1] == "file":
        return LocalStore(Path(parts[2]))
    from saliency_pipeline.storage.remote import RemoteStore

    return RemoteStore(url, parts[1])


class Store(ABC):
    """Objects by name, such as `receipts/shard-00000.json`; safe to use from several threads.

    Methods that create never replace an object: of several writers one wins. False also comes where the response to the
    call's own request was lost and the repeated one found the object: compare it, see `holds`.
    """

    url: str

    @abstractmethod
    def read(self, name: str, limit: int) -> bytes:
        """A small object.

        Raises:
            FileNotFoundError: there is none.
            SalpipeError: it is larger than `limit` bytes, or cannot be read.
        """

    @abstractmethod
    def fetch(self, name: str, file: int, size: int) -> str:
        """Write the first `size` bytes of an object into an open file, and return their SHA-256 in hexadecimal.

        Raises:
            FileNotFoundError: there is none.
            SalpipeError: it cannot be read, or is shorter.
        """

    @abstractmethod
    def put_file(self, name: str, path: Path, sha256: str) -> bool:
        """Create an object from a file; returns False if there is one of that name, which stays as it is."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Create a small object; returns False if there is one of that name, which stays as it is."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Create or replace a small object whose contents follow from others."""

    @abstractmethod
    def list(self, folder: str = "") -> dict[str, int]:
        """Names of all objects below a folder, with their sizes in bytes."""

    @abstractmethod
    def head(self, name: str) -> Head | None:
        """Size and hash of an object; None if there is none."""

    def place(self, name: str) -> str:
        """URL of an object, for messages."""
        return f"{self.url}/{name}"

    def holds(self, name: str, size: int, sha256: str) -> bool:
        """Return whether there is an object of this size and SHA-256."""
        head = self.head(name)
        return head is not None and head.size == size and self.sha256(name, head) == sha256

    def sha256(self, name: str, head: Head) -> str:
        """SHA-256 of an object, which is read where the store keeps no hash."""
        if head.sha256 is not None:
            return head.sha256
        with open(os.devnull, "wb") as nowhere:
            return self.fetch(name, nowhere.fileno(), head.size)


class LocalStore(Store):
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, str(folder)

    def read(self, name: str, limit: int) -> bytes:
        """See `Store`."""
        with open(self._path(name), "rb", opener=open_regular) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise SalpipeError(f"{self._path(name)}: larger than {limit:,} bytes; remove it")
        return data

    def fetch(self, name: str, file: int, size: int) -> str:
        """See `Store`."""
        digest, written = hashlib.sha256(), 0
        with open(self._path(name), "rb", opener=open_regular) as source:
            while data := source.read(min(CHUNK, size - written)):
                digest.update(data)
                write_at(file, data, written)
                written += len(data)
        if written < size:
            raise SalpipeError(f"{self._path(name)}: {written:,} bytes instead of {size:,}; run 'salpipe verify'")
        return digest.hexdigest()

    def put_file(self, name: str, path: Path, sha256: str) -> bool:
        """See `Store`."""
        final = self._path(name)
        temporary = temporary_name(final)
        with disk_errors_explained(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb", opener=exclusive) as copy, open(path, "rb", opener=open_regular) as source:
                try:
                    shutil.copyfileobj(source, copy)
                    copy.flush()
                    sync(copy.fileno())
                    # unlike a rename, a link never replaces a file
                    os.link(temporary, final)
                except FileExistsError:
                    return False
                finally:
                    temporary.unlink(missing_ok=True)
        return True

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            return False
        write_if_absent(path, data)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """See `Store`."""
        self._path(name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(name), data)

    def list(self, folder: str = "") -> dict[str, int]:
        """See `Store`."""
        top = self.folder / folder
        files = [path for path in sorted(top.rglob("*")) if path.is_file()] if top.is_dir() else []
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}

    def head(self, name: str) -> Head | None:
        """See `Store`."""
        try:
            path = self._path(name)
            return Head(path.stat().st_size, sha256_of(path))
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> Path:
        return self.folder / name


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset of an open file."""
    view = memoryview(data)
    while len(view):
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
