"""`ShardWriter`: writes one shard, an HDF5 file whose bytes depend only on its header and rows."""

from __future__ import annotations

import io
import math
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt

from saliency_pipeline.files import disk_errors_explained
from saliency_pipeline.shards import schema
from saliency_pipeline.shards.schema import Column, ShardHeader, ShardRows
from saliency_pipeline.temporaries import exclusive, temporary_name

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# one version of the file format for all versions of the library; the first with checksums on all metadata and a
# mark in the superblock while a file is being written
_LIBRARY_VERSION = ("v110", "v110")
_COPY_BYTES = 8 * 2**20
# data sets with rows this small are collected in memory and written once: every write takes about 0.1 ms
_SMALL_BYTES = 1024


class ShardWriter:
    """Writes a shard to a temporary name; leaving the block without `finish` removes it.

    The bytes depend only on the header and the rows: not on how the rows are divided into calls of `append`, on the
    capacity or on the time.

    Args:
        path: file to write, a temporary name (`saliency_pipeline.temporaries.temporary_name`) that the caller publishes
            before the block is left: until then its lock is held.
        header: attributes that all rows share.
        capacity: maximum number of rows; with fewer, `finish` copies the file once.

    >>> import tempfile
    >>> from saliency_pipeline.shards.shard import Shard
    >>> from saliency_pipeline.shards.schema import MapShape
    >>> header = ShardHeader("plan", {}, ("cat", "dog"), 2, "raw", {"gradcam": MapShape(1, 1, 2)})
    >>> rows = ShardRows(
    ...     keys=["cat/1.jpg"],
    ...     labels=np.array([0]),
    ...     splits=np.array([-1], dtype=np.int8),
    ...     images=np.full((1, 2, 2, 3), 9, dtype=np.uint8),
    ...     sha256=np.zeros((1, 32), dtype=np.uint8),
    ...     source_size=np.array([[480, 640]], dtype=np.int32),
    ...     prediction_class=np.array([[4, 3, 2, 1, 0]], dtype=np.int32),
    ...     prediction_score=np.array([[0.5, 0.2, 0.1, 0.1, 0.1]], dtype=np.float32),
    ...     maps={"gradcam": np.array([[[[0.0, 3.0]]]], dtype=np.float32)},
    ...     targets={"gradcam": np.array([[4]], dtype=np.int32)},
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "shard-00000.h5"
    ...     with ShardWriter(path, header, capacity=1) as writer:
    ...         writer.append(rows)
    ...         written = writer.finish()
    ...     Shard(path).maps("gradcam").tolist()
    [[[[0.0, 3.0]]]]
    """

    def __init__(self, path: Path, header: ShardHeader, capacity: int) -> None:
        self.path = Path(path)
        self.header = header
        self.capacity = capacity
        self.rows = 0
        self._keys: list[bytes] = []
        self._ragged: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in schema.ragged(header)}
        self._small: dict[str, list[npt.NDArray[np.generic]]] = {
            name: [np.empty(column.shape, column.dtype)]
            for name, column in schema.columns(header, 0).items()
            if math.prod(column.shape[1:]) * column.dtype.itemsize <= _SMALL_BYTES
        }
        self._file: _File | None = None
        self._finished: _File | None = None

    @property
    def descriptor(self) -> int:
        """File descriptor of the finished file, for `files.publish`."""
        if self._finished is None:
            raise ValueError(f"{self.path}: the writer has not finished")
        return self._finished.descriptor

    def __enter__(self) -> ShardWriter:
        with disk_errors_explained(self.path):
            self._file = _File(self.path, self.header, self.capacity)
        return self

    def append(self, rows: ShardRows) -> None:
        """Append rows, whose raw maps are encoded here.

        Raises:
            SalpipeError: the disk is full or cannot be written.
            ValueError: shapes, types or the number of rows do not fit the header.
        """
        file = self._opened()
        arrays, pieces, keys = self._arrays(rows), self._pieces(rows), [key.encode() for key in rows.keys]
        with disk_errors_explained(self.path):
            for name, array in arrays.items():
                if name in self._small:
                    self._small[name].append(array.copy())
                else:
                    file.put(name, self.rows, array)
            file.check()
        self._keys += keys
        for name, new in pieces.items():
            self._ragged[name] += new
        self.rows += len(rows)

    def finish(self) -> int:
        """Complete and close the file; nothing can be appended afterwards.

        Returns:
            The number of rows in it.

        Raises:
            SalpipeError: the disk is full or cannot be written; the file is removed when the block is left.
        """
        with disk_errors_explained(self.path):
            if self.rows < self.capacity:
                self._compact()
            file = self._opened()
            for name, arrays in self._small.items():
                file.put(name, 0, np.concatenate(arrays))
            file.add_keys(self._keys)
            for name, (offsets, each) in schema.ragged(self.header).items():
                file.add_ragged(name, offsets, each, self._ragged[name])
            file.complete()
            self._file = None
            file.close()
            self._finished = file
        return self.rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.discard()
        if self._finished is not None:
            self._finished.unlock()

    def _opened(self) -> _File:
        if self._file is None:
            raise ValueError(f"{self.path}: the writer is closed")
        return self._file

    def _arrays(self, rows: ShardRows) -> dict[str, npt.NDArray[np.generic]]:
        """The rows as arrays per data set, checked: HDF5 would broadcast and cast what does not fit."""
        if self.rows + len(rows) > self.capacity:
            raise ValueError(f"{self.path}: {self.rows + len(rows)} rows do not fit the capacity of {self.capacity}")
        if set(rows.maps) != set(self.header.maps) or set(rows.targets) != set(self.header.maps):
            raise ValueError(f"maps of {sorted(rows.maps)}, the shard holds {sorted(self.header.maps)}")
        if set(rows.residuals) != {method for method, shape in self.header.maps.items() if shape.residual}:
            raise ValueError(f"residuals of {sorted(rows.residuals)} do not fit the header")
        if set(rows.standard_errors) != {m for m, shape in self.header.maps.items() if shape.standard_error}:
            raise ValueError(f"standard errors of {sorted(rows.standard_errors)} do not fit the header")
        if any("\0" in key or not key for key in rows.keys):
            raise ValueError("a key is empty or holds a NUL character")
        arrays: dict[str, npt.NDArray[np.generic]] = {
            schema.LABEL: rows.labels,
            schema.SPLIT: rows.splits,
            schema.SHA256: rows.sha256,
            schema.SOURCE_SIZE: rows.source_size,
            schema.PREDICTED: rows.prediction_class,
            schema.SCORE: rows.prediction_score,
        }
        if len(rows.groups) and not self.header.groups:
            raise ValueError("groups for a shard without groups")
        if self.header.groups:
            arrays[schema.GROUP] = np.asarray(rows.groups)
        for method, raw in rows.maps.items():
            stored, scale, flag = schema.encode_maps(raw)
            arrays[schema.map_path(method, "map")] = stored
            arrays[schema.map_path(method, "scale")] = scale
            arrays[schema.map_path(method, "target")] = rows.targets[method]
            for bit, images in ((schema.SINGLE_COLOR, rows.single_color), (schema.SEEN, rows.seen)):
                if len(images):
                    flag |= np.where(images, np.uint8(bit), np.uint8(0))[:, None]
            arrays[schema.map_path(method, "flag")] = flag
        parts: tuple[tuple[schema.MapPart, dict[str, npt.NDArray[np.float32]]], ...]
        parts = ("residual", rows.residuals), ("standard_error", rows.standard_errors)
        for part, numbers in parts:
            for method, values in numbers.items():
                arrays[schema.map_path(method, part)] = np.where(np.isfinite(values), values, np.float32(np.nan))
        if isinstance(rows.images, list) != (self.header.encoding == "jpeg"):
            raise ValueError(f"images are {type(rows.images).__name__}, the encoding is {self.header.encoding}")
        if not isinstance(rows.images, list):
            arrays[schema.IMAGE] = rows.images
        for name, column in schema.columns(self.header, len(rows)).items():
            array = arrays[name]
            if array.shape != column.shape or array.dtype != column.dtype:
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not {column.dtype} {column.shape}")
        return arrays

    def _pieces(self, rows: ShardRows) -> dict[str, list[npt.NDArray[np.generic]]]:
        """The rows of ragged data sets, one array per image."""
        pieces: dict[str, list[npt.NDArray[np.generic]]] = {}
        if self.header.boxes:
            pieces[schema.BOX] = [np.array(boxes, np.int32).reshape(-1, 4) for boxes in rows.boxes]
        if isinstance(rows.images, list):
            pieces["image_bytes"] = [np.frombuffer(jpeg, np.uint8) for jpeg in rows.images]
        for name, arrays in pieces.items():
            if len(arrays) != len(rows):
                raise ValueError(f"{len(rows)} keys but {len(arrays)} images in {name}")
        if len(rows.boxes) and not self.header.boxes:
            raise ValueError("boxes for a shard without boxes")
        return pieces

    def _compact(self) -> None:
        """Copy the rows into a file of their number: contiguous data sets cannot shrink."""
        full = self._opened()
        fitting = _File(temporary_name(self.path), self.header, self.rows)
        try:
            for name, column in schema.columns(self.header, self.rows).items():
                if name in self._small:
                    continue
                step = max(1, _COPY_BYTES * self.rows // max(1, column.nbytes))
                for start in range(0, self.rows, step):
                    fitting.put(name, start, full.get(name, start, min(start + step, self.rows)))
                    fitting.check()
            full.discard()
            os.replace(fitting.path, self.path)
        except BaseException:
            fitting.discard()
            raise
        fitting.path = self.path
        self._file = fitting


class _Disk(io.FileIO):
    """The file below HDF5, which holds back the first error until `check`.

    A write that fails inside HDF5 leaves the library with state that it can neither flush nor drop: closing the file
    then raises again, and the process ends in a segmentation fault. So HDF5 receives no error.
    """

    error: BaseException | None = None

    def write(self, data: ReadableBuffer) -> int:
        view = memoryview(data).cast("B")
        try:
            done = 0 if self.error is None else view.nbytes
            while done < view.nbytes:
                done += super().write(view[done:]) or 0
        except BaseException as error:
            self.error = error
        return view.nbytes

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.error is None:
                return super().truncate(size)
        except BaseException as error:
            self.error = error
        return size or 0

    def check(self) -> None:
        """Raise the error that was held back from HDF5."""
        if self.error is not None:
            raise self.error


class _File:
    """One HDF5 file with room for a fixed number of rows."""

    def __init__(self, path: Path, header: ShardHeader, rows: int) -> None:
        self.path = path
        self._disk = _Disk(path, "x+", opener=exclusive)
        self._hdf = h5py.File(self._disk, "w", libver=_LIBRARY_VERSION)
        try:
            texts = {
                "format": schema.FORMAT,
                "format_version": header.version,
                "plan": header.plan,
                "provenance": schema.to_json(header.provenance),
                "classes": schema.to_json(header.classes),
                "encoding": header.encoding,
            }
            for name, text in texts.items():
                # of fixed length: strings of variable length are stored in a heap without checksums, in which one
                # damaged byte can send the library into an endless loop
                data = text.encode()
                self._hdf.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))
            self._hdf.attrs["size"] = np.int64(header.size)
            self._hdf.attrs["complete"] = np.uint8(0)
            self._data = {name: self._create(name, column) for name, column in schema.columns(header, rows).items()}
            self.check()
        except BaseException:
            self.discard()
            raise

    def _create(self, name: str, column: Column) -> h5py.Dataset:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        # its offset in the file is fixed now, and nothing but the data is written there
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        space = h5py.h5s.create_simple(column.shape)
        kind = h5py.h5t.py_create(column.dtype, logical=True)
        return h5py.Dataset(h5py.h5d.create(self._hdf.id, name.encode(), kind, space, properties, lcpl=links))

    def put(self, name: str, start: int, array: npt.NDArray[np.generic]) -> None:
        """Write rows from `start` on."""
        if len(array):
            self._data[name][start : start + len(array)] = array

    def get(self, name: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Rows `start` to `stop` as stored."""
        rows: npt.NDArray[np.generic] = self._data[name][start:stop]
        return rows

    def add_keys(self, keys: list[bytes]) -> None:
        """Write `key`: strings of fixed length, that of the longest, padded with NUL."""
        width = max((len(key) for key in keys), default=1)
        column = Column(h5py.string_dtype("utf-8", width), (len(keys),))
        self._data["key"] = self._create("key", column)
        self.put("key", 0, np.array(keys, dtype=column.dtype))

    def add_ragged(self, name: str, offsets: str, each: Column, pieces: list[npt.NDArray[np.generic]]) -> None:
        """Write a data set of which image i has the rows `offsets[i]` to `offsets[i + 1]`, and those offsets."""
        where = np.cumsum([0, *map(len, pieces)], dtype=np.uint64)
        rows = np.concatenate([np.empty((0, *each.shape), each.dtype), *pieces])
        for called, array in ((offsets, where), (name, rows)):
            self._data[called] = self._create(called, Column(array.dtype.newbyteorder("<"), array.shape))
            self.put(called, 0, array)

    def check(self) -> None:
        """Raise the first disk error since the file was created."""
        self._disk.check()

    def complete(self) -> None:
        """Mark the file as complete, after everything else is flushed."""
        self._hdf.flush()
        self.check()
        self._hdf.attrs.modify("complete", np.uint8(1))

    @property
    def descriptor(self) -> int:
        """File descriptor of the file below HDF5."""
        return self._disk.fileno()

    def close(self) -> None:
        """Close the file but keep its lock; on failure the file is removed."""
        try:
            self._hdf.close()
            self.check()
        except BaseException:
            self.discard()
            raise

    def unlock(self) -> None:
        """Release the lock of a closed file."""
        self._disk.close()

    def discard(self) -> None:
        """Close and remove the file, whatever state it is in."""
        # with an error set, HDF5 writes nothing more
        self._disk.error = self._disk.error or OSError("discarded")
        self._hdf.close()
        with suppress(OSError):
            self._disk.close()
        self.path.unlink(missing_ok=True)
