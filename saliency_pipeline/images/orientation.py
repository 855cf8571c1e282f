"""Which way up an image is: where its file says so, and what has to be done to the pixels."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image

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
"""EXIF orientation: whether rows and columns change places, and which of the two then run backwards."""

_TAG = 0x0112
_XMP = rb'tiff:Orientation(?:="|>)([0-9])'
# TIFF's types that are one number.
_NUMBERS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}


def orientation(image: Image.Image) -> int:
    """The orientation of an image that was opened by Pillow, as in EXIF: 1 to 8.

    Read where `PIL.ImageOps.exif_transpose` reads it, so that frames are the same way up: the EXIF block of the file
    (a PNG may hold it as text: "Raw profile type exif") or the tags of a TIFF; and where those have no orientation,
    the XMP packet, which has it as an attribute or as an element. The rotation and the mirroring of an AVIF file are
    given in its EXIF block by Pillow. Damaged blocks and orientations that do not exist count for nothing.

    Unlike Pillow's own reading, this one neither warns nor raises.
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


def _in_exif(exif: bytes) -> float | None:
    """The orientation an EXIF block gives, whatever its value; None where it gives none or is damaged."""
    tiff = re.sub(rb"\A(?:Exif\0\0){1,2}", b"", exif)
    order = "<" if tiff.startswith(b"II") else ">"
    value: float | None = None
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(f"{order}HHI", tiff, entry)
            if tag == _TAG and entry + 12 <= len(tiff) and length:
                # What is no number is no orientation, but it is what the block says.
                value = _first_number(tiff, order, entry + 8, kind, length)
    except struct.error:  # the block ends before its directory does
        pass
    return value


def _first_number(tiff: bytes, order: str, at: int, kind: int, length: int) -> float:
    """The first value of an entry; 0 where its type is not one of numbers."""
    number = _NUMBERS.get(kind)
    if number is None:
        return 0
    if struct.calcsize(f"{order}{number}") * length > 4:  # the values lie elsewhere
        (at,) = struct.unpack_from(f"{order}I", tiff, at)
    value: float = struct.unpack_from(order + number, tiff, at)[0]
    return value


def _bytes_of_profile(text: str) -> bytes:
    """What ImageMagick writes into PNG files as text: a name, a length and hexadecimal digits in lines."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def _in_xmp(packet: object) -> int | None:
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    match = re.search(_XMP, packet) if isinstance(packet, bytes) else None
    return int(match[1]) if match else None
