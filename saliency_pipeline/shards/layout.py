"""Layout of a shard file: offsets, types and shapes of its data sets, and the errors in its structure.

A shard may come from outside: only hard links to contiguous data sets inside the file are followed, and every size
is compared with the file's before anything of that size is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from saliency_pipeline.documents import NotRegularError, open_regular, parse_json
from saliency_pipeline.shards import schema
from saliency_pipeline.shards.file import Identity, identity_of
from saliency_pipeline.shards.schema import Column, Encoding, MapShape, ShardHeader

# twice that of a frame of one single color
_JPEG_RATIO = 1024

# what h5py raises, or lets its caller raise, when a file is damaged
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, NotImplementedError, MemoryError)


@dataclass(frozen=True)
class Layout:
    """A shard's header and the offset, type and shape of every data set.

    Attributes:
        header: attributes that all rows share.
        rows: number of images.
        places: for each data set its offset in the file and its type and shape.
        identity: device, inode, size and modification time of the file.
    """

    header: ShardHeader
    rows: int
    places: dict[str, tuple[int, Column]]
    identity: Identity


def read_layout(path: Path) -> tuple[Layout | None, list[str]]:
    """Read a shard's structure: attributes, data sets, types, shapes and storage, but no values.

    Returns:
        The layout, or None if the header cannot be read, and all problems, one line each without the file's name. Only
        a layout without problems may be used to read.
    """
    try:
        # through a file of our own: HDF5 would lock it, which some network file systems refuse, and would not open it
        # where the process has it open already with other options
        with open(path, "rb", opener=open_regular) as opened, h5py.File(opened, "r") as file:
            return _read(file, identity_of(opened.fileno()))
    except FileNotFoundError:
        return None, ["missing"]
    except (IsADirectoryError, NotRegularError):
        return None, ["not a file"]
    except _DAMAGE as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return None, [f"not a readable shard ({reason})"]


def _read(file: h5py.File, identity: Identity) -> tuple[Layout | None, list[str]]:
    if "format" not in file.attrs or _attribute(file, "format") != schema.FORMAT:
        return None, ["not a shard of salpipe"]
    version = _attribute(file, "format_version")
    if not isinstance(version, str) or not re.fullmatch(r"[1-9][0-9]{0,5}\.[0-9]{1,6}", version):
        return None, [f"format_version is {version!r:.40}"]
    if int(version.split(".")[0]) > 1:
        return None, [f"format {version} is newer than this salpipe can read; upgrade salpipe"]
    if _attribute(file, "complete") != 1:
        return None, ["unfinished: it was never completed"]
    problems: list[str] = []
    provenance, classes = parse_json(_text(file, "provenance")), parse_json(_text(file, "classes"))
    if not isinstance(provenance, dict):
        raise ValueError("attribute provenance is not a dictionary")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("attribute classes is not a list of names")
    size = _attribute(file, "size")
    if not isinstance(size, np.integer):
        raise ValueError("attribute size is not a number")
    encoding = cast(Encoding, _text(file, "encoding"))
    maps = _methods(file, problems)
    boxes, groups = _has(file, schema.BOX), _has(file, schema.GROUP)
    header = ShardHeader(_text(file, "plan"), provenance, tuple(classes), int(size), encoding, maps, boxes, groups)
    places: dict[str, tuple[int, Column]] = {}

    def place(name: str, expected: Column | None = None) -> Column | None:
        """Record the place of a data set, or the error in it."""
        try:
            offset, column = _place(file, name, identity[2])
            if expected is not None:
                _compare(name, column, expected)
        except ValueError as error:
            problems.append(str(error))
            return None
        places[name] = offset, column
        return column

    key = place("key")
    if key is None:
        return None, problems
    if key.dtype.kind != "S" or len(key.shape) != 1:
        return None, [f"key is {key.dtype} {key.shape}, not fixed-length strings (N,)"]
    rows = key.shape[0]
    if rows > schema.MAX_ROWS or key.nbytes > schema.MAX_ITEM_BYTES:
        return None, [f"key is {key.dtype} {key.shape}, more than a shard holds"]
    for name, column in schema.columns(header, rows).items():
        place(name, column)
    for name, (offsets, each) in schema.ragged(header).items():
        place(offsets, Column(np.dtype("<u8"), (rows + 1,)))
        stream = place(name)
        if stream is not None and (stream.dtype != each.dtype or stream.shape[1:] != each.shape or not stream.shape):
            wanted = f"{each.dtype} (total,{''.join(f' {side}' for side in each.shape)})"
            problems.append(f"{name} is {stream.dtype} {stream.shape}, not {wanted}")
        elif stream is not None and name == "image_bytes":
            problems += _too_small(header, rows, stream.nbytes)
    problems += _overlapping(places)
    return Layout(header, rows, places, identity), problems


def _overlapping(places: dict[str, tuple[int, Column]]) -> Iterator[str]:
    """Errors of data sets that share bytes: together they could be of any size."""
    end, before = 0, ""
    for offset, size, name in sorted((offset, column.nbytes, name) for name, (offset, column) in places.items()):
        if size:
            if offset < end:
                yield f"{name} lies over {before}"
            end, before = max(end, offset + size), name


def _too_small(header: ShardHeader, rows: int, stored: int) -> Iterator[str]:
    """Error of a stream too short for its number of frames, for which memory would be allocated."""
    if rows * header.size**2 * 3 > stored * _JPEG_RATIO:
        yield f"{rows} frames of {header.size}×{header.size} pixels do not fit into {stored:,} bytes of JPEG"


def _methods(file: h5py.File, problems: list[str]) -> dict[str, MapShape]:
    if "saliency" not in file:
        return {}
    shapes = {}
    for method in _member(file, "saliency", h5py.Group):
        shape = _member(file, schema.map_path(method, "map"), h5py.Dataset).shape
        if not schema.is_method_name(method) or len(shape) != 4 or min(shape[1:]) < 1:
            problems.append(f"saliency/{method!r:.60} does not look like a method's maps")
        else:
            targets, height, width = shape[1:]
            residual, error = (_has(file, schema.map_path(method, part)) for part in ("residual", "standard_error"))
            shapes[method] = MapShape(targets, height, width, residual, error)
    return shapes


def _has(file: h5py.File, name: str) -> bool:
    """Return whether a data set exists, without following a link that may lead out of the file."""
    try:
        _member(file, name, h5py.Dataset)
    except ValueError:
        return False
    return True


def _member(file: h5py.File, name: str, kind: type) -> Any:
    """A group or data set, reached only through hard links: any other kind could lead out of the file."""
    here = file
    for part in name.split("/"):
        if part not in here:
            raise ValueError(f"{name} is missing")
        if not isinstance(here.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is reached through a link, which is not allowed")
        here = here[part]
    if not isinstance(here, kind):
        raise ValueError(f"{name} is not a {kind.__name__.lower()}")
    return here


def _place(file: h5py.File, name: str, file_size: int) -> tuple[int, Column]:
    """Offset, type and shape of a data set that is stored contiguously inside the file."""
    data = _member(file, name, h5py.Dataset)
    properties = data.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count():
        raise ValueError(f"{name} is not stored in one piece in this file")
    string = h5py.check_string_dtype(data.dtype)
    if string is not None and (string.length is None or string.encoding != "utf-8"):
        raise ValueError(f"{name} is not of fixed-length UTF-8 strings")
    dtype = np.dtype(f"S{string.length}") if string is not None else data.dtype
    if dtype.hasobject or dtype.kind not in "Siuf" or data.shape is None:
        raise ValueError(f"{name} is of an unexpected type, {dtype}")
    column = Column(dtype, tuple(map(int, data.shape)))
    offset = data.id.get_offset()
    if column.nbytes and (offset is None or offset + column.nbytes > file_size):
        raise ValueError(f"{name} does not fit into the file")
    return offset or 0, column


def _compare(name: str, column: Column, expected: Column) -> None:
    if column == expected:
        return
    if column.dtype == expected.dtype and column.shape[1:] == expected.shape[1:] and column.shape:
        if name.endswith("_offset"):
            raise ValueError(f"{expected.shape[0] - 1} images but {column.shape[0]} offsets, not one more")
        raise ValueError(f"{expected.shape[0]} images but {column.shape[0]} rows in {name}")
    raise ValueError(f"{name} is {column.dtype} {column.shape}, not {expected.dtype} {expected.shape}")


def _attribute(file: h5py.File, name: str) -> Any:
    """A scalar attribute, a number or a string; None if it is missing."""
    if name not in file.attrs:
        return None
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    fixed = kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str()
    if attribute.shape != () or not (fixed or kind.get_class() == h5py.h5t.INTEGER):
        raise ValueError(f"attribute {name} is not a number or a string of fixed length")
    if attribute.get_storage_size() > min(schema.MAX_TEXT_BYTES, file.id.get_filesize()):
        raise ValueError(f"attribute {name} does not fit into the file")
    value = file.attrs[name]
    return value.decode() if isinstance(value, bytes) else value


def _text(file: h5py.File, name: str) -> str:
    value = _attribute(file, name)
    if not isinstance(value, str):
        raise ValueError(f"attribute {name} is missing or not a string")
    return value
