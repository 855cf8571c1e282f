"""Conversion of any of Pillow's modes to 8-bit RGB, with transparency over white."""

from __future__ import annotations

import numpy as np
from PIL import Image, TiffImagePlugin

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.fit import Pixels

_BAND_PIXELS = 1 << 20
"""Pixels that are converted at once, so that Pillow's copies stay small."""

_PHOTOMETRIC_TAG, _BITS_TAG = 262, 258


def to_rgb(image: Image.Image, *, alpha: bool, premultiplied: bool = False) -> Pixels:
    """The pixels (h, w, 3) of a loaded image of any mode.

    Args:
        image: the image.
        alpha: True if a channel beyond the colors is alpha. If it is 0 everywhere it is ignored, as viewers do, since
            some programs write such files.
        premultiplied: True if the colors are multiplied with alpha.

    Raises:
        BadImageError: the value of white is unknown.
    """
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    if not (alpha and image.has_transparency_data and _paint(image, rgb, blend=True, premultiplied=premultiplied)):
        _paint(image, rgb, blend=False)
    return rgb


def _paint(image: Image.Image, rgb: Pixels, *, blend: bool, premultiplied: bool = False) -> bool:
    """Write an image's colors into `rgb` (h, w, 3); return True if any pixel is visible."""
    width, height = image.size
    rows = max(1, _BAND_PIXELS // width)
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    visible = False
    for top in range(0, height, rows):
        band = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        part = rgb[top : top + rows]
        if deep:
            gray, opaque = _eight_bits(band, image)
            part[:] = np.where(opaque | (not blend), gray, 255)[..., None]
            visible |= bool(opaque.any())
        elif not blend:
            # Pillow would search for a substitute of the transparent color, and warn
            band.info.pop("transparency", None)
            part[:] = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
        else:
            rgba = band if band.mode == "RGBA" else band.convert("RGBA")
            visible = visible or rgba.getchannel("A").getextrema() != (0, 0)
            part[:] = _over_white(rgba, premultiplied=premultiplied)
    return visible


def _over_white(rgba: Image.Image, *, premultiplied: bool) -> Pixels:
    if premultiplied:
        values = np.asarray(rgba)
        over: Pixels = np.minimum(values[..., :3] + (255 - values[..., 3:].astype(np.uint16)), 255).astype(np.uint8)
        return over
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return np.asarray(white)


def _eight_bits(
    band: Image.Image, image: Image.Image
) -> tuple[Pixels, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """The gray values (h, w) of a part of an image with more than 8 bits per pixel, and the mask of opaque ones."""
    values = np.asarray(band)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if band.mode == "I" and image.format != "PPM":  # Pillow scales PPM values of more than 8 bits to 16
        raise BadImageError("signed or 32-bit integer pixels: which value is white is not known")
    if band.mode == "F":
        # A NaN fails this comparison too.
        if not (values.min() >= 0 and values.max() <= 1):
            raise BadImageError("floating-point pixels outside [0, 1]: which value is white is not known")
        gray = np.round(values * 255).astype(np.uint8)
    else:
        gray = (values >> (tags.get(_BITS_TAG, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC_TAG) == 0:
        gray = 255 - gray
    return gray, values != image.info.get("transparency", -1)
