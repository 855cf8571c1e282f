"""Pictures in memory: their formats, sizes and data URIs."""

import base64
import io

import numpy as np
from PIL import Image

from saliency_pipeline.figures.pictures import data_uri, jpeg, png, resized

IMAGE = np.tile(np.linspace(0, 255, 16, dtype=np.uint8)[:, None, None], (1, 16, 3))


def test_a_png_holds_the_same_pixels() -> None:
    with Image.open(io.BytesIO(png(IMAGE))) as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == IMAGE).all()


def test_a_jpeg_holds_about_the_same_pixels() -> None:
    with Image.open(io.BytesIO(jpeg(IMAGE))) as image:
        assert image.format == "JPEG"
        assert abs(np.asarray(image).astype(int) - IMAGE).max() < 12
    assert len(jpeg(IMAGE, 20)) < len(jpeg(IMAGE, 95))


def test_images_are_resized_to_squares() -> None:
    assert resized(IMAGE, 16) is IMAGE
    smaller = resized(IMAGE, 8)
    assert smaller.shape == (8, 8, 3)
    assert abs(smaller.mean() - IMAGE.mean()) < 2


def test_a_data_uri_holds_the_file() -> None:
    kind, _, text = data_uri(jpeg(IMAGE)).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(text) == jpeg(IMAGE)
