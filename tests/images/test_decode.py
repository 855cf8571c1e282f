"""Frames: shape, position, aspect ratio and orientation."""

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import v2

from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.images import decode
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.fit import FITS, INTERPOLATIONS, PAD_VALUE
from tests.broken_images import encode, good_files, photo


def exif(orientation: int, order: str = "<") -> bytes:
    entries = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 5, 0) + struct.pack(
        f"{order}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    mark = b"II" if order == "<" else b"MM"
    return b"Exif\0\0" + mark + struct.pack(f"{order}HIH", 42, 8, 2) + entries + bytes(4)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_a_lossless_image_of_the_frame_size_comes_back_unchanged(kind):
    image = photo(40, 40)
    frame, source_size = decode_frame(encode(image, kind, **({"lossless": True} if kind == "WEBP" else {})), 40)
    np.testing.assert_array_equal(frame, image)
    assert source_size == (40, 40)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 5000), (5000, 1), (33, 500), (500, 33), (224, 224), (31, 32), (3000, 2), (48, 64), (100_000, 1)],
)
def test_any_shape_becomes_a_frame(height, width, fit, interpolation):
    color = (10, 200, 90)
    frame, source_size = decode_frame(
        encode(Image.new("RGB", (width, height), color), "PNG"), 224, fit=fit, interpolation=interpolation
    )
    assert frame.shape == (224, 224, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert frame.flags.writeable
    assert source_size == (height, width)
    assert frame[112, 112].tolist() == list(color)
    if fit != "pad":
        assert (frame == color).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 64), st.sampled_from(INTERPOLATIONS))
def test_crop_is_torchvisions_resize_and_center_crop(height, width, size, interpolation):
    width = min(width, 3 * height)
    height = min(height, 3 * width)
    image = photo(height, width)
    frame, _ = decode_frame(encode(image, "PNG"), size, interpolation=interpolation)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    resized = v2.Resize(size, v2.InterpolationMode(interpolation), antialias=True)(tensor)
    expected = v2.CenterCrop(size)(resized).permute(1, 2, 0).numpy()
    assert np.abs(frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(33, 500), (500, 33), (10, 31), (20, 97)])
def test_a_long_image_is_cropped_to_its_middle(height, width):
    # A ramp along the long side: the frame must hold the same part of it as when all of it is resized.
    ramp = np.linspace(0, 255, max(height, width))
    ramp = np.broadcast_to(ramp if width > height else ramp[:, None], (height, width))
    image = np.repeat(np.round(ramp).astype(np.uint8)[..., None], 3, axis=-1)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = v2.CenterCrop(64)(v2.Resize(64, antialias=True)(tensor)).permute(1, 2, 0).numpy()
    assert np.abs(decode_frame(encode(image, "PNG"), 64)[0].astype(int) - expected).max() <= 1


def test_pad_keeps_all_of_the_image_on_gray():
    frame, _ = decode_frame(encode(Image.new("RGB", (100, 50), "red"), "PNG"), 40, fit="pad")
    assert (frame[10:30] == (255, 0, 0)).all()
    assert (frame[:10] == PAD_VALUE).all()
    assert (frame[30:] == PAD_VALUE).all()
    frame, _ = decode_frame(encode(Image.new("RGB", (50, 100), "red"), "PNG"), 40, fit="pad")
    assert (frame[:, 10:30] == (255, 0, 0)).all()
    assert (frame[:, :10] == PAD_VALUE).all()


def test_squash_keeps_all_of_the_image_out_of_proportion():
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, 50:] = 255
    frame, _ = decode_frame(encode(image, "PNG"), 20, fit="squash")
    assert (frame[:, :9] == 0).all()
    assert (frame[:, 11:] == 255).all()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_resizing_is_anti_aliased(interpolation):
    rows, columns = np.mgrid[0:256, 0:256]
    chessboard = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    frame, _ = decode_frame(encode(chessboard, "PNG"), 32, interpolation=interpolation)
    assert np.abs(frame[2:-2, 2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize(("name", "orientation"), [("astronaut", 3), ("coffee", 6), ("chelsea", 1), ("rocket", 5)])
def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(name, orientation):
    image = Image.fromarray(getattr(skimage.data, name)())
    # 4 more than a multiple of 8: decoded at 1/8, the image ends in the middle of a pixel.
    large = image.resize((image.width * 24 // 8 + 4, image.height * 24 // 8 + 4), Image.Resampling.BICUBIC)
    data = encode(large, "JPEG", quality=92, exif=exif(orientation))
    frame, source_size = decode_frame(data, 96)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    exact, exact_size = decode_frame(encode(upright, "PNG", compress_level=1), 96)
    difference = np.abs(frame.astype(int) - exact)
    assert source_size == exact_size == (upright.height, upright.width)
    assert difference.mean() < 1.2
    assert np.percentile(difference, 99) <= 8


@pytest.mark.parametrize(
    ("shape", "fit", "reduced"),
    [
        ((255, 300), "crop", (255, 300)),
        ((256, 300), "crop", (128, 150)),
        ((512, 256), "crop", (256, 128)),
        ((513, 700), "crop", (129, 175)),
        ((2000, 1024), "crop", (250, 128)),
        ((100, 900), "crop", (100, 900)),
        ((100, 512), "pad", (25, 128)),
        ((256, 900), "squash", (128, 450)),
    ],
)
def test_a_jpeg_is_never_decoded_below_twice_the_size_wanted(shape, fit, reduced, monkeypatch):
    decoded = []
    fitted = decode.fit_frame

    def spy(stored, *options):
        decoded.append(stored.pixels.shape[:2])
        return fitted(stored, *options)

    monkeypatch.setattr(decode, "fit_frame", spy)
    assert decode_frame(encode(photo(*shape), "JPEG"), 64, fit=fit)[1] == shape
    assert decoded == [reduced]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1, "quality": 30}])
def test_the_fast_jpeg_decoder_gives_pillows_pixels(options):
    data = encode(photo(201, 301), "JPEG", **options)
    image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(decode._plain_jpeg(image, data), np.asarray(image))


def test_threads_give_the_same_frames():
    files = list(good_files().values()) * 8
    expected = [decode_frame(data, 50)[0] for data in files]
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(lambda data: decode_frame(data, 50)[0], files))
    np.testing.assert_array_equal(frames, expected)


# orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(kind, fit, orientation):
    colors = np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[0, 0, 0], [250, 250, 250], [250, 250, 0]]])
    stored = np.kron(colors, np.ones((32, 32, 1))).astype(np.uint8)  # (64, 96, 3)
    # What to do to the stored image, from the definition: where its row 0 and column 0 are.
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    tag = Image.Exif()
    tag[0x0112] = orientation
    frame, source_size = decode_frame(encode(stored, kind, exif=tag, **options), 32, fit=fit)
    expected, _ = decode_frame(encode(upright, "PNG"), 32, fit=fit)
    assert source_size == upright.shape[:2]
    assert np.abs(frame.astype(int) - expected).max() <= (8 if kind == "JPEG" else 1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_either_byte_order_of_the_exif_block_is_read(order):
    assert decode_frame(encode(photo(10, 20), "JPEG", exif=exif(6, order)), 8)[1] == (20, 10)
    assert decode_frame(encode(photo(10, 20), "PNG", exif=exif(6, order)[6:]), 8)[1] == (20, 10)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    assert decode_frame(encode(photo(10, 20), "JPEG", exif=exif(orientation)), 8)[1] == (10, 20)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_a_damaged_exif_block_harms_nothing(noise, cut):
    # Warnings are errors in these tests: that Pillow has nothing to say about the block is tested as well.
    for block in (b"Exif\0\0" + noise, b"Exif\0\0MM\0*\0\0\0\x08" + noise, exif(1)[:cut] + noise):
        data = encode(photo(10, 20), "JPEG", exif=block)
        data = data.replace(b"JFIF", b"JFXX", 1)  # without a density Pillow looks for one in the block
        frame, source_size = decode_frame(data, 8)
        assert frame.shape == (8, 8, 3)
        assert source_size in ((10, 20), (20, 10))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"size": 0}, "size 0 and max_pixels"),
        ({"max_pixels": 0}, "max_pixels 0: both must be at least 1"),
        ({"fit": "stretch"}, "fit 'stretch': use one of crop, pad, squash"),
        ({"interpolation": "nearest"}, "interpolation 'nearest': use one of bilinear, bicubic"),
    ],
)
def test_wrong_arguments_are_the_callers_fault_not_the_files(arguments, reason):
    with pytest.raises(SalpipeError, match=reason) as caught:
        decode_frame(good_files()["plain.png"], **{"size": 32, **arguments})
    assert not isinstance(caught.value, BadImageError)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("fit", FITS)
def test_a_box_is_decoded_as_if_it_had_been_cut_out(kind, fit):
    image = photo(600, 400)
    stored = np.asarray(Image.open(io.BytesIO(encode(image, kind))).convert("RGB"))
    frame, source_size = decode_frame(encode(image, kind), 32, fit=fit, box=(50, 30, 250, 180))
    cut, _ = decode_frame(encode(stored[30:180, 50:250], "PNG"), 32, fit=fit)
    np.testing.assert_array_equal(frame, cut)
    assert source_size == (600, 400)


def test_a_box_ends_where_the_image_ends():
    image = photo(60, 40)
    beyond, _ = decode_frame(encode(image, "PNG"), 16, box=(-7, -9, 30, 20))
    within, _ = decode_frame(encode(image, "PNG"), 16, box=(0, 0, 30, 20))
    np.testing.assert_array_equal(beyond, within)
    whole, _ = decode_frame(encode(image, "PNG"), 16, box=(-1, -1, 4000, 6000))
    np.testing.assert_array_equal(whole, decode_frame(encode(image, "PNG"), 16)[0])


@pytest.mark.parametrize("box", [(40, 0, 50, 10), (-9, 0, 0, 10), (5, 5, 5, 9), (9, 9, 5, 5)])
def test_a_box_without_a_pixel_of_the_image_is_named(box):
    with pytest.raises(BadImageError, match=f"its box {', '.join(map(str, box))} lies outside the 40 x 60 image"):
        decode_frame(encode(photo(60, 40), "PNG"), 16, box=box)


def test_a_box_is_meant_in_the_image_as_it_lies_in_its_file():
    image = photo(60, 40)
    turned = encode(image, "PNG", exif=exif(6))
    frame, source_size = decode_frame(turned, 10, box=(5, 10, 15, 20))
    np.testing.assert_array_equal(frame, np.rot90(image[10:20, 5:15], -1))
    assert source_size == (40, 60)
