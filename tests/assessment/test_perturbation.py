"""Deletion, insertion and SRG: by hand, as plain loops, and as RISE and torch-cam compute them."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.perturbation import Deletion, Insertion, SymmetricRelevanceGain, blurred
from saliency_pipeline.assessment.metrics.registry import find_metrics
from saliency_pipeline.errors import OptionError
from saliency_pipeline.figures.pictures import Pixels
from tests.assessment.networks import (
    GRAY,
    Extractor,
    Linear,
    ModuleNetwork,
    batch_of,
    check_values,
    convolutional,
    linear,
    normalized,
    random_maps,
)
from tests.saliency.fake_pixels import random_frames

SRG = SymmetricRelevanceGain


def factors() -> Inquiry:
    """Two classes, whose odds are the product of a factor for each of the four pixels that are not gray: 8, 4, 2, 1."""
    weights = np.zeros((2, 3, 2, 2))
    weights[1, 0] = np.log([[8, 4], [2, 1]]) * 255 / 127
    frames = np.full((1, 2, 2, 3), 128, np.uint8)
    frames[..., 0] = 255
    targets = np.array([1])
    batch = ImageBatch(["a"], frames, targets, targets, [np.empty((0, 4))], ModuleNetwork(Linear(weights)))
    return Inquiry(batch, "gradcam", np.array([[[4, 3], [2, 1]]], np.float32))


def test_curves_of_a_linear_network_by_hand() -> None:
    deletion, insertion = Deletion(steps=4).values(factors()), Insertion(steps=4, fill="mean").values(factors())
    np.testing.assert_allclose(deletion["deletion-curve"], [[64 / 65, 8 / 9, 2 / 3, 1 / 2, 1 / 2]], rtol=1e-12)
    np.testing.assert_allclose(insertion["insertion-curve"], [[1 / 2, 8 / 9, 32 / 33, 64 / 65, 64 / 65]], rtol=1e-12)
    np.testing.assert_allclose(deletion["deletion"], (64 / 65 / 2 + 8 / 9 + 2 / 3 + 1 / 2 + 1 / 4) / 4)
    np.testing.assert_allclose(insertion["insertion"], (1 / 4 + 8 / 9 + 32 / 33 + 64 / 65 * 3 / 2) / 4)
    gain = SRG(steps=4).values(factors())
    np.testing.assert_allclose(gain["srg"], insertion["insertion"] - deletion["deletion"])
    np.testing.assert_allclose(gain["lerf-curve"], insertion["insertion-curve"][:, ::-1])


def slow_curve(
    network: ModuleNetwork, ask: Inquiry, image: int, steps: int, fill: np.ndarray, show: bool
) -> np.ndarray:
    """RISE's loop, on one normalized image."""
    order = np.argsort(-ask.enlarged[image].numpy().ravel(), kind="stable")
    start, end = normalized(ask.batch.frames[image : image + 1]).numpy(), normalized(fill[image : image + 1]).numpy()
    if show:
        start, end = end, start
    curve = []
    for step in range(steps + 1):
        changed = order[: step * len(order) // steps]
        frame = start.reshape(1, 3, -1).copy()
        frame[..., changed] = end.reshape(1, 3, -1)[..., changed]
        logits = network.module(torch.from_numpy(frame.reshape(start.shape)))
        curve.append(float(logits.softmax(1)[0, ask.batch.targets[image]]))
    return np.array(curve)


def rise_auc(curve: np.ndarray) -> float:
    return float((curve.sum() - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1))


def filled(batch: ImageBatch, fill: str) -> Pixels:
    if fill == "blur":
        return blurred(batch.frames, GRAY)
    return np.full_like(batch.frames, 128 if fill == "mean" else 0)


@pytest.mark.parametrize("fill", ["mean", "blur", "black"])
def test_curves_and_areas_are_those_of_the_loop_of_rise(fill: str) -> None:
    network = linear(18)
    ask = Inquiry(batch_of(network, 18), "gradcam", random_maps(3, 5))
    deletion = check_values(Deletion(steps=7, fill=fill), ask)
    insertion = check_values(Insertion(steps=7, fill=fill), ask)
    gain = check_values(SRG(steps=7, fill=fill), ask)
    for image in range(3):
        curves = [slow_curve(network, ask, image, 7, filled(ask.batch, fill), show) for show in (False, True)]
        np.testing.assert_allclose(deletion["deletion-curve"][image], curves[0], atol=1e-12)
        np.testing.assert_allclose(insertion["insertion-curve"][image], curves[1], atol=1e-12)
        assert deletion["deletion"][image] == pytest.approx(rise_auc(curves[0]), abs=1e-12)
        assert insertion["insertion"][image] == pytest.approx(rise_auc(curves[1]), abs=1e-12)
        assert gain["srg"][image] == pytest.approx(rise_auc(curves[1]) - rise_auc(curves[0]), abs=1e-12)


def test_areas_are_those_of_torch_cam() -> None:
    metrics = pytest.importorskip("torchcam.metrics")
    network = convolutional()
    batch = batch_of(network, 16)
    ask = Inquiry(batch, "gradcam", random_maps(3, 4))
    extractor = Extractor(network.module, torch.from_numpy(ask.maps))
    theirs = metrics.DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1), steps=8)
    theirs.update(normalized(batch.frames), batch.targets.tolist())
    summary = theirs.summary()
    ours = Deletion(steps=8).values(ask)["deletion"], Insertion(steps=8, fill="mean").values(ask)["insertion"]
    assert summary["deletion_auc"] == pytest.approx(ours[0].mean(), abs=1e-5)
    assert summary["insertion_auc"] == pytest.approx(ours[1].mean(), abs=1e-5)


