"""Files of an export: written under temporary names, published together per shard, and listed in a receipt."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from saliency_pipeline.documents import DocumentError, read_json
from saliency_pipeline.files import disk_errors_explained, publish, sha256_of, write_atomically
from saliency_pipeline.folders import make_subfolder, refuse_link
from saliency_pipeline.temporaries import exclusive, temporary_name

RECEIPTS = ".receipts"
"""Folder of receipts; its name is hidden, so that readers of data sets ignore it."""

_MAX_RECEIPT_BYTES = 2**28


@dataclass(frozen=True)
class FileEntry:
    """One exported file: path in the export, '/' separated; images in it; split of these; size in bytes; SHA-256."""

    name: str
    images: int
    split: str
    bytes: int
    sha256: str


class OutputFiles:
    """The files that one shard becomes; leaving the block without `publish` removes the large ones.

    A large file is written under a temporary name and renamed by `publish`. Small files are renamed one by one: each is
    whole or absent, and without a receipt all are written again.

    Args:
        folder: the folder of the export.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.small: list[FileEntry] = []
        self._open: dict[str, tuple[Path, BinaryIO]] = {}
        self._folders: set[Path] = set()

    def __enter__(self) -> OutputFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path, file in self._open.values():
            path.unlink(missing_ok=True)
            with suppress(OSError):
                file.close()

    def create(self, name: str) -> BinaryIO:
        """Create a large file and return it, open for writing."""
        path = temporary_name(self.folder / name)
        with disk_errors_explained(path):
            file = cast(BinaryIO, open(path, "x+b", opener=exclusive))  # noqa: SIM115 - closed by publish or __exit__
        self._open[name] = path, file
        return file

    def write(self, name: str, data: bytes, *, images: int = 0, split: str = "") -> None:
        """Write a small file, whose folders are created; it is synced by `publish` at the latest."""
        path = self.folder / name
        if path.parent not in self._folders:
            make_subfolder(path.parent, inside=self.folder)
            self._folders.add(path.parent)
        temporary = temporary_name(path)
        with disk_errors_explained(path):
            refuse_link(path)
            try:
                with open(temporary, "xb", opener=exclusive) as file:
                    file.write(data)
                    os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        self.small.append(FileEntry(name, images, split, len(data), hashlib.sha256(data).hexdigest()))

    def publish(self, counts: dict[str, tuple[int, str]]) -> tuple[FileEntry, ...]:
        """Sync all files and rename the large ones.

        Args:
            counts: number of images and split of each large file, by name.

        Raises:
            SalpipeError: the disk is full or cannot be written.
        """
        entries = list(self.small)
        if self.small:
            os.sync()  # one by one would take milliseconds each
        for name, (path, file) in list(self._open.items()):
            with disk_errors_explained(path):
                file.flush()
            size = os.fstat(file.fileno()).st_size
            digest = publish(path, self.folder / name, file=file.fileno())
            del self._open[name]
            file.close()
            entries.append(FileEntry(name, *counts[name], size, digest))
        return tuple(sorted(entries, key=lambda entry: entry.name))


@dataclass(frozen=True)
class Receipt:
    """The exported files of one shard, with the hash of everything that decides their bytes."""

    identity: str
    files: tuple[FileEntry, ...]

    def write(self, folder: Path, number: int) -> None:
        """Write the receipt of a shard, atomically."""
        write_atomically(_path(folder, number), json.dumps(asdict(self), sort_keys=True, indent=1) + "\n")


def valid_receipt(folder: Path, number: int, identity: str) -> Receipt | None:
    """The receipt of a shard if all of its files are there with the same bytes, else None."""
    try:
        data = read_json(_path(folder, number), _MAX_RECEIPT_BYTES)
        receipt = Receipt(str(data["identity"]), tuple(FileEntry(**entry) for entry in data["files"]))
        if receipt.identity != identity:
            return None
        for entry in receipt.files:
            path = folder / entry.name
            if path.is_symlink() or path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
                return None
    except (OSError, DocumentError, LookupError, TypeError, ValueError):
        return None
    return receipt


def _path(folder: Path, number: int) -> Path:
    return folder / RECEIPTS / f"shard-{number:05d}.json"
