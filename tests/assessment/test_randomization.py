"""Parameter randomization: similarity of maps of random networks, and the entropy of their histograms."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import spearmanr
from torch import nn

from saliency_pipeline.assessment.inquiry import Floats, ImageBatch, Inquiry, Network
from saliency_pipeline.assessment.metrics.randomization import (
    EfficientRandomization,
    ParameterRandomization,
    entropy,
    similarity,
)
from saliency_pipeline.assessment.randomized import cascade

FALLING, RISING = np.array([[4.0, -3], [2, 1]]), np.array([[1.0, 2], [-3, 4]])


class Scripted:
    """A network whose map (h, w) is the same for all frames; those of its random ones follow."""

    color = (0, 0, 0)

    def __init__(self, *maps: np.ndarray | None) -> None:
        self.map, self.random = maps[0], [Scripted(each) for each in maps[1:]]

    def scores(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.zeros(len(frames))

    def explain(self, method: str, frames: np.ndarray, targets: np.ndarray, keys: Sequence[str]) -> Floats | None:
        return None if self.map is None else np.stack([self.map] * len(frames)).astype(np.float32)

    def randomized(self) -> Sequence[Network]:
        return self.random


def ask(*maps: np.ndarray | None) -> Inquiry:
    frames, zeros = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64)
    batch = ImageBatch(["a", "b"], frames, zeros, zeros, [np.zeros((0, 4))] * 2, Scripted(*maps))
    return Inquiry(batch, "method", np.zeros((2, 2, 2), np.float32))


def test_the_mean_leaves_out_the_network_itself() -> None:
    values = ParameterRandomization().values(ask(FALLING, FALLING, 2 * FALLING, RISING, RISING, -RISING))
    np.testing.assert_allclose(values["randomization"], [[1, 1, 1, -1, -1, -1]] * 2)
    np.testing.assert_allclose(values["parameter-randomization"], -1 / 5)
    np.testing.assert_allclose(ParameterRandomization().points("randomization"), [0, 0.2, 0.4, 0.6, 0.8, 1])


def test_a_method_that_does_not_read_the_network_is_recognized() -> None:
    constant = ask(*[FALLING] * 6)
    np.testing.assert_array_equal(ParameterRandomization().values(constant)["parameter-randomization"], 1)
    np.testing.assert_array_equal(EfficientRandomization().values(constant)["efficient-randomization"], 0)


def test_maps_from_elsewhere_have_no_value() -> None:
    for metric in (ParameterRandomization(), EfficientRandomization()):
        for values in metric.values(ask(None)).values():
            assert np.isnan(values).all()


def test_similarity_is_that_of_scipy() -> None:
    maps, others = np.random.default_rng(0).integers(-5, 6, (2, 3, 7, 7)).astype(np.float32)
    expected = [spearmanr(abs(a).ravel(), abs(b).ravel()).statistic for a, b in zip(maps, others, strict=True)]
    np.testing.assert_allclose(similarity(maps, others), expected)


def test_similarity_of_constant_and_undefined_maps() -> None:
    maps = np.stack([np.zeros((2, 2)), np.ones((2, 2)), FALLING, np.full((2, 2), np.nan)]).astype(np.float32)
    others = np.stack([np.ones((2, 2)), FALLING, np.zeros((2, 2)), FALLING]).astype(np.float32)
    np.testing.assert_array_equal(similarity(maps, others), [1, 0, 0, np.nan])


def test_maps_of_a_random_linear_layer_are_not_similar() -> None:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
    networks = (layer, *cascade(layer, 64))
    maps = [network[1].weight.detach()[0].view(3, 64, 64).sum(0).numpy() for network in networks]
    values = ParameterRandomization().values(ask(*maps))["parameter-randomization"]
    assert abs(values).max() < 4 / 64


def test_the_entropy_rises_by_a_known_factor() -> None:
    half, four = np.array([[0.0, 0], [1, 1]]), np.array([[0.0, 1], [2, 3]])
    maps = np.stack([half, four, np.ones((2, 2))]).astype(np.float32)
    np.testing.assert_allclose(entropy(maps), [math.log(2), math.log(4), 0])
    values = EfficientRandomization().values(ask(half, half, half, half, half, four))
    np.testing.assert_allclose(values["efficient-randomization"], 1)


@pytest.mark.parametrize(("side", "bins"), [(2, 10), (12, 12), (224, 200)])
def test_the_number_of_bins_grows_with_the_map(side: int, bins: int) -> None:
    values = np.linspace(0, 1, side * side).reshape(1, side, side)
    expected = np.histogram(values, bins)[0] / side**2
    expected = expected[expected > 0]
    np.testing.assert_allclose(entropy(values.astype(np.float32)), -(expected * np.log(expected)).sum(), rtol=1e-3)


def test_the_change_of_no_entropy_is_0_or_undefined() -> None:
    constant = np.ones((2, 2))
    for last, expected in ((constant, 0), (FALLING, np.nan)):
        values = EfficientRandomization().values(ask(constant, *[last] * 5))["efficient-randomization"]
        np.testing.assert_array_equal(values, expected)


def test_an_unknown_curve_is_a_defect() -> None:
    with pytest.raises(KeyError):
        ParameterRandomization().points("roc")
