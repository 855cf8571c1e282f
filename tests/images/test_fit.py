"""Fitting into a frame: images of a single color, with and without padding, and boxes of objects."""

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.fit import FITS, MAX_SIDE, Stored, boxes_in_frame, fit_frame, is_single_color
from saliency_pipeline.images.orientation import TURNS
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


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(90, 120), (121, 80), (70, 70), (41, 190), (250, 50)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_painted_box_is_where_its_box_in_the_frame_is(fit, shape, orientation):
    height, width = shape
    # it ends at the right border of the image, and is partly cropped
    box = (int(0.4 * width), int(0.15 * height), width, int(0.7 * height))
    upright = np.zeros((height, width, 3), np.uint8)
    upright[box[1] : box[3], box[0] : box[2]] = 255
    turned, rows_backwards, columns_backwards = TURNS[orientation]
    pixels = upright[:: -1 if rows_backwards else 1, :: -1 if columns_backwards else 1]
    pixels = np.ascontiguousarray(pixels.transpose(1, 0, 2) if turned else pixels)
    frame = fit_frame(Stored(pixels, pixels.shape[:2], pixels.shape[:2], orientation), 31, fit, "bilinear")[..., 0]
    padding = (frame == 128).all(axis=0), (frame == 128).all(axis=1)
    (x0, y0, x1, y1), *others = boxes_in_frame([box], shape, 31, fit).tolist()
    assert not others
    for line, blank, low, high in (
        (frame[int((y0 + y1) / 2)], padding[0], x0, x1),
        (frame[:, int((x0 + x1) / 2)], padding[1], y0, y1),
    ):
        covered = np.clip(np.minimum(high, np.arange(1, 32)) - np.maximum(low, np.arange(31)), 0, 1)
        painted = np.where(blank, 0, line / 255)
        # anti-aliasing blurs an edge by a pixel, which moves a sixth of one
        assert np.abs(np.cumsum(painted) - np.cumsum(covered)).max() < 0.2


def test_boxes_are_clipped_and_those_outside_are_left_out():
    boxes = [(0, 0, 9, 20), (5, -3, 15, 20), (10, 10, 10, 12), (50, 0, 60, 20)]
    assert boxes_in_frame(boxes, (20, 40), 10, "crop").tolist() == [[0, 0, 2.5, 10]]
    assert boxes_in_frame([], (20, 40), 10, "pad").shape == (0, 4)
    # all of the image, not of the frame
    assert boxes_in_frame([(-9, -9, 99, 99)], (20, 40), 10, "pad").tolist() == [[0, 2, 10, 7]]
