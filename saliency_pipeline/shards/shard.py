"""Reads one shard file as `Shard`. A finished folder of them stands in `reader.py`, judging values in `verify.py`.

HDF5 is asked once per file where everything lies, and closed again; the data are read from the plain file. So no HDF5
handle is ever carried into a forked worker, where it would give silently wrong data.
"""

from __future__ import annotations

import io
import weakref
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
from saliency_pipeline.shards.file import ShardFile
from saliency_pipeline.shards.layout import Layout, read_layout
from saliency_pipeline.shards.schema import (
    BOX,
    GROUP,
    IMAGE,
    LABEL,
    MAX_ITEM_BYTES,
    PREDICTED,
    SCORE,
    SHA256,
    SOURCE_SIZE,
    SPLIT,
    Described,
    MapPart,
    ShardHeader,
    all_finite,
    are_scales,
    decode_maps,
    map_path,
    ragged,
)

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
        targets: for each method the class explained, int32 (T,).
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


class Shard(Described):
    """One shard file, opened when first asked for something; safe to pickle and to use in forked workers.

    Args:
        path: the file.
        opened: where open files are kept, of this shard and others: as many as it is long at the most, and the one
            opened first is closed for the next.
        layout: of the file, where it was read already.

    Raises:
        IntegrityError: on first use, when the file is damaged, unfinished or not a shard; on any, when it is truncated
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
        """Whether the file is open at the moment."""
        return self._file is not None and self._file() is not None

    def close(self) -> None:
        """Close the file as soon as no thread reads from it; the next use opens it again."""
        file = None if self._file is None else self._file()
        with suppress(ValueError):
            if file is not None:
                self._opened.remove(file)

    @property
    def layout(self) -> Layout:
        """Where everything lies in the file."""
        if self._layout is None:
            layout, problems = read_layout(self.path)
            if layout is None or problems:
                raise IntegrityError(
                    f"{self.path}: {problems[0]}; run 'salpipe verify', then 'salpipe generate' again to repair it"
                )
            self._layout = layout
        return self._layout

    def agree(self, rows: int, header: ShardHeader) -> bool:
        """Whether the shard has so many rows under such a header, of which it then keeps no copy of its own."""
        if len(self) != rows or self.header != header:
            return False
        self._layout = replace(self.layout, header=header)
        return True

    def read(self, name: str, rows: Rows | int = None) -> npt.NDArray[Any]:
        """The given rows (default all) of a data set as they are stored, in memory of their own.

        Raises:
            IntegrityError: the file was truncated, replaced or changed, or the disk fails.
        """
        _, column = self.layout.places[name]
        if rows is None or (isinstance(rows, slice) and rows.step in (None, 1)):
            start, stop, _ = (rows or slice(None)).indices(column.shape[0])
            return self._range(name, start, max(start, stop))
        chosen = np.arange(column.shape[0])[rows]
        found = np.empty((chosen.size, *column.shape[1:]), column.dtype)
        self.gather(name, chosen.ravel(), found, np.arange(chosen.size))
        return found.reshape((*chosen.shape, *column.shape[1:]))

    def gather(
        self, name: str, rows: npt.NDArray[np.integer[Any]], out: npt.NDArray[Any], places: npt.NDArray[Any]
    ) -> None:
        """Copy rows of a data set into places of an array of its type.

        The rows may be parts of those stored: of maps (N, T, h, w) into an array (B, h, w), those numbered row * T +
        target. See `ShardFile.gather`.
        """
        self._open().gather(self.layout.places[name][0], rows, out, places)

    def gather_frames(
        self, rows: npt.NDArray[np.integer[Any]], out: npt.NDArray[np.uint8], places: npt.NDArray[Any]
    ) -> None:
        """Copy frames into places of an array uint8 (B, S, S, 3), where the encoding is raw; see `gather`."""
        self.gather(IMAGE, rows, out, places)

    def gather_maps(
        self,
        method: str,
        target: int,
        rows: npt.NDArray[np.integer[Any]],
        out: npt.NDArray[np.float16],
        places: npt.NDArray[Any],
    ) -> None:
        """Copy stored maps of one target into places of an array float16 (B, h, w); see `gather`."""
        targets = self.header.maps[method].targets
        self.gather(map_path(method, "map"), rows * targets + target, out, places)

    def _range(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows `start` to `stop` of a data set."""
        offset, column = self.layout.places[name]
        found = np.empty((stop - start, *column.shape[1:]), column.dtype)
        self._open().read(offset + start * found[:1].nbytes, found)
        return found

    def _open(self) -> ShardFile:
        # who reads holds the file itself, so that another thread which opens one too many closes it after that
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
        label = int(self.read(LABEL, row))
        if not -1 <= label < len(self.classes):
            raise self._damaged(f"'{self.keys[row]}' has label {label} of {len(self.classes)} classes")
        return Pair(
            key=self.keys[row],
            image=self.images([row])[0],
            label=label,
            class_name=self.classes[label] if label >= 0 else None,
            split=int(self.read(SPLIT, row)),
            prediction_class=self.read(PREDICTED, row),
            prediction_score=self.read(SCORE, row),
            maps={method: self.maps(method, [row])[0] for method in self.methods},
            targets={method: self.targets(method, [row])[0] for method in self.methods},
            source_size=tuple(self.read(SOURCE_SIZE, row).tolist()),
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
        labels = self.read(LABEL)
        if labels.size and (labels.min() < -1 or labels.max() >= len(self.classes)):
            raise self._damaged(f"a label is outside the {len(self.classes)} classes")
        return labels

    @property
    def splits(self) -> npt.NDArray[np.int8]:
        """0 train, 1 validation, 2 test, -1 none; int8 (N,)."""
        splits: npt.NDArray[np.int8] = self.read(SPLIT)
        if splits.size and (splits.min() < -1 or splits.max() > 2):
            raise self._damaged("a split is none of -1, 0, 1 and 2")
        return splits

    @property
    def predictions(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The source model's top 5: classes int32 (N, 5), -1 where it has fewer, and softmax float32 (N, 5)."""
        return self.read(PREDICTED), self.read(SCORE)

    @property
    def source_sizes(self) -> npt.NDArray[np.int32]:
        """Height and width of the original images in pixels, int32 (N, 2)."""
        return self.read(SOURCE_SIZE)

    @property
    def source_sha256(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of the original files, uint8 (N, 32)."""
        return self.read(SHA256)

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Equal for images of the folder that are duplicates of one another, int64 (N,); -1 where none is known."""
        return self.read(GROUP) if self.header.groups else np.full(len(self), -1, np.int64)

    def images(self, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Frames of the given rows (default all): uint8 (B, S, S, 3) RGB.

        Raises:
            IntegrityError: a stored JPEG cannot be decoded.
        """
        if self.header.encoding == "raw":
            return self.read(IMAGE, rows)
        chosen = np.arange(len(self))[slice(None) if rows is None else rows]
        frames = np.empty((len(chosen), self.size, self.size, 3), dtype=np.uint8)
        for frame, row in zip(frames, chosen.tolist(), strict=True):
            frame[:] = self.frame(row)
        return frames

    def frame(self, row: int) -> npt.NDArray[np.uint8]:
        """One decoded frame, uint8 (S, S, 3) RGB, where the encoding is jpeg; many threads may decode at a time.

        Raises:
            IntegrityError: it cannot be decoded.
        """
        data = self.jpeg(row)
        if data.count(SCAN) > MAX_SCANS:
            raise self._damaged(f"the image of '{self.keys[row]}' has more than {MAX_SCANS} scans")
        try:
            # the same pixels as Pillow's and two copies fewer, but Pillow can say what is wrong
            if simplejpeg.decode_jpeg_header(data)[:3] == (self.size, self.size, "YCbCr"):
                pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
                return pixels
        except ValueError:
            pass
        return self._decode(row, data)

    def jpeg(self, row: int) -> bytes:
        """The JPEG file stored for a row, where the encoding is jpeg."""
        return self._ragged("image_bytes", row).tobytes()

    @property
    def box_counts(self) -> npt.NDArray[np.int64]:
        """How many boxes `boxes` has for each image, int64 (N,)."""
        if not self.header.boxes:
            return np.zeros(len(self), np.int64)
        ends = self.read(ragged(self.header)[BOX][0]).astype(np.int64)
        return ends[1:] - ends[:-1]

    def boxes(self, row: int) -> npt.NDArray[np.int32]:
        """Where the objects of a row's class are: int32 (M, 4), x0, y0, x1, y1 in pixels of the original image.

        As its file holds the image, before it is turned upright; x1 and y1 are excluded. M is 0 where the data set
        does not say.
        """
        return self._ragged(BOX, row) if self.header.boxes else np.empty((0, 4), np.int32)

    def _ragged(self, name: str, row: int) -> npt.NDArray[Any]:
        """The rows of one image in a data set of which it has any number."""
        offsets, _ = ragged(self.header)[name]
        start, stop = self._range(offsets, row, row + 2).tolist()
        column = self.layout.places[name][1]
        if not start <= stop <= column.shape[0] or (stop - start) * column.nbytes > MAX_ITEM_BYTES * column.shape[0]:
            raise self._damaged(f"{offsets} does not fit {name}")
        return self._range(name, start, stop)

    def maps(self, method: str, rows: Rows = None) -> npt.NDArray[np.float32]:
        """Raw maps of the given rows (default all) at native resolution: float32 (B, T, h, w), any range.

        Raises:
            IntegrityError: a value is not finite.
        """
        stored = self.read(self._of(method, "map"), rows)
        if not all_finite(stored):
            raise self._damaged(f"a map of {method} holds values that are not finite")
        return decode_maps(stored, self.scales(method, rows))

    def scales(self, method: str, rows: Rows = None) -> npt.NDArray[np.float32]:
        """Greatest absolute value of each map, float32 (B, T).

        Raises:
            IntegrityError: one is negative or not finite.
        """
        scales = self.read(self._of(method, "scale"), rows)
        if not are_scales(scales):
            raise self._damaged(f"a scale of {method} is negative or not finite")
        return scales

    def targets(self, method: str, rows: Rows = None) -> npt.NDArray[np.int32]:
        """The source model's class that each map explains, int32 (B, T)."""
        return self.read(self._of(method, "target"), rows)

    def flags(self, method: str, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Bits of `schema.ALL_ZERO`, `CONSTANT`, `NON_FINITE`, `SINGLE_COLOR` and `SEEN`, uint8 (B, T)."""
        return self.read(self._of(method, "flag"), rows)

    def _of(self, method: str, part: MapPart) -> str:
        if method not in self.header.maps:
            raise SalpipeError(
                f"{self.path} holds no maps of '{method}'; it holds {', '.join(self.methods) or 'none at all'}"
            )
        return map_path(method, part)

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self.path}: {what}; run 'salpipe verify --deep', then 'salpipe generate' again to repair it"
        )

    def _decode(self, row: int, data: bytes) -> npt.NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                if image.size != (self.size, self.size):
                    raise ValueError(f"it measures {image.size[0]}×{image.size[1]}")
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise self._damaged(f"the image of '{self.keys[row]}' cannot be decoded ({error})") from error
