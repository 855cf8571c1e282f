"""Maps in an export of `salpipe convert`, read image by image: members of tars, rows of tables, files of folders."""

from __future__ import annotations

import io
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.contents import open_contents
from saliency_pipeline.datasets.exported_tables import read_columns
from saliency_pipeline.documents import DocumentError, parse_json, read_regular
from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.record import RawMaps
from saliency_pipeline.text import one_line, shown

SEEN = 16
"""Bit of a map's flag in shards: the network that made the map was trained on the image."""

LEVELS = 2**16 - 1
"""Largest value of maps as 16-bit PNG, which stands for the scale of the map."""

MAX_FACTS_BYTES = 2**24
_MAX_GROUP_BYTES = 2**31
_MOST = {"target": 2**31, "flag": 2**8, "scale": 4e38}

Shapes = Mapping[str, tuple[int, int, int]]
Place = tuple[str, int, int]
"""File, and offset and size in it."""

_KEPT_GROUPS = 3
"""Row groups that a thread keeps: one per split, whose tables alternate in the order of keys."""

_thread = threading.local()


@dataclass(frozen=True, slots=True)
class TarMaps:
    """Maps of a sample in a tar of WebDataset.

    Attributes:
        path: the tar.
        facts: offset and size of the sample's JSON.
        members: offsets and sizes of its NPY files, in the order of `shapes`.
        shapes: (T, h, w) of the maps of each method.
    """

    path: str
    facts: tuple[int, int]
    members: tuple[tuple[int, int], ...]
    shapes: Shapes

    def read(self) -> RawMaps:
        """Read the maps. Raises BadImageError if they are damaged, with the reason; OSError."""
        facts = facts_at((self.path, *self.facts))
        maps = {
            method: array_of(_part((self.path, *place)), shape)
            for (method, shape), place in zip(self.shapes.items(), self.members, strict=True)
        }
        return raw_maps(maps, facts, self.shapes)


@dataclass(frozen=True, slots=True)
class FileMaps:
    """Maps of an image as files in folders.

    Attributes:
        facts: file, offset and size of the image's line in the list of samples.
        root: the folder of the folders of maps.
        name: path of the image in each of them, without suffix.
        suffix: `npy` or `png`.
        folders: folders by method, one per target.
        shapes: (T, h, w) of the maps of each method.
    """

    facts: Place
    root: str
    name: str
    suffix: str
    folders: Mapping[str, tuple[str, ...]]
    shapes: Shapes

    def read(self) -> RawMaps:
        """Read the maps. Raises BadImageError if they are damaged, with the reason; OSError."""
        facts = facts_at(self.facts)
        maps = {}
        for method, (targets, height, width) in self.shapes.items():
            values = np.empty((targets, height, width), np.float32)
            for target, folder in enumerate(self.folders[method]):
                path = os.path.join(self.root, folder, f"{self.name}.{self.suffix}")
                try:
                    data = read_regular(path, 2 * 4 * height * width + 2**16)
                except DocumentError as error:
                    raise BadImageError(f"its map by {method}: {error}") from None
                if self.suffix == "npy":
                    values[target] = array_of(data, (height, width))
                else:
                    values[target] = _leveled(data, (height, width), _numbers(facts, method, "scale", targets)[target])
            maps[method] = values
        return raw_maps(maps, facts, self.shapes)


