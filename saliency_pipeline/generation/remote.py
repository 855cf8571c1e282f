"""Output on object storage: finished shards go from a scratch folder to a URL, then their receipts, the manifest last.

Nothing there is locked. Plan and shards are created, never replaced, so that any number of runs may write to one URL:
of two that make the same shard one wins, and the other compares hashes. A run that is killed at any moment leaves whole
objects only, and the next one makes what has no receipt.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from saliency_pipeline.documents import MAX_BYTES
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.generation.plan import PLAN, ShardTask
from saliency_pipeline.generation.receipt import (
    MAX_RECEIPT_BYTES,
    RECEIPTS,
    Receipt,
    merge,
    parse_receipt,
    receipt_path,
    valid_receipt,
)
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.layout import read_layout
from saliency_pipeline.shards.manifest import MANIFEST, REJECTS, ShardEntry
from saliency_pipeline.shards.schema import ShardHeader
from saliency_pipeline.storage.mirror import kept_store
from saliency_pipeline.storage.settings import scratch_folder
from saliency_pipeline.storage.store import Store, is_url, open_store
from saliency_pipeline.temporaries import exclusive, temporary_name

_REQUESTS = 16  # at a time

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteOutput:
    """A folder of shards on object storage that is being written.

    Attributes:
        url: its URL.
        scratch: folder on this host for what is not sent yet.
    """

    url: str
    scratch: Path

    @classmethod
    def of(cls, output: str | os.PathLike[str], part: tuple[int, int]) -> RemoteOutput | None:
        """The output at a URL, with a scratch folder per part in the folder of the cache; None for a path.

        Raises:
            SalpipeError: the URL is none of a store, or a package is missing.
        """
        if not isinstance(output, str) or not is_url(output):
            return None
        url = open_store(output).url
        return cls(url, scratch_folder(url, f"{part[0]}-of-{part[1]}"))

    @property
    def store(self) -> Store:
        """The store, one per process."""
        return kept_store(self.url)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Refusals within a block name the URL, not the scratch folder."""
        try:
            yield
        except PlanMismatchError as error:
            raise PlanMismatchError(str(error).replace(str(self.scratch), self.url)) from error

    def pull_plan(self) -> None:
        """Copy the plan that is stored, if any, to the scratch folder; without one, what is there is of no use."""
        try:
            write_atomically(self.scratch / PLAN, self.store.read(PLAN, MAX_BYTES))
        except FileNotFoundError:
            (self.scratch / PLAN).unlink(missing_ok=True)

    def _settle_plan(self) -> bool:
        """Store the plan of the scratch folder; returns False if another run was first, whose plan is then there."""
        plan = (self.scratch / PLAN).read_bytes()
        # it may be deleted meanwhile
        with suppress(FileNotFoundError):
            if self.store.create(PLAN, plan) or self.store.read(PLAN, MAX_BYTES) == plan:
                return True
        self.pull_plan()
        return False

    def settled(self, resolve: Callable[[], T]) -> T:
        """The result of a function that resolves by the plan of the scratch folder, once that is the plan stored."""
        resolved = resolve()
        while not self._settle_plan():
            resolved = resolve()
        return resolved

    def valid_receipts(self, tasks: Sequence[ShardTask], plan: str, progress: Progress) -> dict[str, Receipt]:
        """Receipts of shards that are stored, by name; sends those that an earlier run left in the scratch folder.

        A receipt is valid if size and SHA-256 of its shard, as stored with it, are those of the receipt. The bytes are
        not read: that is what `salpipe verify --deep` does.
        """
        progress.start(len(tasks), "shard", "checking")
        stored = self._stored_receipts([task.name for task in tasks], plan, deep=True)
        progress.advance(len(stored))
        for task in tasks:
            if task.name not in stored and (receipt := valid_receipt(self.scratch, task.name, plan)) is not None:
                stored[task.name] = self.publish(receipt)
                progress.advance(1)
        progress.stop()
        return stored

    def publish(self, receipt: Receipt) -> Receipt:
        """Send a shard from the scratch folder, then its receipt, and remove both there.

        Returns:
            The receipt that is stored: another run's if that run was first.

        Raises:
            SalpipeError: an object of that name is no shard of this plan or damaged, or the store fails.
        """
        entry, path = receipt.shard, self.scratch / receipt.shard.name
        created = self.store.put_file(entry.name, path, entry.sha256)
        if not created and not self.store.holds(entry.name, entry.bytes, entry.sha256):
            receipt = self._adopted(receipt)
        name, data = _receipt_name(entry.name), receipt.to_json().encode()
        if not self.store.create(name, data):
            stored = self._receipt(entry.name, receipt.plan)
            if stored is None or stored.shard != receipt.shard:
                # the shard is there and stays, so that a receipt of other bytes is wrong
                self.store.replace(name, data)
            else:
                receipt = stored
        path.unlink(missing_ok=True)
        receipt_path(self.scratch, entry.name).unlink(missing_ok=True)
        return receipt

    def merged(self, header: ShardHeader, tasks: Sequence[ShardTask], done: dict[str, Receipt]) -> bool:
        """Store rejects and, last of all, the manifest if every shard of the plan has a receipt, whoever wrote it."""
        others = [task.name for task in tasks if task.name not in done]
        receipts = done | self._stored_receipts(others, header.plan, deep=False)
        if len(receipts) < len(tasks):
            return False
        merge(self.scratch, header, [receipts[task.name] for task in tasks])
        for name in (REJECTS, MANIFEST):
            data = (self.scratch / name).read_bytes()
            if not self.store.holds(name, len(data), hashlib.sha256(data).hexdigest()):
                self.store.replace(name, data)
        return True

    def clean(self) -> None:
        """Remove the scratch folder."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _stored_receipts(self, names: Iterable[str], plan: str, *, deep: bool) -> dict[str, Receipt]:
        """Valid receipts of shards; `deep` compares the stored hashes as well."""
        names = list(names)
        if not names:
            return {}
        sizes = self.store.list()

        def stored(name: str) -> Receipt | None:
            if name not in sizes or _receipt_name(name) not in sizes:
                return None
            receipt = self._receipt(name, plan)
            if receipt is None or sizes[name] != receipt.shard.bytes:
                return None
            head = self.store.head(name) if deep else None
            # where a store keeps no hashes, size and receipt must do
            return receipt if head is None or head.sha256 in (None, receipt.shard.sha256) else None

        with ThreadPoolExecutor(_REQUESTS, "receipts") as pool:
            receipts = zip(names, pool.map(stored, names), strict=True)
            return {name: receipt for name, receipt in receipts if receipt is not None}

    def _receipt(self, name: str, plan: str) -> Receipt | None:
        """The stored receipt of a shard, if it is one of this plan."""
        try:
            receipt = parse_receipt(self.store.read(_receipt_name(name), MAX_RECEIPT_BYTES))
        except FileNotFoundError:
            return None
        return receipt if receipt is not None and receipt.plan == plan and receipt.shard.name == name else None

    def _adopted(self, receipt: Receipt) -> Receipt:
        """The receipt of a shard of other bytes that is stored under the name, if it is a whole one of this plan.

        Other hardware rounds differently: a shard that was sent there by a run that was killed before the receipt
        stays, since somebody may have seen it.
        """
        name, store = receipt.shard.name, self.store
        place, head = store.place(name), store.head(name)
        if head is None:
            raise SalpipeError(f"{place}: was deleted while it was being written; run the same command again")
        temporary = temporary_name(self.scratch / name)
        try:
            with open(temporary, "x+b", opener=exclusive) as file:
                digest = store.fetch(name, file.fileno(), head.size)
                layout, problems = read_layout(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        if head.sha256 not in (None, digest) or layout is None or problems:
            raise SalpipeError(f"{place}: is there already, damaged; delete it and run the same command again")
        if layout.header.plan != receipt.plan or layout.rows != receipt.shard.images:
            raise SalpipeError(f"{place}: is there already, of another plan; choose another URL, or delete it")
        return replace(receipt, shard=ShardEntry(name, layout.rows, head.size, digest))


def _receipt_name(shard: str) -> str:
    return f"{RECEIPTS}/{Path(shard).stem}.json"
