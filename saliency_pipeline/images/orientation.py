"""Orientation of images, from EXIF, TIFF tags or XMP."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image

from saliency_pipeline.images.record import Box

TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""By EXIF orientation: transpose, then flip rows, flip columns."""

_TAG = 0x0112
_XMP = rb'tiff:Orientation(?:="|>)([0-9])'
# struct codes of TIFF's numeric types
_NUMBERS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, of an image opened by Pillow.

    It agrees with `PIL.ImageOps.exif_transpose`: the EXIF block of the file (in a PNG also as text: "Raw profile type
    exif") or the tags of a TIFF; without an orientation there, an attribute or element of the XMP packet. Pillow puts
    the rotation and mirroring of an AVIF file into its EXIF block. Damaged blocks and invalid orientations are ignored.

    Unlike Pillow, this function neither warns nor raises.
    """
    info = image.info
    value: Any = None
    if "exif" in info:
        value = _in_exif(info["exif"]) if isinstance(info["exif"], bytes) else None
    elif "Raw profile type exif" in info:
        value = _in_exif(_bytes_of_profile(str(info["Raw profile type exif"])))
    else:
        value = getattr(image, "tag_v2", {}).get(_TAG)
    if value is None:
        value = _in_xmp(info.get("XML:com.adobe.xmp") or info.get("xmp"))
    try:
        return int(value) if value in TURNS else 1
    except TypeError:  # a TIFF tag may hold anything
        return 1


def upright_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box in pixels of an image as stored in its file, in pixels of the upright image.

    Args:
        box: x0, y0, x1, y1.
        size: (height, width) of the upright image.
        orientation: as in EXIF, 1 to 8.

    >>> upright_box((0, 0, 10, 5), (40, 30), 6)  # stored 40 wide and 30 high, to be rotated clockwise
    (25, 0, 30, 10)
    """
    x0, y0, x1, y1 = box
    turned, rows_backwards, columns_backwards = TURNS[orientation]
    if turned:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if rows_backwards:
        y0, y1 = size[0] - y1, size[0] - y0
    if columns_backwards:
        x0, x1 = size[1] - x1, size[1] - x0
    return x0, y0, x1, y1


def _in_exif(exif: bytes) -> float | None:
    """Value of the orientation in an EXIF block; None without one or if the block is damaged."""
    tiff = re.sub(rb"\A(?:Exif\0\0){1,2}", b"", exif)
    order = "<" if tiff.startswith(b"II") else ">"
    value: float | None = None
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == _TAG and entry + 12 <= len(tiff) and length:
                # not None even if it is no number, so that XMP is not consulted
                value = _first_number(tiff, order, entry + 8, kind, length)
    except struct.error:  # the block ends before its directory does
        pass
    return value


def _first_number(tiff: bytes, order: str, at: int, kind: int, length: int) -> float:
    """The first value of an entry; 0 if its type is not numeric."""
    number = _NUMBERS.get(kind)
    if number is None:
        return 0
    if struct.calcsize(f"{order}{number}") * length > 4:  # the entry has the offset of its values
        (at,) = struct.unpack_from(f"{order}I", tiff, at)
    value: float = struct.unpack_from(order + number, tiff, at)[0]
    return value


def _bytes_of_profile(text: str) -> bytes:
    """Bytes of a profile that ImageMagick writes into PNG files as text: a name, a length and hexadecimal lines."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def _in_xmp(packet: object) -> int | None:
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    match = re.search(_XMP, packet) if isinstance(packet, bytes) else None
    return int(match[1]) if match else None
