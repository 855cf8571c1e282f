"""`Shard`: reads one shard file. Finished folders are read by `reader.py`, values are checked by `verify.py`.

The layout is read by HDF5 once per file, which is closed again; the data are read from the plain file. So no HDF5
handle is ever carried into a forked worker, where it would give silently wrong data.
"""

from __future__ import annotations

import io
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.images.formats import MAX_SCANS, SCAN
from saliency_pipeline.shards import schema
from saliency_pipeline.shards.file import ShardFile
from saliency_pipeline.shards.layout import Layout, read_layout
from saliency_pipeline.shards.schema import MapPart, ShardHeader

Rows = Sequence[int] | slice | npt.NDArray[np.integer[Any]] | None


@dataclass(frozen=True)
class Pair:
    """One image with its maps.

    Attributes:
        key: unique name in the data set.
        image: uint8 (S, S, 3) RGB, the frame that the source model saw.
        label: index into the classes, -1 unlabeled.
        class_name: name of that class; None where unlabeled.
        split: 0 train, 1 validation, 2 test, -1 none.
        prediction_class: the source model's top 5, int32 (5,), -1 where it has fewer classes.
        prediction_score: their softmax, float32 (5,) in [0, 1].
        maps: for each method raw maps, float32 (T, h, w).
        targets: for each method the class explained, int32 (T,); -1 for a map that explains no class.
        source_size: height and width of the original image in pixels.
    """

    key: str
    image: npt.NDArray[np.uint8]
    label: int
    class_name: str | None
    split: int
    prediction_class: npt.NDArray[np.int32]
    prediction_score: npt.NDArray[np.float32]
    maps: dict[str, npt.NDArray[np.float32]]
    targets: dict[str, npt.NDArray[np.int32]]
    source_size: tuple[int, int]


