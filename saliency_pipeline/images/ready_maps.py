"""Maps from files, fitted to frames: reading of gray PNG and 2-D NPY files, and resizing by area."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.documents import DocumentError, open_regular, read_regular
from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import DEFAULT_MAX_PIXELS, decode_gray
from saliency_pipeline.images.fit import resized_size
from saliency_pipeline.images.pixel_budget import DECODING
from saliency_pipeline.images.record import MAX_FILE_BYTES
from saliency_pipeline.text import shown

MAX_SIDE = 2**14
"""Largest height and width of a map."""

_ROWS = 2**20
"""Values that are converted to float64 at once."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Map = npt.NDArray[np.float32]


def read_frame_map(
    path: str, source_size: tuple[int, int], size: int, fit: str, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Map:
    """The map of an image from a file, resized by area to the part of the image that the frame shows.

    A file that ends in `.npy` holds a 2-D array of numbers or truth values, any other is a gray PNG of 1 to 16 bits.
    The map is that of the whole upright image, whatever its height and width. It is divided by its largest value.

    Args:
        path: the file.
        source_size: (height, width) of the upright image in pixels.
        size: side S of the frame in pixels.
        fit: how the image was fitted into the frame, one of `fit.FITS`.
        max_pixels: largest number of values.

    Returns:
        (G, G) float32 in [0, 1], see `grid_of`; 0 where the frame is padding.

    Raises:
        BadImageError: the file cannot be read, or its values are not finite or negative. The message is the reason.
    """
    try:
        values = _read_array(path, max_pixels) if path.lower().endswith(".npy") else _read_png(path, max_pixels)
        peak, least = float(values.max()), float(values.min())
        if not (np.isfinite(peak) and np.isfinite(least)):
            raise BadImageError("values that are not finite")
        if least < 0:
            raise BadImageError("negative values; save their positive part or their absolute values")
    except BadImageError as error:
        raise BadImageError(f"its map {shown(os.path.basename(path))}: {error}") from None
    rows, columns = visible_part(*source_size, size, fit)
    return np.clip(_by_area(values, peak or 1.0, rows, columns, grid_of(size)), 0, 1).astype(np.float32)


def grid_of(size: int) -> int:
    """Cells per side of a stored map from elsewhere: one per 4 x 4 pixels of the frame.

    Borders of masks are then kept within four pixels, in a sixteenth of the space.

    >>> grid_of(224)
    56
    """
    return -(-size // 4)


def visible_part(height: int, width: int, size: int, fit: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """The rows and columns of an upright image that its frame shows, each as a part of the side; beyond it in padding.

    >>> visible_part(300, 400, 224, "crop")
    ((0.0, 1.0), (0.12416107382550336, 0.8758389261744967))
    >>> visible_part(300, 400, 224, "pad")
    ((-0.16666666666666666, 1.1666666666666667), (0.0, 1.0))
    """

    def part(side: int) -> tuple[float, float]:
        start = round((side - size) / 2)
        return start / side, (start + size) / side

    resized = resized_size(height, width, size, fit)
    return part(resized[0]), part(resized[1])


def _by_area(
    values: npt.NDArray[Any], peak: float, rows: tuple[float, float], columns: tuple[float, float], cells: int
) -> npt.NDArray[np.float64]:
    """Means of `values / peak` over the cells of a grid on a part of a map; 0 beyond the map."""
    across = np.linspace(*columns, cells + 1) * values.shape[1]
    bands = np.empty((values.shape[0], cells))
    step = max(1, _ROWS // values.shape[1])
    for top in range(0, len(values), step):
        band = values[top : top + step] / np.float64(peak)
        bands[top : top + step] = _means(band, across)
    return _means(bands.T, np.linspace(*rows, cells + 1) * values.shape[0]).T


def _means(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means of each row between neighboring edges, in columns from the left; 0 beyond the first and last column."""
    last = values.shape[1]
    inside = np.clip(edges, 0, last)
    whole = np.minimum(inside.astype(np.int64), last - 1)
    sums = np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))
    integral = sums[:, whole] + (inside - whole) * values[:, whole]
    means: npt.NDArray[np.float64] = np.diff(integral, axis=1) / np.diff(edges)
    return means


def _read_png(path: str, max_pixels: int) -> npt.NDArray[Any]:
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except DocumentError as error:
        raise BadImageError(str(error)) from None
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror}") from None
    values = decode_gray(data, max_pixels)
    _check_sides(*values.shape)
    return values


def _read_array(path: str, max_pixels: int) -> npt.NDArray[Any]:
    """The array of an NPY file, whose header is checked before anything of its size is read; nothing is unpickled."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError("an unknown version of the format")
            shape, by_columns, kind = _HEADERS[version](file)
            if kind.kind not in "biuf" or kind.itemsize > 8:
                raise BadImageError(f"an array of {kind.name} instead of numbers")
            if len(shape) != 2 or min(shape) < 1:
                raise BadImageError(f"an array with {len(shape)} axes instead of height and width, or an empty one")
            _check_sides(*shape)
            if shape[0] * shape[1] > max_pixels:
                raise BadImageError(
                    f"{shape[0]} x {shape[1]} values are more than the limit of {max_pixels} (--max-pixels)"
                )
            with DECODING.hold(shape[0] * shape[1]):
                data = file.read(shape[0] * shape[1] * kind.itemsize)
    except BadImageError:
        raise
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror}") from None
    # NumPy raises ValueError, TokenError, RecursionError and others for damaged headers
    except Exception:
        raise BadImageError("no array in NPY format, or damaged") from None
    if len(data) < shape[0] * shape[1] * kind.itemsize:
        raise BadImageError("ends within its array")
    return np.frombuffer(data, kind).reshape(shape, order="F" if by_columns else "C")


def _check_sides(height: int, width: int) -> None:
    if max(height, width) > MAX_SIDE:
        raise BadImageError(f"{height} x {width} values; a map has at most {MAX_SIDE:,} per side")