def test_no_frame_is_scored_twice() -> None:
    network = linear(8)
    batch = batch_of(network, 8)
    metrics = Deletion(steps=4), Insertion(steps=4, fill="mean"), SRG(steps=4)
    for method in ("gradcam", "layercam"):
        ask = Inquiry(batch, method, random_maps(3, 8))
        for metric in metrics:
            metric.values(ask)
    assert network.calls == 2 + 2 * 2 * 3


def test_srg_of_the_negative_is_the_negative_and_of_a_random_order_zero_within_its_interval() -> None:
    network = linear(8)
    batch, maps = batch_of(network, 8, count=400), random_maps(400, 8)
    gain = SRG(steps=8).values(Inquiry(batch, "random", maps))["srg"]
    negative = SRG(steps=8).values(Inquiry(batch, "random", -maps))["srg"]
    np.testing.assert_allclose(negative, -gain, atol=1e-12)
    assert abs(gain.mean()) < 2 * gain.std() / np.sqrt(400)
    weights = network.module.weights.detach().numpy()
    own = (weights[batch.targets] - weights.mean(0)) * normalized(batch.frames).numpy()
    assert SRG(steps=8).values(Inquiry(batch, "exact", own.sum(1).astype(np.float32)))["srg"].min() > 0.2


@pytest.mark.parametrize("value", [0.0, -2.0, 5.0])
def test_constant_maps_remove_row_after_row(value: float) -> None:
    ask = Inquiry(batch_of(linear(8), 8), "gradcam", np.full((3, 4, 4), value, np.float32))
    np.testing.assert_array_equal(ask.order, np.tile(np.arange(64), (3, 1)))
    for metric in (Deletion(steps=4), Insertion(steps=4), SRG(steps=4)):
        assert all(np.isfinite(own).all() for own in check_values(metric, ask).values())


def test_the_order_is_that_of_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    maps = rng.choice(np.array([-2.5, -1e-40, -0.0, 0.0, 1e-40, 1.0, 3e38, -3e38], np.float32), (4, 12, 12))
    maps[3] = rng.standard_normal((12, 12))
    ask = Inquiry(batch_of(linear(12), 12, count=4), "gradcam", maps)
    np.testing.assert_array_equal(ask.order, np.argsort(-ask.enlarged.flatten(1).numpy(), axis=1, kind="stable"))


def test_the_blur_is_that_of_rise() -> None:
    frames = random_frames(2, 224)
    one = np.zeros((11, 11))
    one[5, 5] = 1
    kernel = torch.from_numpy(gaussian_filter(one, 5))
    weights = torch.zeros(3, 3, 11, 11, dtype=torch.float64)
    for channel in range(3):
        weights[channel, channel] = kernel
    rise = 255 * torch.nn.functional.conv2d(normalized(frames), weights, padding=5) + 128
    assert np.abs(np.moveaxis(rise.numpy(), 1, 3) - blurred(frames, GRAY)).max() <= 0.5001


def test_points_and_parameters() -> None:
    (metric,) = find_metrics(["deletion:steps=4,fill=black"])
    assert metric.canonical == "deletion:fill=black,steps=4"
    np.testing.assert_array_equal(metric.points("deletion-curve"), [0, 0.25, 0.5, 0.75, 1])
    with pytest.raises(KeyError):
        metric.points("insertion-curve")
    with pytest.raises(OptionError, match="choose from mean, blur, black"):
        find_metrics(["insertion:fill=white"])
    assert find_metrics(["insertion"])[0].canonical == "insertion:fill=blur,steps=28"
