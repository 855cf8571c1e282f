"""Orientation from EXIF, TIFF tags and XMP, compared with Pillow's exif_transpose."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.orientation import orientation
from tests.broken_images import encode, photo

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXACT = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"subsampling": "4:4:4"}}


def exif(value: bytes, kind: int = 3, count: int = 1, tag: int = 0x0112) -> bytes:
    entry = struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]
    return b"Exif\0\0II" + struct.pack("<HIH", 42, 8, 1) + entry + bytes(4) + value


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def attribute(value: int) -> bytes:
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{value}"/></x:xmpmeta>'.encode()


def element(value: int) -> bytes:
    return f"<x:xmpmeta><tiff:Orientation>{value}</tiff:Orientation></x:xmpmeta>".encode()


def image(kind: str, **options: object) -> bytes:
    return encode(photo(24, 40), kind, **EXACT.get(kind, {}), **options)


def jpeg(*segments: bytes) -> bytes:
    data = image("JPEG")
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments) + data[2:]


def png(key: str, text: str, **options: object) -> bytes:
    info = PngImagePlugin.PngInfo()
    (info.add_itxt if key.startswith("XML") else info.add_text)(key, text, **options)
    return image("PNG", pnginfo=info)


def late(block: bytes) -> bytes:
    """A PNG whose EXIF block comes after its pixels."""
    data, chunk = image("PNG"), b"eXIf" + block
    end = data.index(b"IEND") - 4
    return data[:end] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[end:]


def raw_profile(block: bytes) -> str:
    return f"\nexif\n{len(block):8}\n{block.hex()[:60]}\n{block.hex()[60:]}\n"


WAYS = {
    "JPEG, EXIF": lambda n: jpeg(exif(short(n))),
    "JPEG, EXIF before XMP": lambda n: jpeg(exif(short(n)), XMP + attribute(3)),
    "JPEG, XMP before EXIF": lambda n: jpeg(XMP + attribute(3), exif(short(n))),
    "JPEG, XMP attribute": lambda n: jpeg(XMP + attribute(n)),
    "JPEG, XMP element": lambda n: jpeg(XMP + element(n)),
    "JPEG, EXIF of another tag, XMP": lambda n: jpeg(exif(short(5), tag=0x0100), XMP + attribute(n)),
    "JPEG, EXIF 0, XMP": lambda n: jpeg(exif(short(0)), XMP + attribute(n)),
    "JPEG, EXIF twice": lambda n: jpeg(exif(short(n)), exif(short(3))),
    "PNG, eXIf": lambda n: image("PNG", exif=exif(short(n))),
    "PNG, eXIf after the pixels": lambda n: late(exif(short(n))[6:]),
    "PNG, XMP": lambda n: png("XML:com.adobe.xmp", element(n).decode()),
    "PNG, compressed XMP": lambda n: png("XML:com.adobe.xmp", attribute(n).decode(), zip=True),
    "PNG, raw profile": lambda n: png("Raw profile type exif", raw_profile(exif(short(n)))),
    "WebP, EXIF": lambda n: image("WEBP", exif=exif(short(n))),
    "WebP, XMP": lambda n: image("WEBP", xmp=attribute(n)),
    "TIFF, tag": lambda n: image("TIFF", tiffinfo={0x0112: n}),
    "TIFF, tag, compressed": lambda n: image("TIFF", tiffinfo={0x0112: n}, compression="tiff_lzw"),
    "TIFF, XMP": lambda n: image("TIFF", tiffinfo={700: attribute(n)}),
    "AVIF, irot and imir": lambda n: image("AVIF", exif=exif(short(n))),
    "AVIF, XMP": lambda n: image("AVIF", xmp=attribute(n)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(1, 9))
def test_frames_are_those_of_exif_transpose(way, number):
    data = WAYS[way](number)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert way in ("JPEG, EXIF 0, XMP", "JPEG, EXIF twice") or (upright.size == (24, 40)) == (number >= 5)
    frame, size = decode_frame(data, 24, fit="pad")
    expected, expected_size = decode_frame(encode(upright, "PNG"), 24, fit="pad")
    assert size == expected_size == (upright.height, upright.width)
    assert np.abs(frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith(("TIFF", "PNG, XMP"))])
@pytest.mark.parametrize(("number", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_a_box_is_meant_in_the_pixels_of_the_file(way, number, turns):
    frame, size = decode_frame(WAYS[way](number), 8, box=(4, 2, 12, 10))
    np.testing.assert_array_equal(frame, np.rot90(photo(24, 40)[2:10, 4:12], turns))
    assert size == ((24, 40) if number == 3 else (40, 24))


@pytest.mark.parametrize("number", [0, 3, 6, 9])
@pytest.mark.parametrize(
    ("packing", "kind", "count"),
    [
        *(("<B", 1, 1), ("<H", 3, 1), ("<H", 3, 2), ("<I", 4, 1), ("<b", 6, 1), ("<B", 7, 1), ("<h", 8, 1)),
        *(("<i", 9, 1), ("<f", 11, 1), ("<I", 13, 1), ("<H", 3, 0), ("<H", 99, 1), ("<B", 2, 1)),
    ],
)
def test_numbers_of_any_type_are_read_as_pillow_reads_them(packing, kind, count, number):
    file = Image.new("L", (1, 1))
    file.info["exif"] = exif(struct.pack(packing, number), kind, count)
    value = orientation(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = file.getexif().get(0x0112, 1)
    assert value == (expected if expected in range(1, 9) else 1)


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"noise" * 9])
def test_where_the_exif_block_is_damaged_xmp_still_counts(block):
    file = Image.new("L", (1, 1))
    file.info |= {"exif": block, "xmp": attribute(6)}
    assert orientation(file) == 6


@pytest.mark.parametrize("profile", ["", "\nexif\n 4\nno hexadecimal digits\n", "\nexif\n      2\n4949\n"])
def test_a_damaged_raw_profile_harms_nothing(profile):
    assert decode_frame(png("Raw profile type exif", profile), 8)[1] == (24, 40)
