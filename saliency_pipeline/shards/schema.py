"""Shard format 1: data sets and attributes of a shard, and the encoding of maps. No file is opened here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FORMAT = "salpipe-shard"
ALL_ZERO, CONSTANT, NON_FINITE, SINGLE_COLOR, SEEN = 1, 2, 4, 8, 16
"""Bits of a map's flag; `SEEN`: the network that made the map was trained on this very image."""

ALL_FLAGS = ALL_ZERO | CONSTANT | NON_FINITE | SINGLE_COLOR | SEEN

TOP = 5

# limits on sizes in the header of a file from outside
MAX_ROWS = 2**20
MAX_SIDE = 2**14
MAX_CLASSES = 2**20
MAX_TEXT_BYTES = 2**24
MAX_ITEM_BYTES = 2**30
"""Maximum bytes of one image in one data set; and of all keys."""

IMAGE, LABEL, SPLIT = "image", "label", "split"
SHA256, SOURCE_SIZE, GROUP, BOX = "source/sha256", "source/size", "source/group", "source/box"
PREDICTED, SCORE = "prediction/class", "prediction/score"
"""Paths of HDF5 data sets in a shard; those of maps are `map_path`."""

Encoding = Literal["raw", "jpeg"]
MapPart = Literal["map", "scale", "target", "flag", "residual", "standard_error"]
MAX_METHOD_NAME = 200
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
# no '/': a name is one step of a path in HDF5, where "." and "..", excluded by the first character, have a meaning
_METHOD_NAME = re.compile(rf"[a-z0-9][A-Za-z0-9_:=,.+-]{{0,{MAX_METHOD_NAME - 1}}}")
_SHARD_NAME = re.compile(r"shard-[0-9]{5,}\.h5")


def shard_name(index: int) -> str:
    """File name of a shard.

    >>> shard_name(7)
    'shard-00007.h5'
    """
    return f"shard-{index:05d}.h5"


def is_shard_name(name: str) -> bool:
    """Return whether a file name is one of `shard_name`."""
    return _SHARD_NAME.fullmatch(name) is not None


def map_path(method: str, part: MapPart) -> str:
    """Path of an HDF5 data set of a method's maps.

    >>> map_path("gradcam", "flag")
    'saliency/gradcam/flag'
    """
    return f"saliency/{method}/{part}"


def is_method_name(name: str) -> bool:
    """Return whether a text is a valid name of maps: a method's name, with its parameters if it has any.

    Up to 200 ASCII letters, digits and characters of "_-:=,.+", of which the first is a lower-case letter or a digit.

    >>> is_method_name("smoothgrad:noise=0.15,samples=25,seed=0,stat=mean"), is_method_name("../gradcam")
    (True, False)
    """
    return _METHOD_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class MapShape:
    """Shape of the maps of one method.

    Attributes:
        targets: T, maps per image.
        height: native height in cells.
        width: native width in cells.
        residual: whether a residual is stored with each map: the sum of its values minus the number that it should be.
        standard_error: whether the Monte Carlo standard error of each map, relative to its range, is stored with it.
    """

    targets: int
    height: int
    width: int
    residual: bool = False
    standard_error: bool = False


