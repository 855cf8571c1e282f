"""The folder of an export: claimed by one export, locked, and free of other files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saliency_pipeline.conversion.output import RECEIPTS
from saliency_pipeline.datasets.export_file import VERSION
from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.documents import DocumentError, read_regular
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.files import disk_errors_explained, sha256_of, write_atomically
from saliency_pipeline.folders import FolderLock, make_output, make_subfolder
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import to_json
from saliency_pipeline.temporaries import remove_stale_temporaries
from saliency_pipeline.text import shown

IDENTITY = ".identity"
"""File of the identity, in the folder of receipts."""


def hash_of(data: ShardFolder, decisive: Mapping[str, Any]) -> str:
    """Hash of everything that decides the bytes of an export: the shards, and its options, JSON-serializable."""
    if data.path.is_dir():
        hashes = [entry.sha256 for entry in Manifest.read(data.path).shards]
    else:
        hashes = [sha256_of(data.path)]
    return hashlib.sha256(to_json({"version": VERSION, "shards": hashes, **decisive}).encode()).hexdigest()


@contextmanager
def export_folder(folder: Path, shards: Path | str, identity: str, note: Callable[[str], None]) -> Iterator[None]:
    """Create and lock the folder of an export for a `with` block, and remove temporary files of killed runs from it.

    Args:
        folder: the folder; missing, empty or of the same export.
        shards: what is exported.
        identity: hash of everything that decides its bytes.
        note: receives a note if the file system has no locks.

    Raises:
        PlanMismatchError: it is that of another export.
        SalpipeError: it holds other files, which might be called as those of the export, is a folder of images or
            shards or within one of images, or cannot be written.
        FolderInUseError: another run is writing there.
    """
    path = folder / RECEIPTS / IDENTITY
    if not path.is_file():
        # an export itself may look like a folder of images
        refuse_among_images(folder, shards)
        refuse_shards(folder)
        with disk_errors_explained(folder):
            names = sorted(os.listdir(folder)) if folder.is_dir() else []
        if others := [name for name in names if not name.startswith(".")]:
            raise SalpipeError(f"{shown(folder)}: holds other files ({shown(others[0])}); choose an empty folder")
    make_output(folder)
    with FolderLock(folder, note=note):
        make_subfolder(folder / RECEIPTS)
        if not path.exists():
            write_atomically(path, identity)
        elif _stored(path) != identity:
            raise other_export(shown(folder))
        for place, _, _ in os.walk(folder):
            remove_stale_temporaries(Path(place))
        yield


def other_export(place: str) -> PlanMismatchError:
    """The error of a place that holds another export."""
    return PlanMismatchError(f"{place}: holds the export of other shards, or with other options; choose another folder")


def _stored(path: Path) -> str | None:
    try:
        return read_regular(path, 1024).decode("utf-8", "replace")
    except (OSError, DocumentError):
        return None
