"""Files of an export: written under temporary names, published together per shard, and listed in a receipt."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from saliency_pipeline.documents import parse_json, read_regular
from saliency_pipeline.files import disk_errors_explained, publish, sha256_of, write_atomically
from saliency_pipeline.folders import make_subfolder, refuse_link
from saliency_pipeline.serialization import from_json, to_json
from saliency_pipeline.temporaries import exclusive, temporary_name

RECEIPTS = ".receipts"
"""Folder of receipts; its name is hidden, so that readers of data sets ignore it."""

MAX_RECEIPT_BYTES = 2**28


@dataclass(frozen=True)
class FileEntry:
    """One exported file: path in the export, '/' separated; images in it; split of these; size in bytes; SHA-256."""

    name: str
    images: int
    split: str
    bytes: int
    sha256: str


@dataclass
class LargeFile:
    """A file with the images of one shard and split, written under a temporary name.

    Attributes:
        path: its final path.
        split: split of its images.
        temporary: its path until it is published.
        stream: the file, open for writing.
        images: number of images in it, which its writer counts.
    """

    path: Path
    split: str
    temporary: Path
    stream: BinaryIO
    images: int = 0


class OutputFiles:
    """The files that one shard becomes; leaving the block without `publish` removes the large ones.

    A large file is written under a temporary name and renamed by `publish`. Small files are renamed one by one: each is
    whole or absent, and without a receipt all are written again.

    Args:
        folder: the folder of the export.
        listed: whether `publish` returns entries of the small files, for which their contents are hashed.
    """

    def __init__(self, folder: Path, *, listed: bool = True) -> None:
        self.folder = folder
        self._listed = listed
        self._small: list[FileEntry] = []
        self._large: list[LargeFile] = []
        self._folders: set[Path] = set()

    def __enter__(self) -> OutputFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._large:
            file.temporary.unlink(missing_ok=True)
            with suppress(OSError):
                file.stream.close()

    def create(self, split: str, number: int, suffix: str) -> LargeFile:
        """Create a large file for the images of a split (empty for none) of the shard of a number."""
        path = self.folder / f"{split or 'shard'}-{number:05d}.{suffix}"
        temporary = temporary_name(path)
        with disk_errors_explained(path):
            stream = cast(BinaryIO, open(temporary, "x+b", opener=exclusive))  # noqa: SIM115 - closed by __exit__
        file = LargeFile(path, split, temporary, stream)
        self._large.append(file)
        return file

    def write(self, name: str, data: bytes, *, images: int = 0, split: str = "") -> None:
        """Write a small file, whose folders are created; it is synced by `publish` at the latest."""
        path = self.folder / name
        if path.parent not in self._folders:
            make_subfolder(path.parent, inside=self.folder)
            self._folders.add(path.parent)
        refuse_link(path)
        write_atomically(path, data, durable=False)
        if self._listed:
            self._small.append(FileEntry(name, images, split, len(data), hashlib.sha256(data).hexdigest()))

    def publish(self) -> tuple[FileEntry, ...]:
        """Sync all files and rename the large ones.

        Returns:
            An entry per file, sorted by name.

        Raises:
            SalpipeError: the disk is full or cannot be written.
        """
        if self._folders:
            os.sync()  # one by one would take milliseconds each
        entries = list(self._small)
        for file in self._large:
            with disk_errors_explained(file.path):
                file.stream.flush()
            size = os.fstat(file.stream.fileno()).st_size
            digest = publish(file.temporary, file.path, file=file.stream.fileno())
            entries.append(FileEntry(file.path.name, file.images, file.split, size, digest))
        return tuple(sorted(entries, key=lambda entry: entry.name))


@dataclass(frozen=True)
class Receipt:
    """The exported files of one shard, with the hash of everything that decides their bytes."""

    identity: str
    files: tuple[FileEntry, ...]

    def write(self, folder: Path, number: int) -> None:
        """Write the receipt of a shard, atomically."""
        write_atomically(folder / receipt_name(number), self.to_json())

    def to_json(self) -> str:
        """The text of its file."""
        return json.dumps(to_json(self), sort_keys=True, indent=1) + "\n"


def valid_receipt(folder: Path, number: int, identity: str) -> Receipt | None:
    """The receipt of a shard if all of its files are there with the same bytes, else None."""
    try:
        receipt = parse_receipt(read_regular(folder / receipt_name(number), MAX_RECEIPT_BYTES))
        if receipt is None or receipt.identity != identity:
            return None
        for entry in receipt.files:
            path = folder / entry.name
            if path.is_symlink() or path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
                return None
    except (OSError, ValueError):  # also of documents and of types in them
        return None
    return receipt


def parse_receipt(data: bytes) -> Receipt | None:
    """The receipt in the bytes of its file, which may come from anywhere; None if it is damaged."""
    try:
        return from_json(Receipt, parse_json(data))
    except ValueError:  # also of documents and of types in them
        return None


def receipt_name(number: int) -> str:
    """Path of the receipt of a shard in its export."""
    return f"{RECEIPTS}/shard-{number:05d}.json"