@dataclass(frozen=True)
class ShardHeader:
    """Attributes that all images of a shard share; the same in every shard of a plan.

    Attributes:
        plan: hash of everything that decides the bytes.
        provenance: how the maps were made; JSON-serializable.
        classes: class names in label order.
        size: S, height and width of every frame in pixels.
        encoding: "raw" (uint8 frames) or "jpeg" (one byte stream).
        maps: shape of the maps, by method.
        boxes: whether boxes of objects are stored.
        groups: whether groups of images that belong together (duplicates, `--group-by`) are stored.
    """

    plan: str
    provenance: dict[str, Any]
    classes: tuple[str, ...]
    size: int
    encoding: Encoding
    maps: Mapping[str, MapShape]
    boxes: bool = False
    groups: bool = False

    def __post_init__(self) -> None:
        if self.encoding not in ("raw", "jpeg"):
            raise ValueError(f"encoding is {self.encoding!r}, not 'raw' or 'jpeg'")
        if self.size < 1:
            raise ValueError(f"size is {self.size}, not a positive number of pixels")
        if self.size > MAX_SIDE:
            raise ValueError(f"size is {self.size:,}, more than {MAX_SIDE:,} pixels")
        if len(self.classes) > MAX_CLASSES:
            raise ValueError(f"{len(self.classes):,} classes, more than {MAX_CLASSES:,}")
        for method, shape in self.maps.items():
            if not is_method_name(method):
                raise ValueError(
                    f"method {method!r:.{MAX_METHOD_NAME + 20}}: a name starts with a lower-case letter or a digit "
                    f"and has at most {MAX_METHOD_NAME} letters, digits and characters of '_-:=,.+'"
                )
            if min(shape.targets, shape.height, shape.width) < 1:
                raise ValueError(f"method {method!r}: {shape} has no cells")
            # as float32, in which maps are handed out
            values = shape.targets * shape.height * shape.width
            if max(shape.height, shape.width) > MAX_SIDE or 4 * values > MAX_ITEM_BYTES:
                raise ValueError(f"method {method!r}: {shape} has too many cells")
        # as it comes back from a file, so that a written header equals the one that was read
        object.__setattr__(self, "provenance", json.loads(to_json(self.provenance)))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "maps", dict(sorted(self.maps.items())))

    @property
    def version(self) -> str:
        """Version of the format that a file with this header has, the first that has all that is stored in it."""
        if any(shape.standard_error for shape in self.maps.values()):
            return "1.3"
        plain = all(_PLAIN_NAME.fullmatch(name) and not shape.residual for name, shape in self.maps.items())
        return "1.1" if plain else "1.2"

    def differences(self, other: ShardHeader) -> list[str]:
        """Names of the fields in which two headers differ."""
        return [name for name in self.__dataclass_fields__ if getattr(self, name) != getattr(other, name)]


