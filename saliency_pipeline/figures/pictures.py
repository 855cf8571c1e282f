"""Images as files in memory: resized, encoded as JPEG or PNG, and embedded in pages as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, RGB."""


def resized(image: Pixels, side: int) -> Pixels:
    """A square image with another side, (side, side, 3) uint8."""
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def jpeg(image: Pixels, quality: int = 82) -> bytes:
    """An image as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def png(image: Pixels | npt.NDArray[np.uint16], compress_level: int = 6) -> bytes:
    """An image, RGB or gray with 8 or 16 bits, as a PNG file.

    Args:
        image: (H, W, 3) uint8, or (H, W) uint8 or uint16.
        compress_level: 0 to 9, as of zlib.
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=compress_level)
    return file.getvalue()


def data_uri(file: bytes, kind: str = "jpeg") -> str:
    """A file of an image as a data URI; `kind` is the subtype of its media type.

    >>> data_uri(b"<svg/>", "svg+xml")
    'data:image/svg+xml;base64,PHN2Zy8+'
    """
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"
