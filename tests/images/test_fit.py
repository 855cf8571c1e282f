"""Images of a single color, with and without padding."""

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.fit import FITS, MAX_SIDE, is_single_color
from tests.broken_images import encode, photo


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("color", [(255, 255, 255), (128, 128, 128), (9, 128, 7)])
@pytest.mark.parametrize("shape", [(40, 40), (20, 50), (1, 60), (60, 1)])
@pytest.mark.parametrize("size", [1, 2, 6, 31])
def test_one_color_is_found_in_any_shape(fit, color, shape, size):
    frame, _ = decode_frame(encode(Image.new("RGB", shape, color), "PNG"), size, fit=fit)
    assert is_single_color(frame, fit)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("place", [(0, 0), (15, 15), (15, 0), (29, 29)])
def test_one_pixel_makes_the_difference(fit, place):
    frame = np.full((30, 30, 3), 7, np.uint8)
    assert is_single_color(frame, fit)
    frame[place][1] += 1
    assert not is_single_color(frame, fit)


@pytest.mark.parametrize("fit", FITS)
def test_photos_have_several(fit):
    assert not is_single_color(decode_frame(encode(photo(40, 90), "PNG"), 32, fit=fit)[0], fit)


def test_gray_edges_are_padding_only_where_there_is_padding():
    frame = np.full((30, 30, 3), 128, np.uint8)
    frame[10:20] = 7
    assert is_single_color(frame, "pad")
    assert not is_single_color(frame, "crop")


@pytest.mark.parametrize("shape", [(1, MAX_SIDE + 1), (MAX_SIDE + 1, 1)])
def test_only_the_center_of_an_endless_image_can_be_resized(shape):
    image = encode(Image.new("RGB", shape, (1, 2, 3)), "PNG")
    assert (decode_frame(image, 32, fit="crop")[0] == (1, 2, 3)).all()
    for fit in ("pad", "squash"):
        with pytest.raises(BadImageError, match="a side of 262,145 pixels, which can only be read with --fit crop"):
            decode_frame(image, 32, fit=fit)
