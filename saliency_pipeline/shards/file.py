"""The open file of a shard: reads bytes into arrays of the caller, or raises an error that names the file.

A memory map would be as fast, but where the file behind it is truncated or the disk fails, touching it ends the
process with a Bus error. A read raises an error instead.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import IntegrityError

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change of a file."""


def identity_of(file: int) -> Identity:
    """The identity of an open file, which differs for a file that replaced it or was changed since."""
    status = os.fstat(file)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _Descriptor:
    """The number of an open file, which is closed with this object.

    An object of its own, because weak references to a `ShardFile` have to be dead before its file is closed: Python
    calls `__del__` of an object before it clears the weak references to it, and closing lets other threads run.
    """

    number: int | None = None

    def __init__(self, path: Path, number: int | None) -> None:
        self.number = open_regular(path) if number is None else number

    def __del__(self) -> None:
        if self.number is not None:
            os.close(self.number)


class ShardFile:
    """A shard's file, open as long as this object exists; any number of threads and forked processes may read.

    Args:
        path: the file.
        identity: its identity.
        number: its descriptor, if it is open already; it is closed with this object.

    Raises:
        IntegrityError: it cannot be opened, or is no longer that file.
    """

    def __init__(self, path: Path, identity: Identity, number: int | None = None) -> None:
        self.path, self.identity = path, identity
        try:
            self._descriptor = _Descriptor(path, number)
        except OSError as error:
            raise self._unreadable(error) from error
        self._check()

    def read(self, offset: int, out: npt.NDArray[Any]) -> None:
        """Fill a C-contiguous array with the bytes from an offset on.

        Raises:
            IntegrityError: the file was truncated, replaced or changed, or the disk fails.
        """
        if out.size:
            self._fill(out.reshape(-1).view(np.uint8).data, offset)
        self._check()

    def gather(
        self, offset: int, rows: npt.NDArray[np.integer[Any]], out: npt.NDArray[Any], places: npt.NDArray[Any]
    ) -> None:
        """Copy rows of equal size, the first of which is at an offset, to positions of a C-contiguous array.

        Args:
            offset: offset of row 0 in bytes.
            rows: (B,) row numbers, may repeat.
            out: (M, ...), each item as large as a row.
            places: (B,) positions in `out`.

        Raises:
            IntegrityError: the file was truncated, replaced or changed, or the disk fails.
        """
        each = out[:1].nbytes
        if len(rows) and each:
            view = out.reshape(-1).view(np.uint8).data
            # rows that follow one another in the file and in the array are read with one call
            first, place, count = int(rows[0]), int(places[0]), 0
            for row, where in zip(rows.tolist(), places.tolist(), strict=True):
                if row != first + count or where != place + count:
                    self._fill(view[place * each : (place + count) * each], offset + first * each)
                    first, place, count = row, where, 0
                count += 1
            self._fill(view[place * each : (place + count) * each], offset + first * each)
        self._check()

    def _fill(self, buffer: memoryview, offset: int) -> None:
        number = self._descriptor.number
        assert number is not None
        while len(buffer):
            try:
                count = os.preadv(number, (buffer,), offset)
            except OSError as error:
                raise self._unreadable(error) from error
            if count == len(buffer):
                return
            if not count:
                raise IntegrityError(
                    f"{self.path}: was truncated while it was being read; run 'salpipe verify', then 'salpipe "
                    "generate' again to repair it"
                )
            buffer, offset = buffer[count:], offset + count

    def _check(self) -> None:
        """After reading: whoever writes into a file changes its time before its bytes."""
        number = self._descriptor.number
        assert number is not None
        try:
            same = identity_of(number) == self.identity
        except OSError as error:
            raise self._unreadable(error) from error
        if not same:
            raise IntegrityError(
                f"{self.path}: was replaced while it was being read; run 'salpipe verify --deep', "
                "then the same command again"
            )

    def _unreadable(self, error: OSError) -> IntegrityError:
        remedy = "run 'salpipe verify'"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            remedy = "allow more open files (ulimit -n)"
        return IntegrityError(f"{self.path}: cannot be read ({error.strerror or error}); {remedy}")