class Described(ABC):
    """Base of classes whose images share a header."""

    @property
    @abstractmethod
    def header(self) -> ShardHeader:
        """What all images share."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.header.classes

    @property
    def provenance(self) -> dict[str, Any]:
        """How the maps were made."""
        return self.header.provenance

    @property
    def source(self) -> dict[str, Any]:
        """The source model's part of the provenance; empty if that has none, as in a file from outside."""
        source = self.provenance.get("source")
        return source if isinstance(source, dict) else {}

    @property
    def source_classes(self) -> list[Any]:
        """Names of the source model's classes, as far as the provenance has them."""
        classes = self.source.get("classes")
        return classes if isinstance(classes, list) else []

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the saliency methods, sorted."""
        return tuple(self.header.maps)


class Shard(Described):
    """One shard file, opened on first use; safe to pickle and to use in forked workers.

    Args:
        path: the file.
        opened: holds the open files of this shard and others; when it is full, the one opened first is closed.
        layout: layout of the file, if it was read already.

    Raises:
        IntegrityError: on first use, if the file is damaged, unfinished or not a shard; on any, if it is truncated
            or changed while it is being read.
    """

    def __init__(self, path: Path | str, opened: deque[ShardFile] | None = None, layout: Layout | None = None) -> None:
        self.path = Path(path)
        self._layout = layout
        self._opened: deque[ShardFile] = deque(maxlen=1) if opened is None else opened
        self._file: weakref.ref[ShardFile] | None = None

    def __reduce__(self) -> tuple[type[Shard], tuple[Path]]:
        return Shard, (self.path,)

    @property
    def is_open(self) -> bool:
        """True if the file is open."""
        return self._file is not None and self._file() is not None

    def close(self) -> None:
        """Close the file as soon as no thread reads from it; the next use opens it again."""
        file = None if self._file is None else self._file()
        with suppress(ValueError):
            if file is not None:
                self._opened.remove(file)

    @property
    def layout(self) -> Layout:
        """Offsets, types and shapes of the data sets."""
        if self._layout is None:
            layout, problems = read_layout(self.path)
            if layout is None or problems:
                raise IntegrityError(
                    f"{self.path}: {problems[0]}; run 'salpipe verify', then 'salpipe generate' again to repair it"
                )
            self._layout = layout
        return self._layout

    def agree(self, rows: int, header: ShardHeader) -> bool:
        """Return whether number of rows and header match; the header is then shared instead of copied."""
        if len(self) != rows or self.header != header:
            return False
        self._layout = replace(self.layout, header=header)
        return True

    def read(self, name: str, rows: Rows | int = None) -> npt.NDArray[Any]:
        """Rows (default all) of a data set as stored, in memory of their own.

        Raises:
            IntegrityError: the file was truncated, replaced or changed, or the disk fails.
        """
        _, column = self.layout.places[name]
        if rows is None or (isinstance(rows, slice) and rows.step in (None, 1)):
            start, stop, _ = (rows or slice(None)).indices(column.shape[0])
            return self._range(name, start, max(start, stop))
        chosen = np.arange(column.shape[0])[rows]
        values = np.empty((chosen.size, *column.shape[1:]), column.dtype)
        self.gather(name, chosen.ravel(), values, np.arange(chosen.size))
        return values.reshape((*chosen.shape, *column.shape[1:]))

    def gather(
        self, name: str, rows: npt.NDArray[np.integer[Any]], out: npt.NDArray[Any], places: npt.NDArray[Any]
    ) -> None:
        """Copy rows of a data set into places of an array of its type.

        The rows may be parts of those stored: of maps (N, T, h, w) into an array (B, h, w), those numbered row * T +
        target. See `ShardFile.gather`.
        """
        self._open().gather(self.layout.places[name][0], rows, out, places)

    def _range(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows `start` to `stop` of a data set."""
        offset, column = self.layout.places[name]
        values = np.empty((stop - start, *column.shape[1:]), column.dtype)
        self._open().read(offset + start * values[:1].nbytes, values)
        return values

    def _open(self) -> ShardFile:
        # the reader holds the file itself, so that it stays open if another thread removes it from `opened`
        file = None if self._file is None else self._file()
        if file is None:
            file = ShardFile(self.path, self.layout.identity)
            self._opened.append(file)
            self._file = weakref.ref(file)
        return file

    def __len__(self) -> int:
        return self.layout.rows

    def __getitem__(self, row: int) -> Pair:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        label = int(self.read(schema.LABEL, row))
        if not -1 <= label < len(self.classes):
            raise self._damaged(f"'{self.keys[row]}' has label {label} of {len(self.classes)} classes")
        return Pair(
            key=self.keys[row],
            image=self.images([row])[0],
            label=label,
            class_name=self.classes[label] if label >= 0 else None,
            split=int(self.read(schema.SPLIT, row)),
            prediction_class=self.read(schema.PREDICTED, row),
            prediction_score=self.read(schema.SCORE, row),
            maps={method: self.maps(method, [row])[0] for method in self.methods},
            targets={method: self.targets(method, [row])[0] for method in self.methods},
            source_size=tuple(self.read(schema.SOURCE_SIZE, row).tolist()),
        )

    @property
    def header(self) -> ShardHeader:
        """What all images of the shard share."""
        return self.layout.header

    @property
    def size(self) -> int:
        """S, height and width of the frames in pixels."""
        return self.header.size

    @cached_property
    def keys(self) -> list[str]:
        """Unique names of the images, in the order stored."""
        try:
            return [key.decode() for key in self.read("key").tolist()]
        except UnicodeDecodeError as error:
            raise self._damaged("a key is not UTF-8") from error

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Index into the classes, int64 (N,); -1 unlabeled."""
        labels = self.read(schema.LABEL)
        if labels.size and (labels.min() < -1 or labels.max() >= len(self.classes)):
            raise self._damaged(f"a label is outside the {len(self.classes)} classes")
        return labels

    @property
    def splits(self) -> npt.NDArray[np.int8]:
        """0 train, 1 validation, 2 test, -1 none; int8 (N,)."""
        splits: npt.NDArray[np.int8] = self.read(schema.SPLIT)
        if splits.size and (splits.min() < -1 or splits.max() > 2):
            raise self._damaged("a split is none of -1, 0, 1 and 2")
        return splits

    @property
    def predictions(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The source model's top 5: classes int32 (N, 5), -1 where it has fewer, and softmax float32 (N, 5)."""
        return self.read(schema.PREDICTED), self.read(schema.SCORE)

    @property
    def source_sizes(self) -> npt.NDArray[np.int32]:
        """Height and width of the original images in pixels, int32 (N, 2)."""
        return self.read(schema.SOURCE_SIZE)

    @property
    def source_sha256(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of the original files, uint8 (N, 32)."""
        return self.read(schema.SHA256)

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Equal for images of one group, such as duplicates, int64 (N,); -1 for an image without one."""
        return self.read(schema.GROUP) if self.header.groups else np.full(len(self), -1, np.int64)

    def images(self, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Frames of the rows (default all): uint8 (B, S, S, 3) RGB.

        Raises:
            IntegrityError: a stored JPEG cannot be decoded.
        """
        if self.header.encoding == "raw":
            return self.read(schema.IMAGE, rows)
        chosen = np.arange(len(self))[slice(None) if rows is None else rows]
        frames = np.empty((len(chosen), self.size, self.size, 3), dtype=np.uint8)
        for frame, row in zip(frames, chosen.tolist(), strict=True):
            frame[:] = self.frame(row)
        return frames

    def frame(self, row: int) -> npt.NDArray[np.uint8]:
        """One decoded frame, uint8 (S, S, 3) RGB, if the encoding is jpeg; thread-safe.

        Raises:
            IntegrityError: it cannot be decoded.
        """
        data = self.jpeg(row)
        if data.count(SCAN) > MAX_SCANS:
            raise self._damaged(f"the image of '{self.keys[row]}' has more than {MAX_SCANS} scans")
        try:
            # the same pixels as Pillow's with two copies fewer; Pillow names the error
            if simplejpeg.decode_jpeg_header(data)[:3] == (self.size, self.size, "YCbCr"):
                pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
                return pixels
        except ValueError:
            pass
        return self._decode(row, data)

    def jpeg(self, row: int) -> bytes:
        """The JPEG file of a row, if the encoding is jpeg."""
        return self._ragged("image_bytes", row).tobytes()

    @property
    def box_counts(self) -> npt.NDArray[np.int64]:
        """Number of boxes per image, int64 (N,)."""
        if not self.header.boxes:
            return np.zeros(len(self), np.int64)
        ends = self.read(schema.ragged(self.header)[schema.BOX][0]).astype(np.int64)
        return ends[1:] - ends[:-1]

    def boxes(self, row: int) -> npt.NDArray[np.int32]:
        """Boxes of the objects of a row's class: int32 (M, 4), x0, y0, x1, y1 in pixels of the original image.

        In the upright image, whose height and width are `source_size`; x1 and y1 are excluded. M is 0 if the data set
        has none.
        """
        return self._ragged(schema.BOX, row) if self.header.boxes else np.empty((0, 4), np.int32)

    def _ragged(self, name: str, row: int) -> npt.NDArray[Any]:
        """The rows of one image in a ragged data set."""
        offsets, _ = schema.ragged(self.header)[name]
        start, stop = self._range(offsets, row, row + 2).tolist()
        column = self.layout.places[name][1]
        most = schema.MAX_ITEM_BYTES * column.shape[0]
        if not start <= stop <= column.shape[0] or (stop - start) * column.nbytes > most:
            raise self._damaged(f"{offsets} does not fit {name}")
        return self._range(name, start, stop)

    def maps(self, method: str, rows: Rows = None) -> npt.NDArray[np.float32]:
        """Raw maps of the rows (default all) at native resolution: float32 (B, T, h, w), any range.

        Raises:
            IntegrityError: a value is not finite.
        """
        stored = self.read(self._of(method, "map"), rows)
        if not schema.all_finite(stored):
            raise self._damaged(f"a map of {method} holds values that are not finite")
        return schema.decode_maps(stored, self.scales(method, rows))

    def scales(self, method: str, rows: Rows = None) -> npt.NDArray[np.float32]:
        """Greatest absolute value of each map, float32 (B, T).

        Raises:
            IntegrityError: one is negative or not finite.
        """
        scales = self.read(self._of(method, "scale"), rows)
        if not schema.are_scales(scales):
            raise self._damaged(f"a scale of {method} is negative or not finite")
        return scales

    def targets(self, method: str, rows: Rows = None) -> npt.NDArray[np.int32]:
        """The source model's class that each map explains, int32 (B, T); -1 where it explains none."""
        return self.read(self._of(method, "target"), rows)

    def residuals(self, method: str, rows: Rows = None) -> npt.NDArray[np.float32] | None:
        """Sum of each map's values minus the number that it should be, float32 (B, T); NaN where it was not finite.

        None if the method has no such number, or none is stored.
        """
        name = self._of(method, "residual")
        return self.read(name, rows) if self.header.maps[method].residual else None

    def standard_errors(self, method: str, rows: Rows = None) -> npt.NDArray[np.float32] | None:
        """Monte Carlo standard error of each map relative to its range, float32 (B, T); NaN where it was not finite.

        None if the method has no such number, or none is stored.
        """
        name = self._of(method, "standard_error")
        return self.read(name, rows) if self.header.maps[method].standard_error else None

    def flags(self, method: str, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Bits of `schema.ALL_ZERO`, `CONSTANT`, `NON_FINITE`, `SINGLE_COLOR` and `SEEN`, uint8 (B, T)."""
        return self.read(self._of(method, "flag"), rows)

    def _of(self, method: str, part: MapPart) -> str:
        if method not in self.header.maps:
            raise SalpipeError(
                f"{self.path} holds no maps of '{method}'; it holds {', '.join(self.methods) or 'none at all'}"
            )
        return schema.map_path(method, part)

    def _damaged(self, problem: str) -> IntegrityError:
        return IntegrityError(
            f"{self.path}: {problem}; run 'salpipe verify --deep', then 'salpipe generate' again to repair it"
        )

    def _decode(self, row: int, data: bytes) -> npt.NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                if image.size != (self.size, self.size):
                    raise ValueError(f"it measures {image.size[0]}×{image.size[1]}")
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise self._damaged(f"the image of '{self.keys[row]}' cannot be decoded ({error})") from error
