"""Receipts of finished shards: what was written and what was rejected. Shards without a valid one are written again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from saliency_pipeline.documents import DocumentError, parse_json, read_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of, write_atomically
from saliency_pipeline.shards.manifest import REJECTS, Manifest, ShardEntry
from saliency_pipeline.shards.schema import ShardHeader

RECEIPTS = "receipts"
# that of a shard of maximum size with every image rejected
MAX_RECEIPT_BYTES = 2**28


@dataclass(frozen=True)
class Reject:
    """An image that could not be used, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class Receipt:
    """One finished shard.

    Attributes:
        plan: hash of the plan it belongs to.
        shard: the shard's entry in the manifest.
        rejects: the planned images that are not in it.
        single_color: number of its images that have one color everywhere.
        seen: number of its images that the source model was trained on.
    """

    plan: str
    shard: ShardEntry
    rejects: tuple[Reject, ...]
    single_color: int = 0
    seen: int = 0

    def write(self, folder: Path) -> None:
        """Write the receipt into the folder of receipts in `folder`, atomically."""
        write_atomically(receipt_path(folder, self.shard.name), self.to_json())

    def to_json(self) -> str:
        """The contents of the receipt's file."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"


def read_receipt(folder: Path, name: str) -> Receipt | None:
    """The receipt of the shard `name`, or None if there is none that can be read."""
    try:
        receipt = parse_receipt(read_regular(receipt_path(folder, name), MAX_RECEIPT_BYTES))
    except (OSError, ValueError):
        return None
    return receipt if receipt is not None and receipt.shard.name == name else None


def parse_receipt(text: bytes) -> Receipt | None:
    """The receipt in the contents of a file, or None if it is none."""
    try:
        data = parse_json(text)
        return Receipt(
            str(data["plan"]),
            ShardEntry(**data["shard"]),
            tuple(Reject(str(reject["key"]), str(reject["reason"])) for reject in data["rejects"]),
            int(data.get("single_color", 0)),
            int(data.get("seen", 0)),
        )
    except (ValueError, KeyError, TypeError):
        return None


def valid_receipt(folder: Path, name: str, plan: str, *, deep: bool = True) -> Receipt | None:
    """The receipt of a shard if the shard's file matches it, else None; `deep` compares SHA-256, not only sizes."""
    receipt = read_receipt(folder, name)
    if receipt is None or receipt.plan != plan:
        return None
    path = folder / name
    try:
        # a pipe has no end, and its size may match
        if not path.is_file() or path.stat().st_size != receipt.shard.bytes:
            return None
        if deep and sha256_of(path) != receipt.shard.sha256:
            return None
    except OSError:
        return None
    return receipt


def merge(folder: Path, header: ShardHeader, receipts: Sequence[Receipt]) -> Manifest:
    """Write `rejects.jsonl` and the manifest from the receipts of all shards, each atomically, if it differs."""
    rejects = [reject for receipt in receipts for reject in receipt.rejects]
    _write_if_new(folder / REJECTS, "".join(json.dumps(asdict(reject)) + "\n" for reject in rejects))
    manifest = Manifest(header, len(rejects), tuple(receipt.shard for receipt in receipts))
    try:
        stored = Manifest.read(folder)
    except SalpipeError:
        stored = None
    if stored != manifest:
        manifest.write(folder)
    return manifest


def receipt_path(folder: Path, name: str) -> Path:
    """The file of the receipt of a shard."""
    return folder / RECEIPTS / Path(name).with_suffix(".json").name


def _write_if_new(path: Path, text: str) -> None:
    with suppress(OSError, DocumentError):
        if read_regular(path, len(text)) == text.encode():
            return
    write_atomically(path, text)
