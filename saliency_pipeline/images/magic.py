"""Recognition of image formats by the first bytes of a file."""

from __future__ import annotations

import re

from saliency_pipeline.contents import open_contents

FIRST_BYTES = 64
"""Largest number of bytes that `format_of` needs."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
"""Sizes of the header behind a bitmap's file header: "BM" alone may begin a text."""

_PPM = re.compile(rb"P[1-6]\s+(?:#|[0-9]+\s+(?:#|[0-9]))")
"""Width and height behind the two letters, or a comment: a text may begin with "P1 "."""

_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
}
_ANY_CODEC_BRANDS = frozenset({b"mif1", b"mif2", b"msf1"})


def format_of(data: bytes) -> str | None:
    r"""Format of an image by its first bytes; None for other files.

    >>> format_of(b"\xff\xd8\xff\xe0"), format_of(b"\0\0\0\x20ftypavif"), format_of(b"BM is a text")
    ('JPEG', 'AVIF', None)
    """
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and data[6:10] == bytes(4) and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if _PPM.match(data):
        return "PPM"
    if data[4:8] == b"ftyp":
        end = min(int.from_bytes(data[:4], "big"), FIRST_BYTES)
        brands = [data[8:12], *(data[start : start + 4] for start in range(16, end, 4))]
        codec = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
        return codec or (None if _ANY_CODEC_BRANDS.isdisjoint(brands) else "HEIF")
    return None


def first_bytes(path: str, offset: int = 0) -> bytes:
    """First bytes of a regular file, or of a part of it; empty if it is none or cannot be read."""
    try:
        with open_contents(path) as file:
            return file.read(FIRST_BYTES, offset)
    except OSError:
        return b""