@dataclass(frozen=True, slots=True)
class TableMaps:
    """Maps in a row of a parquet file.

    Attributes:
        path: the file.
        group: row group.
        row: row in it.
        shapes: (T, h, w) of the maps of each method.
    """

    path: str
    group: int
    row: int
    shapes: Shapes

    def read(self) -> RawMaps:
        """Read the maps; each thread keeps a few row groups. Raises BadImageError if they are damaged; OSError."""
        columns = self._columns()
        maps, saliency = {}, {}
        try:
            for method, shape in self.shapes.items():
                values = columns[f"saliency/{method}/map"][self.row].values.flatten().flatten()
                maps[method] = np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(shape)
                saliency[method] = {
                    part: columns[f"saliency/{method}/{part}"][self.row].as_py() for part in ("target", "flag")
                }
        except Exception as error:  # Arrow raises exceptions of many kinds for damaged values
            raise BadImageError(f"its maps are damaged ({one_line(error)})") from None
        return raw_maps(maps, {"saliency": saliency}, self.shapes)

    def _columns(self) -> dict[str, Any]:
        """The columns of the maps' row group; of the row groups in memory the one that was used last comes last."""
        key = (os.getpid(), self.path, os.stat(self.path).st_mtime_ns, self.group)
        kept: dict[object, dict[str, Any]] = _thread.__dict__.setdefault("groups", {})
        columns = kept.pop(key, None)
        if columns is None:
            while len(kept) >= _KEPT_GROUPS:
                del kept[next(iter(kept))]
            names = [f"saliency/{method}/{part}" for method in self.shapes for part in ("map", "target", "flag")]
            values = max(math.prod(shape) for shape in self.shapes.values())
            columns = read_columns(self.path, self.group, names, _MAX_GROUP_BYTES, values)
        kept[key] = columns
        return columns


def facts_at(place: Place) -> dict[str, Any]:
    """The JSON object at a place. Raises BadImageError if it is none; OSError."""
    try:
        facts = parse_json(_part(place)) if place[2] <= MAX_FACTS_BYTES else None
    except DocumentError as error:
        raise BadImageError(f"its description: {error}") from None
    if not isinstance(facts, dict):
        raise BadImageError("its description is no object of JSON")
    return facts


def array_of(data: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The array of an NPY file of a known shape; nothing is unpickled.

    Raises:
        BadImageError: it is damaged, or another array.
    """
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("an unknown version of the format")
        stored, by_columns, kind = np.lib.format.read_array_header_1_0(file)
    # NumPy raises ValueError, TokenError, RecursionError and others for damaged headers
    except Exception as error:
        raise BadImageError(f"a map is no array in NPY format ({one_line(error)})") from None
    rest = data[file.tell() :]
    if stored != shape or by_columns or kind != np.dtype("<f4") or len(rest) != 4 * int(np.prod(shape)):
        raise BadImageError(f"a map is {kind} {stored} instead of float32 {shape}, or damaged")
    return np.frombuffer(rest, "<f4").reshape(shape)


def raw_maps(maps: dict[str, npt.NDArray[np.float32]], facts: dict[str, Any], shapes: Shapes) -> RawMaps:
    """Maps with the explained classes that their description has. Raises BadImageError if it contradicts the maps."""
    targets, seen = {}, False
    for method, (count, _, _) in shapes.items():
        targets[method] = np.array(_numbers(facts, method, "target", count), np.int32)
        seen = seen or any(int(flag) & SEEN for flag in _numbers(facts, method, "flag", count))
        if not np.isfinite(maps[method]).all():
            raise BadImageError(f"its map by {method} has values that are not finite")
    return RawMaps(maps, targets, seen)


def _numbers(facts: dict[str, Any], method: str, part: str, count: int) -> list[Any]:
    """The numbers of a method's maps: whole ones of 32 bits, or scales of any kind."""
    kinds: tuple[type, ...] = (int, float) if part == "scale" else (int,)
    try:
        values = facts["saliency"][method][part]
        if len(values) == count and all(type(value) in kinds and abs(value) < _MOST[part] for value in values):
            return list(values)
    except (LookupError, TypeError):
        pass
    raise BadImageError(f"the {part} of its map by {method} is missing or impossible")


def _leveled(data: bytes, shape: tuple[int, int], scale: float) -> npt.NDArray[np.float32]:
    # recognizing a data set needs no PyTorch, which this imports
    from saliency_pipeline.images.decode import DEFAULT_MAX_PIXELS, decode_gray

    values = decode_gray(data, DEFAULT_MAX_PIXELS)
    if values.shape != shape:
        raise BadImageError(f"a map is {values.shape} instead of {shape}")
    levels: npt.NDArray[np.float32] = (values.astype(np.float64) * (float(scale) / LEVELS)).astype(np.float32)
    return levels


def _part(place: Place) -> bytes:
    path, offset, size = place
    with open_contents(path) as file:
        data = file.read(size, offset)
    if len(data) < size:
        raise BadImageError(f"{shown(os.path.basename(path))} ends within it")
    return data