@dataclass
class ShardRows:
    """B rows of a shard: images with their maps and all other columns.

    Attributes:
        keys: B unique names, '/' separated, valid UTF-8.
        labels: int64 (B,), index into the classes, -1 unlabeled.
        splits: int8 (B,), 0 train, 1 validation, 2 test, -1 none.
        images: uint8 (B, S, S, 3) RGB where the encoding is raw, or B JPEG files.
        sha256: uint8 (B, 32), of the original files.
        source_size: int32 (B, 2), height and width of the original images in pixels.
        prediction_class: int32 (B, 5), the source model's classes by falling score; -1 where it has fewer.
        prediction_score: float32 (B, 5), their softmax, in [0, 1]; 0 where it has fewer.
        maps: for each method its raw maps, float32 (B, T, h, w), any range.
        targets: for each method the class explained, int32 (B, T); -1 for maps that explain no class.
        residuals: for each method with residuals those of its maps, float32 (B, T); stored as NaN where not finite.
        standard_errors: for each method with standard errors those of its maps, as `residuals`.
        boxes: boxes per image, x0, y0, x1, y1 in pixels of the upright original, if the header has boxes.
        groups: int64 (B,), equal for images of one group, -1 for an image without one, if the header has groups.
        single_color: bool (B,), whether an image has one color everywhere; flagged with each of its maps. Empty if
            not checked.
        seen: bool (B,), whether the network that made an image's maps was trained on that image; flagged with each of
            its maps. Empty if the network's training images are unknown or none of the data set's.
    """

    keys: list[str]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int8]
    images: npt.NDArray[np.uint8] | list[bytes]
    sha256: npt.NDArray[np.uint8]
    source_size: npt.NDArray[np.int32]
    prediction_class: npt.NDArray[np.int32]
    prediction_score: npt.NDArray[np.float32]
    maps: dict[str, npt.NDArray[np.float32]]
    targets: dict[str, npt.NDArray[np.int32]]
    residuals: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    standard_errors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    boxes: Sequence[Sequence[tuple[int, int, int, int]]] = ()
    groups: npt.NDArray[np.int64] | tuple[()] = ()
    single_color: npt.NDArray[np.bool_] | tuple[()] = ()
    seen: npt.NDArray[np.bool_] | tuple[()] = ()

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Column:
    """Element type as stored (little endian) and shape of a data set."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of storage it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def columns(header: ShardHeader, rows: int) -> dict[str, Column]:
    """The data sets whose shape follows from the header, in the order in which they are stored.

    `key` and ragged data sets (see `ragged`) are not included: their sizes depend on the rows.
    """

    def column(dtype: str, *shape: int) -> Column:
        return Column(np.dtype(dtype), (rows, *shape))

    stored = {
        LABEL: column("<i8"),
        SPLIT: column("i1"),
        SHA256: column("u1", 32),
        SOURCE_SIZE: column("<i4", 2),
        PREDICTED: column("<i4", TOP),
        SCORE: column("<f4", TOP),
    }
    if header.groups:
        stored[GROUP] = column("<i8")
    for method, shape in header.maps.items():
        stored[map_path(method, "map")] = column("<f2", shape.targets, shape.height, shape.width)
        stored[map_path(method, "scale")] = column("<f4", shape.targets)
        stored[map_path(method, "target")] = column("<i4", shape.targets)
        stored[map_path(method, "flag")] = column("u1", shape.targets)
        if shape.residual:
            stored[map_path(method, "residual")] = column("<f4", shape.targets)
        if shape.standard_error:
            stored[map_path(method, "standard_error")] = column("<f4", shape.targets)
    if header.encoding == "raw":
        stored[IMAGE] = column("u1", header.size, header.size, 3)
    return stored


def ragged(header: ShardHeader) -> dict[str, tuple[str, Column]]:
    """The data sets with any number of rows per image: the name of their offsets, type and shape of a row.

    Image i has the rows from offset[i] up to offset[i + 1]; the offsets are uint64 (N + 1).
    """
    stored = {}
    if header.boxes:
        stored[BOX] = "source/box_offset", Column(np.dtype("<i4"), (4,))
    if header.encoding == "jpeg":
        stored["image_bytes"] = "image_offset", Column(np.dtype("u1"), ())
    return stored


def encode_maps(
    raw: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Encode raw maps for storage; raw value = map × scale.

    An all-zero map is flagged as constant too, and an all-NaN one with all three bits.

    Args:
        raw: (B, T, h, w) float32, any range; non-finite values are replaced by 0 before anything else.

    Returns:
        map: float16 (B, T, h, w) in [-1, 1], the raw map divided by its scale, off by at most 2**-12.
        scale: float32 (B, T), the greatest absolute value of each map; 0 where the map is all zero.
        flag: uint8 (B, T), bits `ALL_ZERO`, `CONSTANT`, `NON_FINITE`.

    >>> stored, scale, flag = encode_maps(np.array([[[[0.0, -4.0], [1.0, 2.0]]]], dtype=np.float32))
    >>> stored[0, 0].tolist(), scale.tolist(), flag.tolist()
    ([[0.0, -1.0], [0.25, 0.5]], [[4.0]], [[0]])
    """
    clean = np.asarray(raw, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        high, low = clean.max(axis=(2, 3)), clean.min(axis=(2, 3))
    finite = np.isfinite(high) & np.isfinite(low)
    if not finite.all():
        clean = np.where(np.isfinite(clean), clean, np.float32(0))
        high, low = clean.max(axis=(2, 3)), clean.min(axis=(2, 3))
    scale = np.maximum(high, -low)
    zero = scale == 0
    # a division, not a product with 1/scale: the reciprocal of a subnormal scale overflows
    divisor = np.where(zero, np.float32(1), scale)[:, :, None, None]
    stored = np.empty(clean.shape, dtype=np.float16)
    np.divide(clean, divisor, out=stored, dtype=np.float32, casting="unsafe")
    flag = ALL_ZERO * zero + CONSTANT * (high == low) + NON_FINITE * ~finite
    return stored, np.where(zero, np.float32(0), scale), flag.astype(np.uint8)


def decode_maps(stored: npt.NDArray[np.float16], scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Raw maps float32 (B, T, h, w) from stored maps (B, T, h, w) in [-1, 1] and their scales (B, T)."""
    return stored.astype(np.float32) * scale[:, :, None, None].astype(np.float32)


def all_finite(stored: npt.NDArray[np.float16]) -> bool:
    """Return whether all values of stored maps are finite, by their exponents: several times as fast as isfinite.

    >>> all_finite(np.array([1, -1], np.float16)), all_finite(np.array([1, -np.inf], np.float16))
    (True, False)
    """
    return bool((stored.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00)


def are_scales(values: npt.NDArray[np.float32]) -> bool:
    """Return whether all values are finite and not negative.

    >>> are_scales(np.array([0, 1], np.float32)), are_scales(np.array([0, np.nan], np.float32))
    (True, False)
    """
    # NaN compares false with everything
    return not values.size or bool(values.min() >= 0 and values.max() < np.inf)


def to_json(value: object) -> str:
    """JSON on one line that depends on the value alone: sorted keys, ASCII, finite numbers only."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
