"""Cache of fingerprints on disk."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.documents import DocumentError, read_regular
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.images.record import ImageRecord
from saliency_pipeline.images.remote_record import RemoteRecord

_MAX_PART_BYTES = 2**28


class FingerprintCache:
    """A folder of parts, each an array of rows that is written once and named by the SHA-256 of its bytes.

    So a part is whole or absent, damaged ones are detected and skipped, and several runs may add to one folder.

    Args:
        folder: created when something is added.
        row: dtype of a fingerprint.
        version: version of fingerprints; others are ignored.
    """

    def __init__(self, folder: Path, row: np.dtype[Any], version: int) -> None:
        self.folder = folder
        self.version = version
        self.dtype = np.dtype([("identity", "S32"), ("row", row)])

    def identities(self, records: Sequence[ImageRecord]) -> Iterator[bytes]:
        """32 hexadecimal digits per record, of its key, size and offset, and the size and mtime of its file."""

        @lru_cache(maxsize=256)  # many records lie in one archive
        def status(path: str) -> tuple[int, int]:
            try:
                result = os.stat(path)
            except OSError:
                return -1, -1
            return result.st_size, result.st_mtime_ns

        for record in records:
            version = (record.file_size, record.tag) if isinstance(record, RemoteRecord) else status(record.path)
            text = f"{self.version}\0{record.key}\0{record.offset}\0{record.length}\0{version}"
            yield hashlib.blake2b(text.encode(), digest_size=16).hexdigest().encode()

    def load(self, identities: Sequence[bytes], keep: Callable[[int, npt.NDArray[Any]], None]) -> set[int]:
        """Load the cached fingerprints.

        Args:
            identities: of the records, as `identities` returns them.
            keep: called with an index into `identities` and the row.

        Returns:
            The indices of the records that are in the cache.
        """
        wanted = {identity: place for place, identity in enumerate(identities)}
        loaded: set[int] = set()
        for path in sorted(self.folder.glob("*.npy")):
            part = self._part(path)
            if part is None:
                continue
            for index, identity in enumerate(part["identity"].tolist()):
                if (place := wanted.get(identity)) is not None and place not in loaded:
                    keep(place, part["row"][index])
                    loaded.add(place)
        return loaded

    def add(self, rows: Sequence[tuple[bytes, npt.NDArray[Any]]]) -> None:
        """Write a part. Raises SalpipeError if it cannot be written."""
        part = np.empty(len(rows), self.dtype)
        for index, (identity, row) in enumerate(rows):
            part[index] = identity, row
        file = io.BytesIO()
        np.save(file, part, allow_pickle=False)
        make_output(self.folder.parent)
        make_subfolder(self.folder)
        data = file.getvalue()
        write_atomically(self.folder / f"{hashlib.sha256(data).hexdigest()}.npy", data)

    def _part(self, path: Path) -> npt.NDArray[Any] | None:
        """The rows of a part; None if it is damaged or of another kind."""
        try:
            data = read_regular(path, _MAX_PART_BYTES)
        except (OSError, DocumentError):
            return None
        if hashlib.sha256(data).hexdigest() != path.stem:
            return None
        try:
            part = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception:  # whatever is wrong with a part, its fingerprints are computed again
            return None
        return part if isinstance(part, np.ndarray) and part.dtype == self.dtype and part.ndim == 1 else None
