"""Blocks: many images are measured a few at a time, with the same values."""

from types import SimpleNamespace

import numpy as np

from saliency_pipeline.assessment import blocks
from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.localization import Localization, PointingGame


def test_a_block_has_the_values_of_all_images_at_once():
    rng = np.random.default_rng(0)
    count, metrics = 2 * blocks.SAMPLED + 1, (PointingGame(), Localization())
    raw, none = rng.standard_normal((count, 7, 7)).astype(np.float32), np.zeros(count, np.int64)
    boxes = [np.array([[3.0, 4, 20 + i / 8, 30]])[: i % 3] for i in range(count)]
    # without a network the frames are not read
    batch = ImageBatch([str(i) for i in range(count)], np.empty((0, 64, 64, 3), np.uint8), none, none, boxes)
    methods = [SimpleNamespace(name="gradcam", signed=False)]
    maps = SimpleNamespace(methods=methods, computes_floors=False, batch=lambda *_: batch, maps=lambda *_: raw)
    measured = blocks.Block("maps-00000.npz", np.arange(count), metrics).measure(maps, None)["gradcam"]
    whole = Inquiry(batch, "gradcam", raw)
    expected = metrics[0].values(whole) | metrics[1].values(whole)
    assert measured.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(measured[name], values)
