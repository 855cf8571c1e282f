"""Images in memory become the frames that a file of the same pixels becomes; what cannot be one is refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.in_memory import frame_of

PHOTO = data.coffee()[:120, :161]


def of_file(image: Image.Image, fit: str = "crop", **options: object) -> tuple[np.ndarray, tuple[int, int]]:
    file = io.BytesIO()
    image.save(file, "png", **options)
    return decode_frame(file.getvalue(), 48, fit=fit)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "I;16"])
def test_an_image_of_pillow_is_fitted_as_its_file(mode: str, fit: str) -> None:
    image = Image.fromarray(PHOTO)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    before = image.copy()
    frame, source_size = frame_of(image, 48, fit=fit)
    expected, expected_size = of_file(image, fit)
    np.testing.assert_array_equal(frame, expected)
    assert source_size == expected_size == (120, 161)
    assert image == before


def test_cmyk_is_converted() -> None:
    frame, _ = frame_of(Image.fromarray(PHOTO).convert("CMYK"), 48)
    np.testing.assert_allclose(frame, frame_of(PHOTO, 48)[0], atol=8)


def test_the_transparent_color_of_a_palette_becomes_white_and_stays_in_the_image() -> None:
    image = Image.new("P", (20, 20))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (0, 0, 10, 20))
    image.info["transparency"] = 0
    frame, _ = frame_of(image, 20)
    assert frame[5, 15].tolist() == [255, 255, 255]
    assert frame[5, 5].tolist() == [0, 0, 200]
    assert image.info["transparency"] == 0


def test_the_orientation_of_exif_is_applied() -> None:
    image, exif = Image.fromarray(PHOTO), Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    frame, source_size = frame_of(image, 48)
    expected, expected_size = of_file(image, exif=exif)
    np.testing.assert_array_equal(frame, expected)
    assert source_size == expected_size == (161, 120)


@pytest.mark.parametrize(
    "values",
    [
        PHOTO.astype(np.float64) / 255,
        (PHOTO / 255).astype(np.float32),
        PHOTO.astype(np.uint16) * 257,
        np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)]),
        np.asfortranarray(PHOTO),
        torch.from_numpy(PHOTO).permute(2, 0, 1),
        torch.from_numpy(PHOTO).permute(2, 0, 1) / 255,
        (torch.from_numpy(PHOTO).permute(2, 0, 1) / 255).requires_grad_(),
    ],
    ids=["float64", "float32", "uint16", "rgba", "fortran", "tensor", "float tensor", "tensor with gradient"],
)
def test_arrays_and_tensors_of_the_same_pixels_give_the_same_frame(values: np.ndarray | torch.Tensor) -> None:
    if isinstance(values, np.ndarray) and values.dtype == np.uint16:
        expected = frame_of((values >> 8).astype(np.uint8), 48)[0]
    else:
        expected = frame_of(PHOTO, 48)[0]
    np.testing.assert_array_equal(frame_of(values, 48)[0], expected)


@pytest.mark.parametrize(
    "gray",
    [
        PHOTO[..., 0],
        PHOTO[..., :1],
        torch.tensor(PHOTO[..., 0]),
        torch.tensor(PHOTO[..., 0])[None],
    ],
    ids=["(H, W)", "(H, W, 1)", "tensor (H, W)", "tensor (1, H, W)"],
)
def test_gray_values_become_gray_frames(gray: np.ndarray | torch.Tensor) -> None:
    frame, _ = frame_of(gray, 48)
    np.testing.assert_array_equal(frame, frame_of(np.dstack([PHOTO[..., 0]] * 3), 48)[0])


def test_a_mask_is_black_and_white() -> None:
    assert set(np.unique(frame_of(np.eye(48, dtype=bool), 48)[0])) == {0, 255}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((3, 20, 20)), "an array of shape (3, 20, 20); use (H, W), (H, W, 3) or (H, W, 4)"),
        (np.zeros((0, 20, 3)), "an array of shape (0, 20, 3)"),
        (np.zeros((2, 20, 20, 3)), "an array of shape (2, 20, 20, 3)"),
        (torch.zeros(20, 20, 3), "a tensor of shape (20, 20, 3); use (H, W), (3, H, W) or an array (H, W, 3)"),
        (torch.zeros(1, 3, 20, 20), "an array of shape (1, 3, 20, 20)"),
        (np.full((20, 20, 3), 1.5), "floating-point values outside [0, 1]; use the image before it is normalized"),
        (np.full((20, 20, 3), np.nan), "floating-point values outside [0, 1]"),
        (np.zeros((20, 20, 3), np.int64), "values of type int64; use uint8, or floating-point in [0, 1]"),
        (np.full((20, 20), "a"), "values of type <U1; use uint8"),
        (Image.fromarray(np.zeros((20, 20), np.int32)), "signed or 32-bit integer pixels"),
    ],
    ids=["C H W", "empty", "batch", "tensor H W C", "tensor batch", "bright", "nan", "int64", "text", "mode I"],
)
def test_what_is_no_image_is_refused(image: np.ndarray | torch.Tensor | Image.Image, reason: str) -> None:
    with pytest.raises(BadImageError) as caught:
        frame_of(image, 48)
    assert str(caught.value).startswith(reason)
