"""`Store`: named objects under one URL, created at most once. The seam between salpipe and object storage."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.errors import SalpipeError

CHUNK = 64 << 20
"""Bytes per request of `Store.fetch`."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
# a secret may contain slashes; what looks like a port is none
_USER = re.compile(r"[^/@]*@|[^/@]*:(?![0-9]+(?:/|$))[^@]*@")
_CONTAINER = re.compile(r"[^/@:]+@[^/@]+(?:/|$)")
AZURE = ("az", "abfs", "abfss")
"""Protocols whose URLs name a container where others name a user."""


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
        SalpipeError: the URL is none of a store or has credentials, or the package for its protocol is missing.
    """
    url = url.rstrip("/")
    parts = _URL.fullmatch(url)
    if parts and _USER.match(parts[2]) and not (parts[1] in AZURE and _CONTAINER.match(parts[2])):
        raise SalpipeError(
            f"{parts[1]}://{parts[2].rpartition('@')[2]}: a URL with a user name or password would be stored; leave "
            "them out, and give credentials in the environment"
        )
    if parts is None or not parts[2].strip("/"):
        raise SalpipeError(f"{url}: not the URL of a folder; give one such as s3://bucket/shards")
    if any(part in ("", ".", "..") for part in parts[2].lstrip("/").split("/")):
        raise SalpipeError(f"{url}: empty, . and .. are no names of folders; correct the URL")
    if parts[1] == "file":
        raise SalpipeError(f"{url}: give the path {parts[2]} instead")
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
    def list(self) -> dict[str, int]:
        """Names of all objects, with their sizes in bytes."""

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


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all bytes at an offset of an open file."""
    view = memoryview(data)
    while len(view):
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
