"""Formats by content, and formats that need optional packages."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, features

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.formats import MAX_SCANS, find_format
from tests.broken_images import encode, photo, tiff_bytes, unusual


def boxes(major: bytes, *compatible: bytes) -> bytes:
    """The beginning of a file of the ISO base media file format."""
    return struct.pack(">I", 16 + 4 * len(compatible)) + b"ftyp" + major + bytes(4) + b"".join(compatible) + bytes(40)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 6),
        ("JPEG2000", {}, 0),
        ("JPEG2000", {"no_jp2": True}, 0),
        ("MPO", {"quality": 100, "subsampling": 0, "save_all": True, "append_images": [Image.new("RGB", (40, 40))]}, 6),
        (
            "AVIF",
            {"quality": 100, "subsampling": "4:4:4", "save_all": True, "append_images": [Image.new("RGB", (40, 40))]},
            6,
        ),
    ],
)
def test_newer_formats_and_the_first_of_their_images_are_read(kind, options, tolerance):
    frame, size = decode_frame(encode(photo(40, 40), kind, **options), 40)
    assert size == (40, 40)
    assert np.abs(frame.astype(int) - photo(40, 40)).max() <= tolerance


def test_a_jpeg_2000_that_names_itself_jpx_is_read():
    data = encode(photo(40, 40), "JPEG2000").replace(b"ftypjp2 ", b"ftypjpx ", 1)
    np.testing.assert_array_equal(decode_frame(data, 40)[0], photo(40, 40))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (boxes(b"avif", b"mif1"), "AVIF"),
        (boxes(b"avis", b"msf1"), "AVIF"),
        (boxes(b"mif1", b"miaf", b"avif"), "AVIF"),
        (boxes(b"heic", b"mif1"), "HEIC"),
        (boxes(b"mif1", b"heic"), "HEIC"),
        (boxes(b"heix", b"mif1", b"avif"), "HEIC"),
        (boxes(b"msf1", b"hevc"), "HEIC"),
        (boxes(b"mif1"), "HEIF"),
    ],
)
def test_brands_decide_between_avif_and_heic(data, name, monkeypatch):
    # Without pillow-heif the answer names what is missing.
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    if name == "AVIF":
        assert find_format(data)[0] == "AVIF"
        return
    with pytest.raises(BadImageError) as caught:
        find_format(data)
    assert str(caught.value) == "reading HEIC needs the extra heic; pip install 'saliency-pipeline[heic]'"


def test_a_film_is_no_image():
    with pytest.raises(BadImageError, match=r"^not an image that can be read"):
        decode_frame(boxes(b"isom", b"iso2", b"mp41"), 8)


def test_a_pillow_without_avif_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(BadImageError, match=r"^reading AVIF needs Pillow 11\.3 or later, built with libavif; pip inst"):
        decode_frame(encode(photo(), "AVIF"), 8)


def test_heic_is_read_with_the_extra():
    heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(photo(64, 48))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    written = heif.from_pillow(image)
    written.save(file, quality=-1, exif=exif.tobytes())
    frame, size = decode_frame(file.getvalue(), 48, fit="pad")
    opened = heif.open_heif(file.getvalue()).to_pillow()  # turned by libheif already
    assert size == (opened.height, opened.width)
    np.testing.assert_array_equal(frame, decode_frame(encode(opened, "PNG"), 48, fit="pad")[0])


@pytest.mark.parametrize("name", ["a.avif", "b.jp2", "c.j2k"])
def test_truncated_files_of_newer_formats_are_refused(name):
    kind, options = {"a": ("AVIF", {}), "b": ("JPEG2000", {}), "c": ("JPEG2000", {"no_jp2": True})}[name[0]]
    data = encode(photo(), kind, **options)
    for length in range(12, len(data) // 2, max(1, len(data) // 40)):
        with pytest.raises(BadImageError) as caught:
            decode_frame(data[:length], 32)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("kind", "limit", "count"),
    [
        ("AVIF", 3000, ""),
        ("WEBP", 2 * 64 * 48 - 1, ", which count 2 times in this format,"),
        ("JPEG2000", 3 * 64 * 48 - 1, ", which count 3 times in this format,"),
    ],
)
def test_newer_formats_are_refused_by_their_header(kind, limit, count, monkeypatch):
    def never(image):
        raise AssertionError("pixels were decoded")

    data = encode(photo(), kind)
    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    with pytest.raises(BadImageError, match=f"64 x 48 pixels{count} are more than the limit of {limit}"):
        decode_frame(data, 32, max_pixels=limit)


def test_a_jpeg_2000_whose_box_lies_about_its_size_is_refused():
    data = encode(photo(), "JPEG2000")
    at = data.index(b"ihdr") + 4
    with pytest.raises(BadImageError, match="JPEG 2000"):
        decode_frame(data[:at] + struct.pack(">II", 8, 8) + data[at + 8 :], 32)


# small files that cost much


def many_scans(scans: int, *, progressive: bool) -> bytes:
    """A JPEG whose pixels come in more passes than any program writes."""
    data = encode(photo(), "JPEG", progressive=progressive, subsampling=0)
    if progressive:
        last = data[data.rindex(b"\xff\xda") : -2]
        return data[:-2] + last * scans + b"\xff\xd9"
    one = b"".join(b"\xff\xda\0\x08\x01" + bytes([1 + c, 0x11 * (c > 0)]) + b"\0\x3f\0" for c in range(3))
    return data[: data.index(b"\xff\xda")] + one * (scans // 3) + b"\xff\xd9"


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_thousands_of_scans_is_refused_undecoded(progressive, monkeypatch):
    monkeypatch.setattr("simplejpeg.decode_jpeg", None)
    with pytest.raises(BadImageError, match=rf"^a JPEG of [0-9],[0-9]+ scans; at most {MAX_SCANS} are decoded$"):
        decode_frame(many_scans(3000, progressive=progressive), 32)


def test_ordinary_scans_are_decoded_and_thumbnails_count_for_nothing():
    assert decode_frame(many_scans(80, progressive=True), 32)[1] == (48, 64)
    # Marks of scans before the pixels are those of thumbnails; what looks like one behind the only scan is no part.
    data = encode(photo(), "JPEG")
    thumbnails = b"\xff\xe5" + struct.pack(">H", 2 + 800) + b"\xff\xda" * 400
    frame = decode_frame(data[:2] + thumbnails + data[2:] + b"\xff\xda" * 400, 32)[0]
    np.testing.assert_array_equal(frame, decode_frame(data, 32)[0])


def test_a_profile_or_a_text_of_some_megabytes_does_not_cost_a_png_its_image():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = encode(photo(), "PNG")
    for extra in (b"iCCP", b"zTXt"):
        large, huge = (chunk(extra, b"name\0\0" + zlib.compress(bytes(count << 20))) for count in (3, 40))
        np.testing.assert_array_equal(decode_frame(data[:33] + large + data[33:], 32)[0], decode_frame(data, 32)[0])
        with pytest.raises(BadImageError, match="Decompressed data too large"):
            decode_frame(data[:33] + huge + data[33:], 32)
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20


# what Pillow says


def test_warnings_of_pillow_neither_appear_nor_matter(recwarn):
    animation = unusual()["animated.png"]
    broken = animation.replace(b"acTL" + struct.pack(">I", 2), b"acTL" + bytes(4))
    at = broken.index(b"acTL")
    broken = broken[: at + 12] + struct.pack(">I", zlib.crc32(broken[at : at + 12])) + broken[at + 16 :]
    many = bytearray(encode(photo(), "TIFF", tiffinfo={0x0112: 1}))
    at = many.index(struct.pack("<HHI", 0x0112, 3, 1))
    many[at + 4] = 2
    with pytest.warns(UserWarning, match="Invalid APNG"):  # of Pillow's own opening
        Image.open(io.BytesIO(broken)).load()
    for data, size in ((broken, (30, 20)), (bytes(many), (48, 64))):
        assert decode_frame(data, 16)[1] == size
    assert not [warning for warning in recwarn if "PIL" in warning.filename]


@pytest.mark.parametrize(
    "text",
    [
        "cannot identify image file <_io.BytesIO object at 0x7f0a1b2c3d40>",
        "<function open.<locals>.reader at 0x7f0a1b2c3d40> of <PIL.Image.Image image mode=L size=1x1 at 0x7F0A1B2C>",
        "<weakref at 0x7f0a; to 'Image' at 0x7f0b>",
    ],
)
def test_reasons_hold_no_addresses(text, monkeypatch):
    def load(image):
        raise OSError(text)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(BadImageError) as caught:
        decode_frame(encode(photo(), "PNG"), 8)
    assert "0x" not in str(caught.value)
    assert "damaged or unsupported PNG (OSError: " in str(caught.value)


PPM_HEADER = b"P%d # by hand\n3 2\n"
VALUES = [0, 51, 255, 255, 204, 0]


@pytest.mark.parametrize(
    "data",
    [
        PPM_HEADER % 2 + b"255\n0 51 255\n255 204 0",
        PPM_HEADER % 2 + b"5\n0 1 5\n5 # a comment\n4 0",
        PPM_HEADER % 3 + b"255\n" + b" ".join(b"%d %d %d" % (v, v, v) for v in VALUES),
        PPM_HEADER % 5 + b"255\n" + bytes(VALUES),
        PPM_HEADER % 5 + b"5\n" + bytes([0, 1, 5, 5, 4, 0]),
        PPM_HEADER % 5 + b"65535\n" + struct.pack(">6H", *(257 * v for v in VALUES)),
        PPM_HEADER % 6 + b"255\n" + bytes(v for v in VALUES for _ in range(3)),
        PPM_HEADER % 6 + b"65535\n" + struct.pack(">18H", *(257 * v for v in VALUES for _ in range(3))),
    ],
)
def test_all_kinds_of_ppm_are_read(data: bytes) -> None:
    frame, size = decode_frame(data, 2, fit="squash", box=(0, 0, 2, 2))
    assert size == (2, 3)
    np.testing.assert_array_equal(frame[..., 1], [VALUES[:2], VALUES[3:5]])


@pytest.mark.parametrize("data", [PPM_HEADER % 1 + b"0 1 0\n1 1 0", PPM_HEADER % 4 + bytes([0b01000000, 0b11000000])])
def test_bitmaps_of_ppm_are_black_where_a_bit_is_set(data: bytes) -> None:
    frame, _ = decode_frame(data, 2, fit="squash", box=(0, 0, 2, 2))
    np.testing.assert_array_equal(frame[..., 0], [[255, 0], [0, 0]])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P6 99999999 99999999 255\n", "more than the limit of 128000000"),
        (b"P3 9999 9999 255\n1 2 3", r"299,940,003 values in text or of more or less than 8 bits; at most 16,777,216"),
        (b"P6 9999 9999 7\n1 2 3", r"299,940,003 values in text"),
        (b"P5 #" + b"a" * 2**17 + b"\n1 1 255\na", "its header is cut short or longer than that of any image"),
        (b"P2 1 1 255\n" + b"#\n" * 2000 + b"7", "more than 1,000 comments"),
        (b"P6 9 9 255\nabc", "damaged or unsupported PPM .OSError: image file is truncated"),
        (b"P2 2 1 255\n7", "damaged or unsupported PPM"),
        (b"P2 1 1 255\n-7", "damaged or unsupported PPM .ValueError: Channel value is negative"),
        (b"P6 0 1 255\n", "damaged or unsupported PPM"),
        (b"P6 1 1 0\nabc", "damaged or unsupported PPM .ValueError: maxval must be"),
    ],
)
def test_hostile_ppm_is_refused_at_once(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_frame(data, 8)


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(("channels", "bits"), [(2, 8), (5, 16), (8, 8), (13, 16)])
def test_tiffs_of_channels_that_pillow_does_not_read_say_so(channels: int, bits: int, planes: int) -> None:
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: 2, 277: channels, 278: 4, 284: planes}
    with pytest.raises(BadImageError, match=r"^a TIFF with a layout of channels that Pillow does not read$"):
        decode_frame(tiff_bytes(bytes(16 * channels * bits // 8), tags), 8)


def test_a_tiff_with_fewer_planes_in_its_mode_than_channels_says_so() -> None:
    tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: (8, 24, 40), 277: 3, 278: 4, 279: (16, 16, 16), 284: 2}
    with pytest.raises(BadImageError, match="layout of channels"):
        decode_frame(tiff_bytes(bytes(48), tags), 8)
