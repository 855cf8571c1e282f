"""Maps from files, resized by area to what the frame shows of the image."""

import io

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.ready_maps import grid_of, read_frame_map


def save(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return str(path)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(90, 130), (130, 90), (64, 64), (20, 150)])
def test_a_map_lies_on_the_frame_as_its_image_does(tmp_path, fit, shape):
    values = np.zeros(shape, np.uint8)
    values[shape[0] // 3 : shape[0] // 2, shape[1] // 4 : shape[1] // 2 + 9] = 255
    path = save(tmp_path / "map.png", values)
    with open(path, "rb") as file:
        frame, size = decode_frame(file.read(), 64, fit=fit)
    expected = np.where(frame[..., 0] == 128, 0, frame[..., 0]) if fit == "pad" else frame[..., 0]
    expected = expected.reshape(16, 4, 16, 4).mean((1, 3)) / 255
    result = read_frame_map(path, size, 64, fit)
    assert result.dtype == np.float32
    # the frame is resized with a wider kernel, and to whole pixels
    assert np.abs(result - expected).max() < 0.35
    assert np.abs(result - expected).mean() < 0.02


def test_cells_are_means_over_areas(tmp_path):
    values = np.random.default_rng(0).random((32, 48))
    result = read_frame_map(save(tmp_path / "map.npy", values), (320, 480), 32, "squash")
    np.testing.assert_allclose(result, values.reshape(8, 4, 8, 6).mean((1, 3)) / values.max(), rtol=1e-6)


def test_a_small_map_is_enlarged_without_smoothing(tmp_path):
    result = read_frame_map(save(tmp_path / "map.npy", np.array([[0, 1], [2, 4]])), (50, 50), 16, "crop")
    assert result.tolist() == np.kron([[0, 0.25], [0.5, 1]], np.ones((2, 2))).tolist()


def test_a_map_of_one_cell_is_padded_with_zeros(tmp_path):
    result = read_frame_map(save(tmp_path / "map.npy", np.array([[3.0]])), (20, 40), 16, "pad")
    assert result.tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[False, True]]),
        np.array([[0, 1]], np.uint8),
        np.array([[0, 60000]], np.uint16),
        np.array([[0, 2**60]], np.int64),
        np.array([[0, 1e-3]], np.float16),
        np.array([[0, 1e300]], ">f8"),
        np.asfortranarray(np.array([[0, 7]], np.float32)),
    ],
)
def test_values_are_relative_to_the_largest(tmp_path, values):
    assert read_frame_map(save(tmp_path / "map.npy", values), (9, 9), 8, "squash").tolist() == [[0, 1], [0, 1]]
    if values.dtype in (np.uint8, np.uint16, bool):
        assert read_frame_map(save(tmp_path / "map.png", values), (9, 9), 8, "squash").tolist() == [[0, 1], [0, 1]]


def test_gray_in_three_channels_or_a_palette_is_gray(tmp_path):
    image = Image.fromarray(np.array([[0, 90]], np.uint8))
    for mode in ("RGB", "RGBA", "LA", "P"):
        image.convert(mode).save(tmp_path / "map.png")
        assert read_frame_map(str(tmp_path / "map.png"), (9, 9), 4, "squash").tolist() == [[0.5]]


def npy(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def header_of(shape):
    return npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode())


def saved(values, **more):
    file = io.BytesIO()
    np.save(file, values, **more)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("m.npy", saved(np.array([[1, np.nan]])), "values that are not finite"),
        ("m.npy", saved(np.array([[1, np.inf]])), "values that are not finite"),
        ("m.npy", saved(np.array([[1, -0.1]])), "negative values; save their positive part or their absolute values"),
        ("m.npy", saved(np.ones((1, 2, 2))), "an array with 3 axes instead of height and width"),
        ("m.npy", saved(np.ones((0, 2))), "or an empty one"),
        ("m.npy", saved(np.array([["a"]])), "an array of str"),
        ("m.npy", saved(np.array([[1j]])), "an array of complex128 instead of numbers"),
        ("m.npy", saved(np.array([[{}]], dtype=object), allow_pickle=True), "an array of object instead of numbers"),
        ("m.npy", saved(np.ones((9, 9)))[:-1], "ends within its array"),
        ("m.npy", saved(np.ones((9, 9)))[:20], "no array in NPY format, or damaged"),
        ("m.npy", b"", "no array in NPY format, or damaged"),
        (
            "m.npy",
            header_of((16384, 16384)),
            "more than the limit of",
        ),
        ("m.npy", header_of((1, 99999)), "at most 16,384 per side"),
        ("m.npy", header_of((-1, 9)), "or an empty one"),
        ("m.npy", npy(b"(" * 9000), "no array in NPY format, or damaged"),
        ("m.png", b"", "not an image"),
        ("m.png", b"\xff\xd8\xff\xe0" + bytes(99), "JPEG instead of PNG"),
        ("m.png", b"\x89PNG\r\n\x1a\n" + bytes(99), "damaged"),
    ],
)
def test_a_map_that_cannot_be_used_says_why(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadImageError, match=f"^its map {name}: .*{reason}") as error:
        read_frame_map(str(tmp_path / name), (9, 9), 8, "crop")
    assert "\n" not in str(error.value)


def test_a_picture_in_color_is_no_map(tmp_path):
    path = save(tmp_path / "map.png", np.array([[[255, 0, 0]]], np.uint8))
    with pytest.raises(BadImageError, match="in color, which has no order; save the values as gray"):
        read_frame_map(path, (9, 9), 8, "crop")


def test_a_map_that_is_gone_or_too_large_says_so(tmp_path):
    with pytest.raises(BadImageError, match="cannot be read: No such file"):
        read_frame_map(str(tmp_path / "map.npy"), (9, 9), 8, "crop")
    for name in ("map.npy", "map.png"):
        path = save(tmp_path / name, np.ones((9, 9), np.uint8))
        with pytest.raises(BadImageError, match="more than the limit of 80"):
            read_frame_map(path, (9, 9), 8, "crop", max_pixels=80)


def test_zeros_stay_zeros(tmp_path):
    result = read_frame_map(save(tmp_path / "map.npy", np.zeros((3, 3))), (9, 9), 10, "crop")
    assert result.shape == (grid_of(10), grid_of(10)) == (3, 3)
    assert not result.any()
