"""Average drop, increase, gain and ADCC: by hand, as torch-cam computes them, and as ADCC's formula has it."""

from functools import partial

import numpy as np
import pytest
import torch

from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.drops import Adcc, AverageDrop, correlation, masked
from tests.assessment.networks import (
    Extractor,
    ModuleNetwork,
    batch_of,
    check_values,
    convolutional,
    linear,
    normalized,
    random_maps,
)


class Fixed:
    """Scores in the order in which they are asked for."""

    color = (10, 20, 30)

    def __init__(self, *scores: list[float]) -> None:
        self.answers = [np.array(own) for own in scores]

    def scores(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return self.answers.pop(0)


def test_values_by_hand_also_where_a_score_is_0_or_1() -> None:
    clean, changed = [0.5, 0.5, 0.0, 0.0, 1.0, 0.2], [0.1, 0.75, 0.0, 0.5, 1.0, 0.2]
    ask = Inquiry(batch_of(Fixed(clean, changed), 4, count=6), "gradcam", random_maps(6, 4))
    values = AverageDrop().values(ask)
    np.testing.assert_allclose(values["average-drop"], [0.8, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(values["average-increase"], [0, 1, 0, 1, 0, 0])
    np.testing.assert_allclose(values["average-gain"], [0, 0.5, 0, 0.5, 0, 0])


def test_masked_frames_blend_with_the_mean_color() -> None:
    maps = np.array([[[-1, 0], [1, 3]], [[5, 5], [5, 5]]], np.float32)
    targets = np.zeros(2, np.int64)
    frames = np.full((2, 2, 2, 3), 110, np.uint8)
    ask = Inquiry(ImageBatch(["a", "b"], frames, targets, targets, [], Fixed()), "ig", maps)
    expected = np.array([[[10, 20, 30], [35, 42.5, 50]], [[60, 65, 70], [110, 110, 110]]])
    np.testing.assert_array_equal(masked(ask)[0], np.rint(expected).astype(np.uint8))
    np.testing.assert_array_equal(masked(ask)[1], np.tile([10, 20, 30], (2, 2, 1)))


@pytest.mark.parametrize("network", [linear(16), convolutional()], ids=["linear", "convolutional"])
def test_drop_and_increase_are_those_of_torch_cam(network: ModuleNetwork) -> None:
    metrics = pytest.importorskip("torchcam.metrics")
    batch = batch_of(network, 16, count=12)
    # of 0 and 1 alone, so that no masked frame has to be rounded
    ask = Inquiry(batch, "gradcam", (random_maps(12, 16) > 0).astype(np.float32))
    theirs = metrics.ClassificationMetric(
        Extractor(network.module, torch.from_numpy(ask.maps)), partial(torch.softmax, dim=-1)
    )
    theirs.update(normalized(batch.frames), batch.targets.tolist())
    ours = check_values(AverageDrop(), ask)
    assert theirs.summary()["avg_drop"] == pytest.approx(ours["average-drop"].mean(), abs=1e-6)
    assert theirs.summary()["conf_increase"] == ours["average-increase"].mean()
    assert 0 < ours["average-increase"].mean() < 1


def formula(ask: Inquiry, image: int) -> tuple[float, float]:
    """ADCC as its paper has it, of one image."""
    (frame,), (target,), key = (each[image : image + 1] for each in (ask.batch.frames, ask.batch.targets, [""]))
    network, mask = ask.batch.network, ask.mask[image].numpy()
    blended = np.rint(128 + mask[..., None] * (frame - 128.0)).astype(np.uint8)[None]
    again = network.explain("", blended, np.array([target]), key)
    again = torch.nn.functional.interpolate(torch.from_numpy(again)[None], mask.shape, mode="bilinear")[0, 0].numpy()
    coherency = (np.corrcoef(mask.ravel(), again.ravel())[0, 1] + 1) / 2
    p = [float(network.scores(own, np.array([target]))[0]) for own in (frame[None], blended)]
    average_drop = max(0, p[0] - p[1]) / p[0]
    return 3 / (1 / coherency + 1 / (1 - np.abs(mask).mean()) + 1 / (1 - average_drop)), coherency


def test_adcc_is_its_formula() -> None:
    ask = Inquiry(batch_of(convolutional(), 16), "gradcam", random_maps(3, 4))
    values = check_values(Adcc(), ask)
    expected = np.array([formula(ask, image) for image in range(3)])
    np.testing.assert_allclose(values["adcc"], expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(values["coherency"], expected[:, 1], atol=1e-6)


def test_values_are_defined_for_constant_maps_and_undefined_without_explanations() -> None:
    network = linear(8)
    for value in (0.0, 3.0):
        ask = Inquiry(batch_of(network, 8), "gradcam", np.full((3, 2, 2), value, np.float32))
        np.testing.assert_array_equal(check_values(Adcc(), ask)["adcc"], 0.0)
        assert np.isfinite(list(check_values(AverageDrop(), ask).values())).all()
    network.explains = False
    assert np.isnan(list(Adcc().values(ask).values())).all()


def test_correlation_with_itself_its_negative_and_a_constant() -> None:
    maps = torch.from_numpy(random_maps(3, 6)) + 1000.1
    np.testing.assert_allclose(correlation(maps, maps), 1)
    np.testing.assert_allclose(correlation(maps, 5 - 2 * maps), -1)
    assert np.isnan(correlation(maps, torch.full_like(maps, 0.1))).all()
