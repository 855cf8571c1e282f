"""Mutations of parts of image files that keep lengths and checksums valid."""

import io
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random

from PIL import Image

from tests.fuzz.mutations import INTEGERS, change_part, integer_bytes


def enlarge(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Width and height in the headers become large ones that a limit of pixels may still allow."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    wide, high = random.choice(((11_000, 11_000), (65_500, 1_900), (1_900, 65_500), (16_383, 7_800), (1, 65_535)))
    for pack in _SIZES:
        data = data.replace(pack(width, height), pack(wide, high))
    if data.startswith(b"\x89PNG"):
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    return data


_SIZES: tuple[Callable[[int, int], bytes], ...] = (
    lambda w, h: struct.pack(">II", w, h),  # PNG, AVIF, JPEG 2000
    lambda w, h: struct.pack(">II", h, w),
    lambda w, h: struct.pack("<II", w, h),  # BMP
    lambda w, h: struct.pack("<HH", w, h),  # GIF, lossy WebP
    lambda w, h: struct.pack(">HH", h, w),  # JPEG
    lambda w, h: (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little"),  # extended WebP
    lambda w, h: b"\x2f" + ((w - 1) % 2**14 | (h - 1) % 2**14 << 14).to_bytes(4, "little"),  # lossless WebP
    lambda w, h: struct.pack("<HHIIHHII", 256, 4, 1, w, 257, 4, 1, h),  # TIFF
    lambda w, h: struct.pack("<HHIHHHHIHH", 256, 3, 1, w, 0, 257, 3, 1, h, 0),
)


def png_chunks(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Chunks of a PNG with the right checksum behind what was changed; pixels are changed before they are packed."""
    pieces, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        pieces.append(data[at + 4 : at + 8 + length])
        at += 12 + length
    place = next((i for i, piece in enumerate(pieces) if piece[:4] == b"IDAT"), 0)
    if random.random() < 0.3:
        rows = change_part(zlib.decompress(b"".join(p[4:] for p in pieces if p[:4] == b"IDAT")), random)
        rows *= random.choice((1, 1, 1, 200))
        pieces = [p for p in pieces if p[:4] != b"IDAT"]
        pieces.insert(place, b"IDAT" + zlib.compress(rows))
    elif random.random() < 0.3:
        kind = random.choice((b"zTXt", b"iTXt", b"iCCP", b"tEXt", b"eXIf", b"acTL", b"fcTL", b"tRNS", b"PLTE"))
        body = random.choice(
            (b"XML:com.adobe.xmp\0\0\0\0\0", b"a\0\0" + zlib.compress(bytes(2**22)), random.randbytes(30))
        )
        pieces.insert(random.randrange(len(pieces)), kind + body)
    else:
        pieces = _rearranged(pieces, random)
    chunks = (struct.pack(">I", max(0, len(p) - 4)) + p + struct.pack(">I", zlib.crc32(p)) for p in pieces)
    return data[:8] + b"".join(chunks)


def jpeg_segments(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Segments of a JPEG: their contents, order and number; a scan repeated thousands of times is one of them."""
    return b"\xff\xd8" + b"".join(
        _rearranged(re.split(rb"(?s)(?=\xff[\xc0-\xc7\xc9-\xcf\xda-\xfe])", data[2:]), random)
    )


def riff_chunks(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Chunks of a WebP with the right lengths."""
    pieces, at = [], 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        pieces.append(data[at : at + 4] + data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    pieces = _rearranged(pieces, random)
    body = b"".join(p[:4] + struct.pack("<I", max(0, len(p) - 4)) + p[4:] + bytes(len(p) % 2) for p in pieces)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def gif_blocks(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Blocks of a GIF: image descriptors and extensions, roughly."""
    return b"".join(_rearranged(re.split(rb"(?s)(?=!\xf9\x04|,....(?=\S))", data), random))


def tiff_tags(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """An entry of a TIFF's first directory: its tag, type, count or value."""
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    entry = first + 2 + 12 * random.randrange(count)
    offset, size = random.choice(((0, 2), (2, 2), (4, 4), (8, 4), (8, 4), (8, 2)))
    value = random.choice((*INTEGERS, random.randrange(20), 273, 279, 322, 257, first)) % 256**size
    number = value.to_bytes(size, "little" if order == "<" else "big")
    return data[: entry + offset] + number + data[entry + offset + size :]


def boxes(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A length or number in a box of AVIF or JPEG 2000."""
    kinds = [match.start() for match in re.finditer(rb"[a-z][a-zA-Z0-9]{3}", data[:2000])]
    at = max(0, random.choice(kinds or [4]) + random.choice((-4, 4, 8, 12, 16, 20)))
    number = integer_bytes(random, 4)
    return data[:at] + number + data[at + 4 :]


def _rearranged(pieces: list[bytes], random: Random) -> list[bytes]:
    """Pieces of a file: one changed, doubled (perhaps thousands of times), lost, or moved."""
    place = random.randrange(len(pieces))
    edit = random.randrange(6)
    if edit == 0:
        pieces[place:place] = [pieces[place]] * random.choice((1, 2, 100, 3000))
    elif edit == 1:
        del pieces[place]
    elif edit == 2:
        pieces.insert(random.randrange(len(pieces)), pieces.pop(place))
    else:
        pieces[place] = change_part(pieces[place], random)
    return pieces
