"""An export on object storage: the files of a shard go from a scratch folder to a URL, then their receipt.

Objects are created, never replaced, and `export.json` comes last. A conversion that is killed at any moment leaves
whole objects only, and the next one sends what is missing.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from saliency_pipeline.conversion.description import CLASSES
from saliency_pipeline.conversion.export_folder import IDENTITY, other_export
from saliency_pipeline.conversion.output import (
    MAX_RECEIPT_BYTES,
    RECEIPTS,
    FileEntry,
    Receipt,
    parse_receipt,
    receipt_name,
    valid_receipt,
)
from saliency_pipeline.conversion.png import SAMPLES, TABLE
from saliency_pipeline.datasets.export_file import EXPORT, is_inside
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of, write_atomically
from saliency_pipeline.folders import make_subfolder
from saliency_pipeline.storage.mirror import kept_store
from saliency_pipeline.storage.settings import scratch_folder
from saliency_pipeline.storage.store import Store, is_url, open_store
from saliency_pipeline.text import shown
from saliency_pipeline.workers import ordered

_IDENTITY = f"{RECEIPTS}/{IDENTITY}"
_REQUESTS = 16  # at a time
_MAX_LIST_BYTES = 2**30


@dataclass(frozen=True)
class RemoteExport:
    """An export on object storage that is being written.

    Attributes:
        url: its URL.
        identity: hash of everything that decides its bytes.
        scratch: folder on this host for what is not sent yet.
    """

    url: str
    identity: str
    scratch: Path

    @classmethod
    def of(cls, output: Path | str, identity: str) -> RemoteExport | None:
        """The export at a URL, with a scratch folder of its own in the folder of the cache; None for a path.

        Raises:
            SalpipeError: the URL is none of a store, or a package is missing.
        """
        if not isinstance(output, str) or not is_url(output):
            return None
        url = open_store(output).url
        return cls(url, identity, scratch_folder(f"{url} {identity}", "export"))

    @property
    def store(self) -> Store:
        """The store, one per process."""
        return kept_store(self.url)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Sizes of the objects that were there before this conversion sent any, by name."""
        return self.store.list()

    def claim(self) -> None:
        """Store the identity, so that no other export is written there.

        Raises:
            PlanMismatchError: the URL is that of another export.
            SalpipeError: it holds other objects, which might be called as those of the export.
        """
        if _IDENTITY not in self._sizes:
            if others := [name for name in self._sizes if not name.startswith(".")]:
                raise SalpipeError(f"{self.url}: holds other files ({shown(others[0])}); choose an empty folder")
            if self.store.create(_IDENTITY, self.identity.encode()):
                return
        try:
            stored = self.store.read(_IDENTITY, 1024)
        except FileNotFoundError:
            raise SalpipeError(f"{self.url}: was deleted meanwhile; run the same command again") from None
        if stored != self.identity.encode():
            raise other_export(self.url)

    def receipt(self, number: int) -> Receipt | None:
        """The receipt of a shard whose files are stored; sends those that an earlier run left in the scratch folder.

        It is valid if size and SHA-256 of every file, as stored with it, are those of the receipt. The bytes are not
        read.
        """
        receipt = self._stored(number)
        if receipt is not None and self._all_stored(receipt.files):
            return receipt
        left = valid_receipt(self.scratch, number, self.identity)
        return None if left is None else self.send(number, left)

    def send(self, number: int, receipt: Receipt) -> Receipt:
        """Send the files of a shard from the scratch folder, then its receipt, and remove them there.

        Lists of samples stay, since the table of all images is made of them.

        Raises:
            SalpipeError: an object of that name has other bytes, or the store fails.
        """

        def put(entry: FileEntry) -> None:
            self._put(entry.name, entry.bytes, entry.sha256)

        with ThreadPoolExecutor(_REQUESTS, "export") as pool:
            for _ in ordered(pool, put, receipt.files, 2 * _REQUESTS):
                pass
        name, data = receipt_name(number), receipt.to_json().encode()
        if not self.store.create(name, data) and self._stored(number) != receipt:
            # the files are there and stay, so that a receipt of other bytes is wrong
            self.store.replace(name, data)
        # without its receipt a shard is sent again only if the store lost it
        (self.scratch / name).unlink(missing_ok=True)
        for entry in receipt.files:
            if not _is_list(entry):
                (self.scratch / entry.name).unlink(missing_ok=True)
        return receipt

    def fetch_lists(self, entries: Iterable[FileEntry]) -> None:
        """Copy the lists of samples that earlier runs sent to the scratch folder.

        Raises:
            SalpipeError: one is missing or has other bytes.
        """
        for entry in entries:
            path = self.scratch / entry.name
            if path.is_file() and sha256_of(path) == entry.sha256:
                continue
            make_subfolder(path.parent, inside=self.scratch)
            try:
                data = self.store.read(entry.name, _MAX_LIST_BYTES)
            except FileNotFoundError:
                data = b""
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise self._other_bytes(entry.name)
            write_atomically(path, data)

    def finish(self) -> None:
        """Send the table of all images, the class names and, last of all, `export.json`; remove the scratch folder."""
        table = self.scratch / TABLE
        if table.is_file():
            self._put(TABLE, table.stat().st_size, sha256_of(table))
        for name in (CLASSES, EXPORT):
            path = self.scratch / name
            if not path.is_file():
                continue
            data = path.read_bytes()
            if not self.store.holds(name, len(data), hashlib.sha256(data).hexdigest()):
                self.store.replace(name, data)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _put(self, name: str, size: int, sha256: str) -> None:
        """Create an object from a file of the scratch folder, unless it is there already."""
        if self._sizes.get(name) == size and self.store.holds(name, size, sha256):
            return
        if not self.store.put_file(name, self.scratch / name, sha256) and not self.store.holds(name, size, sha256):
            raise self._other_bytes(name)

    def _all_stored(self, entries: Iterable[FileEntry]) -> bool:
        """Return whether all files are stored with their sizes and, where the store keeps them, their hashes."""

        def stored(entry: FileEntry) -> bool:
            if self._sizes.get(entry.name) != entry.bytes:
                return False
            head = self.store.head(entry.name)
            return head is not None and head.sha256 in (None, entry.sha256)

        with ThreadPoolExecutor(_REQUESTS, "export") as pool:
            return all(ordered(pool, stored, entries, 2 * _REQUESTS))

    def _stored(self, number: int) -> Receipt | None:
        """The stored receipt of a shard, if it is one of this export."""
        try:
            receipt = parse_receipt(self.store.read(receipt_name(number), MAX_RECEIPT_BYTES))
        except FileNotFoundError:
            return None
        # names become paths of the scratch folder
        if receipt is None or not all(is_inside(entry.name) for entry in receipt.files):
            return None
        return receipt if receipt.identity == self.identity else None

    def _other_bytes(self, name: str) -> SalpipeError:
        return SalpipeError(
            f"{self.store.place(name)}: missing or with other bytes than this conversion writes; delete it, or choose "
            "another URL, and run the same command again"
        )


def _is_list(entry: FileEntry) -> bool:
    return entry.name.startswith(f"{SAMPLES}/")
