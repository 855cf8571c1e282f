"""Color modes of files: frames are 8-bit RGB over white."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import decode_frame
from tests.broken_images import encode, photo, png_bytes, tiff_bytes, unusual


def whole_frame(data: bytes, **options: object) -> np.ndarray:
    """The frame of a square image at its own size: what the decoder saw, not resized."""
    return decode_frame(data, Image.open(io.BytesIO(data)).width, **options)[0]


def test_gray_and_one_bit_images_have_three_equal_channels():
    gray = photo(32, 32)[..., 0]
    for image in (Image.fromarray(gray), Image.fromarray(gray).convert("1")):
        for kind in ("PNG", "BMP", "TIFF"):
            expected = np.asarray(image.convert("L"))
            np.testing.assert_array_equal(whole_frame(encode(image, kind)), np.dstack([expected] * 3))
    frame = whole_frame(encode(Image.fromarray(gray), "JPEG", quality=100))
    assert np.abs(frame.astype(int) - gray[..., None]).max() <= 3


def test_cmyk_jpegs_have_their_colors():
    # A printer's color is what white light lacks: no cyan, all magenta, all yellow is red.
    for ink, color in (((0, 255, 255, 0), (255, 0, 0)), ((255, 0, 255, 0), (0, 255, 0)), ((0, 0, 0, 255), (0, 0, 0))):
        data = encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
        assert b"Adobe" in data
        assert np.abs(whole_frame(data).astype(int) - color).max() <= 2
        assert (whole_frame(encode(Image.new("CMYK", (16, 16), ink), "TIFF")) == color).all()


def test_ycck_jpegs_have_their_colors():
    # The same four planes, declared as luminance, chrominances and black. Adobe stores all of them inverted.
    data = encode(Image.new("CMYK", (16, 16), (75, 127, 127, 0)), "JPEG", quality=100)
    marker = data.index(b"Adobe")
    ycck = data[: marker + 11] + b"\x02" + data[marker + 12 :]
    # Stored 255 - 75 = 180 as Y and 128 as Cb and Cr: neutral ink of 180, which leaves 75 of the light.
    assert np.abs(whole_frame(ycck).astype(int) - 75).max() <= 2
    assert np.abs(whole_frame(data).astype(int) - (180, 128, 128)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(kind):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8] = (255, 0, 0, 128)
    rgba[8:12] = (0, 255, 0, 0)
    rgba[12:] = (0, 0, 255, 255)
    frame = whole_frame(encode(rgba, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    assert np.abs(frame[:8].astype(int) - (255, 127, 127)).max() <= 1
    assert (frame[8:12] == 255).all()
    assert (frame[12:] == (0, 0, 255)).all()


def test_gray_with_alpha_is_laid_over_white():
    image = np.zeros((16, 16, 2), np.uint8)
    image[:8] = (100, 255)
    frame = whole_frame(encode(Image.fromarray(image), "PNG"))
    assert (frame[:8] == 100).all()
    assert (frame[8:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_laid_over_white(kind):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.paste(2, (0, 0, 16, 8))
    frame = whole_frame(encode(image, kind, transparency=2))
    assert (frame[:8] == 255).all()
    assert (frame[8:] == (255, 0, 0)).all()


def test_a_palette_with_an_alpha_for_each_entry():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    frame = whole_frame(encode(image, "PNG", transparency=b"\xff\x80"))
    assert np.abs(frame.astype(int) - (255, 127, 127)).max() <= 1


def test_a_transparent_color_of_a_png_is_laid_over_white():
    red, gray = bytes((255, 0, 0)), bytes((7,))
    rgb = png_bytes(2, 2, depth=8, color=2, rows=(b"\0" + red + bytes(3)) * 2, extra=b"\0\xff\0\0\0\0")
    assert whole_frame(rgb)[0].tolist() == [[255] * 3, [0] * 3]
    eight = png_bytes(2, 2, depth=8, color=0, rows=(b"\0" + gray + b"\x09") * 2, extra=b"\0\x07")
    assert whole_frame(eight)[0].tolist() == [[255] * 3, [9] * 3]
    sixteen = png_bytes(2, 2, depth=16, color=0, rows=(b"\0" + b"\x07\x01" + b"\x07\x02") * 2, extra=b"\x07\x01")
    assert whole_frame(sixteen)[0].tolist() == [[255] * 3, [7] * 3]
    one = png_bytes(2, 2, depth=1, color=0, rows=b"\0\x40\0\x40", extra=b"\0\x01")
    assert whole_frame(one)[0].tolist() == [[0] * 3, [255] * 3]


# more than eight bits


def ramp16() -> np.ndarray:
    return np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)


def test_16_bits_are_scaled_not_clipped():
    ramp = ramp16()
    big = Image.frombytes("I;16B", (64, 64), ramp.astype(">u2").tobytes())
    for data in (encode(Image.fromarray(ramp), "PNG"), encode(Image.fromarray(ramp), "TIFF"), encode(big, "TIFF")):
        frame = whole_frame(data)
        assert np.abs(frame.astype(float) - ramp[..., None] / 257).max() <= 1
        assert (frame[0, 0, 0], frame[-1, -1, 0]) == (0, 255)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_of_color_are_scaled_not_clipped(suffix):
    rgb = np.dstack([ramp16(), ramp16()[::-1], ramp16().T])
    written, data = cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]))
    assert written
    assert np.abs(whole_frame(data.tobytes()).astype(float) - rgb / 257).max() <= 1


def test_16_bits_of_color_and_alpha():
    bgra = np.zeros((16, 16, 4), np.uint16)
    bgra[..., 2] = 65535
    bgra[:8, :, 3] = 65535
    frame = whole_frame(cv2.imencode(".png", bgra)[1].tobytes())
    assert (frame[:8] == (255, 0, 0)).all()
    assert (frame[8:] == 255).all()


def test_tiffs_of_12_bits_and_with_0_for_white():
    twelve = bytes((0xFF, 0xF0, 0x00)) * 2  # 4095, 0 in each row
    tags = {256: 2, 257: 2, 259: 1, 262: 1, 277: 1}
    assert whole_frame(tiff_bytes(twelve, {**tags, 258: 12}))[0, :, 0].tolist() == [255, 0]
    white_is_0 = struct.pack("<4H", 0, 65535, 0, 65535)
    assert whole_frame(tiff_bytes(white_is_0, {**tags, 258: 16, 262: 0}))[0, :, 0].tolist() == [255, 0]


def test_floating_point_is_taken_between_0_and_1_only():
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    frame = whole_frame(encode(Image.fromarray(ramp), "TIFF"))
    np.testing.assert_array_equal(frame[..., 0].ravel(), np.arange(256))
    for bad in (2.0, -0.5, np.nan, np.inf):
        ramp[3, 3] = bad
        with pytest.raises(BadImageError, match=r"floating-point pixels outside \[0, 1\]: which value is white"):
            whole_frame(encode(Image.fromarray(ramp), "TIFF"))


def test_32_bit_integers_are_refused():
    with pytest.raises(BadImageError, match="32-bit integer pixels"):
        whole_frame(encode(Image.new("I", (8, 8), 70000), "TIFF"))


@pytest.mark.parametrize("name", [name for name in unusual() if name.startswith(("animated", "pages"))])
def test_of_several_frames_the_first_is_taken(name):
    frame, source_size = decode_frame(unusual()[name], 16)
    assert source_size == (30, 20)
    assert np.abs(frame.astype(int) - (255, 0, 0)).max() <= 2


# alpha that is no transparency


def with_channel(value: int, *, mode: str = "RGB") -> np.ndarray:
    """A square photo and one channel more, which has one value."""
    image = np.asarray(Image.fromarray(photo(32, 32)).convert(mode))
    return np.dstack([image, np.full((32, 32), value, np.uint8)])


def bitmap(masks: tuple[int, ...], header: int) -> bytes:
    """A BMP of 32 bits per pixel whose fourth channel is 0."""
    image = np.dstack([photo(32, 32)[::-1, :, ::-1], np.zeros((32, 32), np.uint8)]).tobytes()
    fields = struct.pack("<IiiHHIIiiII", header, 32, 32, 1, 32, 3 if masks else 0, len(image), 0, 0, 0, 0)
    fields = (fields + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(fields) + len(image), 0, 0, 14 + len(fields)) + fields + image


BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


@pytest.mark.parametrize(("masks", "header"), [((), 40), (BGRA, 56), (BGRA, 108), (BGRA, 124), ((0, 0, 0, 0), 56)])
def test_a_bitmap_whose_alpha_is_0_everywhere_has_its_colors(masks, header):
    np.testing.assert_array_equal(whole_frame(bitmap(masks, header)), photo(32, 32))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True}), ("JPEG2000", {})],
)
def test_an_image_whose_alpha_is_0_everywhere_has_its_colors(kind, options):
    image = with_channel(0)
    np.testing.assert_array_equal(whole_frame(encode(image, kind, **options)), image[..., :3])
    # One pixel that can be seen, and all is meant as it stands.
    image[3, 3, 3] = 255
    expected = np.full((32, 32, 3), 255, np.uint8)
    expected[3, 3] = image[3, 3, :3]
    np.testing.assert_array_equal(whole_frame(encode(image, kind, **options)), expected)


def test_other_ways_of_being_transparent_everywhere():
    gray = with_channel(0, mode="L")
    np.testing.assert_array_equal(whole_frame(encode(Image.fromarray(gray), "PNG"))[..., 0], gray[..., 0])
    palette = Image.fromarray(photo(32, 32)).quantize(17)
    frame = whole_frame(encode(palette, "PNG", transparency=bytes(17)))
    np.testing.assert_array_equal(frame, np.asarray(palette.convert("RGB")))
    sixteen = png_bytes(2, 2, depth=16, color=0, rows=(b"\0" + b"\x07\x01" * 2) * 2, extra=b"\x07\x01")
    assert (whole_frame(sixteen) == 7).all()


def test_alpha_is_searched_in_all_of_a_large_image():
    # Larger than what is converted at a time, and transparent everywhere but in its last row.
    image = np.zeros((1100, 1100, 4), np.uint8)
    image[-1] = (10, 20, 30, 255)
    frame, _ = decode_frame(encode(image, "PNG", compress_level=1), 1100)
    assert (frame[:-1] == 255).all()
    assert (frame[-1] == (10, 20, 30)).all()
    image[-1, :, 3] = 0
    image[0] = (1, 2, 3, 0)
    frame, _ = decode_frame(encode(image, "PNG", compress_level=1), 1100)
    assert (frame[0] == (1, 2, 3)).all()
    assert (frame[-1] == (10, 20, 30)).all()


def channels(image: np.ndarray, extra: tuple[int, ...] | None, **tags: int) -> bytes:
    """A TIFF with the additional channels `extra`."""
    count = image.shape[2]
    tags_there = {256: 32, 257: 32, 258: (8,) * count, 262: 2, 277: count, **{int(tag[1:]): tags[tag] for tag in tags}}
    if extra is not None:
        tags_there[338] = extra if len(extra) > 1 else extra[0]
    return tiff_bytes(image.tobytes(), tags_there)


@pytest.mark.parametrize("extra", [None, (0,)])
def test_a_fourth_channel_that_is_not_declared_as_alpha_is_left_out(extra):
    np.testing.assert_array_equal(whole_frame(channels(with_channel(100), extra)), photo(32, 32))


def test_further_channels_are_left_out():
    five = np.dstack([with_channel(0), photo(32, 32)[..., 1]])
    five[:16, :, 3] = 255
    expected = photo(32, 32).copy()
    np.testing.assert_array_equal(whole_frame(channels(five, (0, 0))), expected)
    expected[16:] = 255
    np.testing.assert_array_equal(whole_frame(channels(five, (2, 0))), expected)
    cmyk = with_channel(100, mode="CMYK")
    frame = whole_frame(channels(cmyk, (0,), t262=5))
    np.testing.assert_array_equal(frame, np.asarray(Image.fromarray(cmyk[..., :4], "CMYK").convert("RGB")))
    # A codestream does not say what its channels are.
    np.testing.assert_array_equal(whole_frame(encode(with_channel(7), "JPEG2000", no_jp2=True)), photo(32, 32))


def test_associated_alpha_is_not_applied_twice():
    image = with_channel(100)
    image[..., :3] = image[..., :3] * 100.0 // 255
    over = (image[..., :3].astype(int) + 155).astype(np.uint8)
    np.testing.assert_array_equal(whole_frame(channels(image, (1,))), over)
    gray = np.ascontiguousarray(image[..., 2:])
    np.testing.assert_array_equal(whole_frame(channels(gray, (1,), t262=1))[..., 0], over[..., 2])
    np.testing.assert_array_equal(whole_frame(channels(with_channel(0), (1,))), photo(32, 32))


def test_colors_are_converted_in_bounded_memory(monkeypatch):
    converted = []
    convert = Image.Image.convert

    def spy(image, *arguments, **options):
        converted.append(image.width * image.height)
        return convert(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "convert", spy)
    decode_frame(encode(Image.new("L", (3000, 2000)), "PNG"), 32)
    assert sum(converted) >= 6_000_000
    assert max(converted) <= 1 << 20
