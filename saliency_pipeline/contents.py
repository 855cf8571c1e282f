"""Bytes of a file at offsets: of a file of this machine, or of a remote one that has a stand-in here.

Readers of archives and tables open files here, so that they read a remote one as they read one on disk.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Protocol

from saliency_pipeline.documents import open_regular


class Contents(Protocol):
    """An open file."""

    @property
    def size(self) -> int:
        """Number of its bytes."""

    def read(self, length: int, offset: int) -> bytes:
        """Bytes from an offset; fewer at the end of the file. Raises OSError, or SalpipeError for a remote file."""


class LocalContents:
    """A file of this machine."""

    def __init__(self, file: int) -> None:
        self._file = file

    @property
    def size(self) -> int:
        """See `Contents`."""
        return os.fstat(self._file).st_size

    def read(self, length: int, offset: int) -> bytes:
        """See `Contents`."""
        return os.pread(self._file, length, offset)


_stand_ins: ContextVar[Mapping[str, Contents]] = ContextVar("stand_ins", default=MappingProxyType({}))


@contextmanager
def standing_in(files: Mapping[str, Contents]) -> Iterator[None]:
    """Let `open_contents` return other contents than those of some files, by path; in this thread only."""
    token = _stand_ins.set({**_stand_ins.get(), **files})
    try:
        yield
    finally:
        _stand_ins.reset(token)


@contextmanager
def open_contents(path: str | os.PathLike[str]) -> Iterator[Contents]:
    """Open a regular file for reading at offsets.

    Raises:
        OSError: it cannot be opened, see `open_regular`.
    """
    if (other := _stand_ins.get().get(os.fspath(path))) is not None:
        yield other
        return
    with open(path, "rb", 0, opener=open_regular) as file:
        yield LocalContents(file.fileno())


def stand_in_stream(path: str) -> Any:
    """A binary stream of the contents of a stand-in, for libraries that read files; the path of any other file."""
    other = _stand_ins.get().get(path)
    return path if other is None else ContentsStream(other)


class ContentsStream(io.RawIOBase):
    """A readable binary stream of contents."""

    def __init__(self, contents: Contents) -> None:
        super().__init__()
        self._contents, self._at = contents, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._contents.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self._contents.read(len(view), self._at)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
