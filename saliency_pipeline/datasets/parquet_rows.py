"""Rows of parquet files: the columns that have images and labels, and the records that read an image from a row."""

from __future__ import annotations

import bisect
import errno
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from saliency_pipeline.contents import stand_in_stream, standing_in
from saliency_pipeline.datasets.parquet_pages import MAX_THRIFT_ITEMS, check_footer, check_pages, row_groups
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import MAX_FILE_BYTES, ImageRecord
from saliency_pipeline.images.remote_record import RemoteRecord
from saliency_pipeline.remote.ahead import Span
from saliency_pipeline.text import shown

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")

_BUFFER_BYTES = 2**20
_BYTES, _TEXTS = ("binary", "large_binary"), ("string", "large_string")  # types of Arrow

_thread = threading.local()


@dataclass(frozen=True, slots=True)
class ParquetRecord(ImageRecord):
    """An image in a row of a parquet file.

    Attributes:
        row: row of the file, from 0.
        length: mean number of bytes per image of its row group, since single sizes are only stored with the bytes.
    """

    row: int = 0

    def read(self) -> bytes:
        """The bytes of the image. Raises OSError if they cannot be read or exceed `MAX_FILE_BYTES`."""
        return _row(self.path, self.row, _identity(self.path))


@dataclass(frozen=True, slots=True)
class RemoteParquetRecord(RemoteRecord):
    """An image in a row of a remote parquet file.

    Attributes:
        row: row of the file, from 0.
        length: mean number of bytes per image of its row group.
        group_start: offset of the pages of its row group that have images.
        group_end: offset behind them.
    """

    row: int = 0
    group_start: int = 0
    group_end: int = 0

    @property
    def span(self) -> Span:
        """The pages of the row group."""
        return Span(self.file, self.group_start, self.group_end)

    def read(self) -> bytes:
        """The bytes of the image. Raises OSError if they are damaged or too long; SalpipeError as `RemoteRecord`."""
        with standing_in({self.path: self.file}):
            return _row(self.path, self.row, (os.getpid(), self.file))


def _row(path: str, row: int, identity: tuple[object, ...]) -> bytes:
    """The image of a row.

    Each thread keeps its last file open. Rows in the order of the file are read once; others need those before them in
    their row group.
    """
    rows: _Rows | None = getattr(_thread, "rows", None)
    _thread.rows = None  # after an error the file is opened again
    with errors_of_arrow(path):
        if rows is None or rows.identity != identity:
            rows = _Rows(path, identity)
        data = rows.read(row)
    _thread.rows = rows
    return data


class _Rows:
    """The images of one file, read forwards."""

    def __init__(self, path: str, identity: tuple[object, ...]) -> None:
        self.identity = identity
        self._path = path
        self._file = open_table(path)
        self._columns = columns_of(self._file.schema_arrow, path)
        self._groups = row_groups(path)
        self._starts = list(itertools.accumulate((group.rows for group in self._groups), initial=0))
        self._group = -1
        self._next = 0
        self._batches: Iterator[Any] = iter(())

    def read(self, row: int) -> bytes:
        group = bisect.bisect_right(self._starts, row) - 1
        if group != self._group or row < self._next:
            if group >= len(self._groups):
                raise OSError(errno.EIO, "the file has fewer rows than it had", self._path)
            facts = self._groups[group]
            check_pages(self._path, facts.chunk(self._columns.bytes), facts.rows)
            # row by row: a dictionary can expand a few bytes to many large rows
            self._batches = self._file.iter_batches(
                1, row_groups=[group], columns=[self._columns.bytes], use_threads=False
            )
            self._group, self._next = group, self._starts[group]
        for batch in self._batches:
            self._next += 1
            if self._next > row:
                value = leaves_of(batch)[self._columns.bytes][0].as_buffer()
                if value is None:
                    break
                if value.size > MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), self._path)
                return bytes(value)
        raise OSError(errno.EIO, "the row holds no image", self._path)


def _identity(path: str) -> tuple[object, ...]:
    """Identity of an open file: not that of the parent process, nor of a file that has replaced it."""
    status = os.stat(path)
    return os.getpid(), path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Columns(NamedTuple):
    """The columns that hold the images, their names and their labels; None where there is none."""

    bytes: str
    path: str | None
    label: str | None


def leaves_of(batch: Any) -> dict[str, Any]:
    """The arrays of a batch by column name, those of a structure as `image.bytes`."""
    from pyarrow import types

    leaves: dict[str, Any] = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if types.is_struct(array.type):
            leaves |= {f"{name}.{field.name}": part for field, part in zip(array.type, array.flatten(), strict=True)}
        else:
            leaves[name] = array
    return leaves


def columns_of(schema: Any, path: str) -> Columns:
    """The columns of a file with an Arrow schema. Raises SalpipeError if none has images."""
    from pyarrow import types

    image = next((schema.field(name) for name in IMAGE_COLUMNS if schema.get_field_index(name) >= 0), None)
    label = next((schema.field(name) for name in LABEL_COLUMNS if schema.get_field_index(name) >= 0), None)
    if label is not None and not types.is_integer(label.type):
        raise SalpipeError(f"{shown(path)}: column {label.name} is {label.type}; give the classes as numbers")
    number = label and label.name
    # Arrow confuses a column named "image.bytes" with the bytes of the column image
    if image is not None and not any(name.startswith((f"{image.name}.", f"{number}.")) for name in schema.names):
        kinds = {field.name: str(field.type) for field in image.type} if types.is_struct(image.type) else {}
        if str(image.type) in _BYTES:
            return Columns(image.name, None, number)
        if kinds.get("bytes") in _BYTES:
            path_column = f"{image.name}.path" if kinds.get("path") in _TEXTS else None
            return Columns(f"{image.name}.bytes", path_column, number)
    raise SalpipeError(f"{shown(path)}: no column image with the bytes of images; give tables that have one")


def open_table(path: str, **options: Any) -> Any:
    """Open a parquet file with limits on memory; `options` are those of `ParquetFile`.

    Raises:
        SalpipeError: pyarrow is missing.
        ValueError, OSError: the file is damaged.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise SalpipeError(f"{shown(path)} needs pyarrow; pip install 'saliency-pipeline[parquet]'") from None
    check_footer(path)
    # without threads, which a forked process lacks, and without whole columns in memory
    options |= {"pre_buffer": False, "buffer_size": _BUFFER_BYTES, "thrift_container_size_limit": MAX_THRIFT_ITEMS}
    return parquet.ParquetFile(stand_in_stream(path), **options)


@contextmanager
def errors_of_arrow(path: str) -> Iterator[None]:
    """Raise Arrow's errors for a damaged file as OSError with a reason of one line."""
    try:
        yield
    except Exception as error:
        # ValueErrors come from page checks, and from Arrow for column names that it cannot decode
        arrows = type(error).__module__.startswith("pyarrow") or isinstance(error, ValueError)
        if arrows or (isinstance(error, OSError) and error.errno is None):
            reason = shown(str(error).partition("\n")[0][:200])
            raise OSError(errno.EIO, reason, path) from None
        raise
