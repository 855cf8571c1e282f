"""Records of images that lie in remote files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from saliency_pipeline.images.record import MAX_FILE_BYTES, ImageRecord
from saliency_pipeline.remote.ahead import ReadAhead, Span
from saliency_pipeline.remote.file import RemoteFile


@dataclass(frozen=True, slots=True)
class RemoteRecord(ImageRecord):
    """An image in a remote file.

    Attributes:
        path: URL of the file.
        length: number of the image's bytes, never None.
        file_size: number of bytes of the file.
        tag: what identifies the file's version.
    """

    file_size: int = 0
    tag: str = ""

    @property
    def file(self) -> RemoteFile:
        """The file."""
        return RemoteFile(self.path, self.file_size, self.tag)

    @property
    def span(self) -> Span:
        """The part of the file that is read for the image."""
        return Span(self.file, self.offset, self.offset + (self.length or 0))

    def read(self) -> bytes:
        """The bytes of the image.

        Raises:
            OSError: they exceed `MAX_FILE_BYTES`.
            SalpipeError: the file has changed or cannot be read, which is no fault of the image.
        """
        length = self.length or 0
        if length > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self.path)
        return self.file.read(length, self.offset)


def is_remote(records: Sequence[ImageRecord]) -> bool:
    """Return whether the images of a data set are remote: all are, or none is."""
    return bool(records) and isinstance(records[0], RemoteRecord)


def need(ahead: ReadAhead | None, records: Iterable[ImageRecord]) -> None:
    """Read ahead what some images need, by their keys."""
    if ahead is not None:
        spans = [(record.key, record.span) for record in records if isinstance(record, RemoteRecord)]
        ahead.need([(key, span) for key, span in spans if span.end - span.start <= MAX_FILE_BYTES])
