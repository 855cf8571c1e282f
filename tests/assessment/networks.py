"""Networks of a few lines for tests of metrics, and batches that ask them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from saliency_pipeline.assessment.inquiry import Floats, ImageBatch, Inquiry, Network
from saliency_pipeline.assessment.metrics.metric import Metric, Values
from saliency_pipeline.figures.pictures import Pixels
from tests.saliency.fake_pixels import random_frames

GRAY = (128, 128, 128)
"""The mean color of all networks here: exact in uint8."""


class ModuleNetwork:
    """A torch module on frames (M, 3, S, S), normalized as (frame - 128) / 255, as the source model.

    Attributes:
        calls: how often scores were asked for.
        explains: whether it explains other frames; the map is the sum of colors times the weight of the class.
    """

    color = GRAY

    def __init__(self, module: nn.Module, explains: bool = True) -> None:
        self.module, self.calls, self.explains = module.double().eval().requires_grad_(False), 0, explains

    def scores(self, frames: Pixels, targets: np.ndarray) -> np.ndarray:
        self.calls += 1
        # one by one, so that not even rounding depends on the batch
        logits = [self.module(normalized(frame[None])) for frame in frames]
        return torch.cat(logits).softmax(1).numpy()[np.arange(len(targets)), targets]

    def explain(self, method: str, frames: Pixels, targets: np.ndarray, keys: Sequence[str]) -> Floats | None:
        maps = normalized(frames).sum(1).numpy() * (targets[:, None, None] + 1.0)
        return maps.astype(np.float32)[:, ::2, ::2] if self.explains else None

    def randomized(self) -> Sequence[Network]:
        return ()


class Linear(nn.Module):
    """Logits (M, K) that are sums over pixels and colors of weights (K, 3, S, S) times the normalized frame."""

    def __init__(self, weights: np.ndarray) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(weights))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("mchw,kchw->mk", x, self.weights)


class Extractor:
    """Ready maps in the place of one of torch-cam's methods."""

    def __init__(self, model: torch.nn.Module, maps: torch.Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *args: object, **options: object) -> list[torch.Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]

    def _hooks_off(self) -> object:
        return torch.no_grad()


def normalized(frames: Pixels) -> torch.Tensor:
    """Frames (M, S, S, 3) uint8 as the networks here take them: (M, 3, S, S) float64."""
    return torch.from_numpy((np.moveaxis(frames, 3, 1) - 128.0) / 255)


def linear(size: int, classes: int = 3, scale: float = 0.2) -> ModuleNetwork:
    """A linear network with random weights."""
    return ModuleNetwork(Linear(scale * np.random.default_rng(1).standard_normal((classes, 3, size, size))))


def pooled(classes: int = 3) -> ModuleNetwork:
    """A linear network on the mean color."""
    torch.manual_seed(3)
    return ModuleNetwork(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes)))


def convolutional(classes: int = 3) -> ModuleNetwork:
    """A small convolutional network with random weights."""
    torch.manual_seed(2)
    layers = (
        nn.Conv2d(3, 8, 5),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(72, classes),
    )
    return ModuleNetwork(nn.Sequential(*layers))


def batch_of(network: Network, size: int, count: int = 3) -> ImageBatch:
    """Random frames, explained for the classes 0, 1, 2, 0, ..."""
    frames = np.ascontiguousarray(random_frames(count, size))
    targets = np.arange(count) % 3
    keys = [f"{image}.png" for image in range(count)]
    return ImageBatch(keys, frames, targets, targets, [np.empty((0, 4))] * count, network)


def random_maps(count: int, side: int) -> Floats:
    """Maps (count, side, side) that are permutations of 1 to side ** 2, negative where even."""
    values = np.random.default_rng(0).permuted(np.tile(np.arange(1.0, side**2 + 1), (count, 1)), axis=1)
    return np.where(values % 2, values, -values).astype(np.float32).reshape(count, side, side)


def alone(ask: Inquiry, image: int) -> Inquiry:
    """The same about one image."""
    batch, at = ask.batch, slice(image, image + 1)
    parts = batch.keys[at], batch.frames[at], batch.targets[at], batch.labels[at], batch.boxes[at]
    return Inquiry(ImageBatch(*parts, batch.network), ask.method, ask.maps[at], ask.signed)


def check_values(metric: Metric, ask: Inquiry) -> Values:
    """Shapes, range and independence of the other images of a metric's values; returns them."""
    values = metric.values(ask)
    assert list(values) == [column.name for column in metric.columns] + [curve.name for curve in metric.curves]
    for column in metric.columns:
        assert values[column.name].shape == (len(ask),)
        assert values[column.name].dtype == np.float64
        assert np.nanmin(values[column.name]) >= (-np.inf if column.low is None else column.low)
        assert np.nanmax(values[column.name]) <= (np.inf if column.high is None else column.high)
    for curve in metric.curves:
        assert values[curve.name].shape == (len(ask), len(metric.points(curve.name)))
    for image in range(len(ask)):
        for name, own in metric.values(alone(ask, image)).items():
            np.testing.assert_array_equal(own[0], values[name][image], name)
    return values
