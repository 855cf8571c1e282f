"""Fitting of an image into a square frame: crop to a box, resize, rotate upright, crop or pad. Boxes in the frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.orientation import TURNS
from saliency_pipeline.images.record import Box

FITS = ("crop", "pad", "squash")
"""How an image becomes a square frame, see `decode.decode_frame`."""

INTERPOLATIONS = ("bilinear", "bicubic")
"""Resampling kernels, both anti-aliased."""

PAD_VALUE = 128
"""Gray level of padding. Mid-gray is near 0 after normalization, while black would be an edge."""

_BAND = 3
"""Largest aspect ratio of an image that is resized as a whole before its center is cropped."""

MAX_SIDE = 2**18
"""Longest side that is resized: torch's intermediate image grows with it."""

Pixels = npt.NDArray[np.uint8]


class Stored(NamedTuple):
    """An image as stored in its file, before it is rotated upright.

    Attributes:
        pixels: (h, w, 3) RGB.
        size: (height, width) according to the file; a multiple of (h, w) if a JPEG was decoded at a fraction.
        extent: rows and columns of `pixels` that the image covers: a fraction of a JPEG may end within a pixel.
        orientation: as in EXIF, 1 to 8.
    """

    pixels: Pixels
    size: tuple[int, int]
    extent: tuple[float, float]
    orientation: int


def resized_size(height: int, width: int, size: int, fit: str) -> tuple[int, int]:
    """(height, width) to which an image is resized before it is cropped or padded."""
    short, long = min(height, width), max(height, width)
    if fit == "squash" or short == long:
        return size, size
    if fit == "crop":
        other = int(size * long / short)
        return (size, other) if height < width else (other, size)
    other = max(1, round(size * short / long))
    return (other, size) if height < width else (size, other)


def cut(stored: Stored, box: Box) -> Stored:
    """The part of an image, decoded at full size, within a box."""
    height, width = stored.pixels.shape[:2]
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    if left >= right or top >= bottom:
        raise BadImageError(f"its box {', '.join(map(str, box))} lies outside the {width} x {height} image")
    pixels = stored.pixels[top:bottom, left:right]
    return Stored(pixels, (bottom - top, right - left), (bottom - top, right - left), stored.orientation)


def fit_frame(stored: Stored, size: int, fit: str, interpolation: str) -> Pixels:
    """An image as an upright frame (S, S, 3), see `decode_frame`.

    Raises:
        BadImageError: it is longer than `MAX_SIDE` and not cropped.
    """
    pixels, (height, width), extent, orientation = stored
    if fit == "crop" and max(pixels.shape[:2]) > _BAND * min(pixels.shape[:2]):
        pixels = _center(pixels, *_resized_part(pixels.shape[0], pixels.shape[1], fit))
        extent = height, width = pixels.shape[:2]
    if max(pixels.shape[:2]) > MAX_SIDE:
        raise BadImageError(f"a side of {max(pixels.shape[:2]):,} pixels, which can only be read with --fit crop")
    resized = _resize(pixels, extent, *resized_size(height, width, size, fit), interpolation)
    turned, rows_backwards, columns_backwards = TURNS[orientation]
    upright = resized.transpose(1, 0, 2) if turned else resized
    upright = upright[:: -1 if rows_backwards else 1, :: -1 if columns_backwards else 1]
    if fit == "pad":
        frame = np.full((size, size, 3), PAD_VALUE, np.uint8)
        _center(frame, *upright.shape[:2])[:] = upright
        return frame
    return np.ascontiguousarray(_center(upright, size, size))


def boxes_in_frame(boxes: npt.ArrayLike, source_size: tuple[int, int], size: int, fit: str) -> npt.NDArray[np.float64]:
    """Boxes of an image in pixels of its frame.

    Args:
        boxes: (n, 4), x0, y0, x1, y1 in pixels of the upright image; x1 and y1 are exclusive. They are clipped to it.
        source_size: (height, width) of the upright image, all of which was fitted, not a region.
        size: side S of the frame in pixels.
        fit: one of `FITS`.

    Returns:
        (m, 4) float64, x0, y0, x1, y1 in [0, S], in the same order, without those of which nothing is in the frame.

    Example:
        >>> boxes_in_frame([(10, 0, 30, 20), (0, 0, 5, 20)], (20, 40), 10, "crop").tolist()
        [[0.0, 0.0, 10.0, 10.0]]
        >>> boxes_in_frame([(10, 0, 30, 20), (0, 0, 5, 20)], (20, 40), 10, "pad").tolist()
        [[2.5, 2.0, 7.5, 7.0], [0.0, 2.0, 1.25, 7.0]]
    """
    part = _resized_part(*source_size, fit)
    resized = resized_size(*part, size, fit)
    corners = np.asarray(boxes, np.float64).reshape(-1, 2, 2)
    # height and width in the order of x and y
    image, kept, scaled = (np.array(shape[::-1]) for shape in (source_size, part, resized))
    # half an odd number is rounded to even, as in _center, also below 0, where the frame is padded
    corners = (np.clip(corners, 0, image) - np.rint((image - kept) / 2)) * (scaled / kept)
    corners = np.clip(corners - np.rint((scaled - size) / 2), 0, size)
    inside = (corners[:, 0] < corners[:, 1]).all(axis=1)
    return np.ascontiguousarray(corners[inside].reshape(-1, 4))


def _resized_part(height: int, width: int, fit: str) -> tuple[int, int]:
    """(height, width) of the center of an image that is resized: all of it, unless it is long and cropped anyway."""
    short, long = min(height, width), max(height, width)
    if fit != "crop" or long <= _BAND * short:
        return height, width
    # resizing all of a 1 x 100,000 image would take 15 GB; the same parity keeps the center
    band = _BAND * short + (long - _BAND * short) % 2
    return min(height, band), min(width, band)


def _center(pixels: Pixels, height: int, width: int) -> Pixels:
    """A view of the center, with the rounding of torchvision's CenterCrop."""
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


def _resize(pixels: Pixels, extent: tuple[float, float], height: int, width: int, interpolation: str) -> Pixels:
    """The first `extent` rows and columns of an image (h, w, 3), resized with anti-aliasing to (height, width, 3)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    whole = extent == pixels.shape[:2]
    # channels_last in every stride, also the batch's, selects torch's vectorized kernel: six times as fast as Pillow's
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(
        image,
        size=(height, width) if whole else None,
        # torch rounds the size that results from the factors down
        scale_factor=None if whole else (height / extent[0] * (1 + 1e-9), width / extent[1] * (1 + 1e-9)),
        mode=interpolation,
        align_corners=False,
        antialias=True,
    )
    return resized[0].permute(1, 2, 0).numpy()


def is_single_color(frame: Pixels, fit: str) -> bool:
    """True if an image has a single color, so that there is nothing to explain.

    Args:
        frame: (S, S, 3) frame of `decode.decode_frame`.
        fit: how it was fitted; the padding is not part of the image.
    """
    # the middle row is enough for nearly every image
    for part in (frame[len(frame) // 2][None], frame):
        picture = part
        if fit == "pad":
            inside = (part != PAD_VALUE).any(axis=2)
            picture = part[inside.any(axis=1)][:, inside.any(axis=0)]
        if picture.size and (picture != picture[0, 0]).any():
            return False
    return True
