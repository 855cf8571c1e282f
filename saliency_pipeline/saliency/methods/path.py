"""Path methods: gradients along straight lines from baselines to the frame, which sum to a difference of logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.settings import SEEDS, setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

BLUR = 1 / 20
"""Standard deviation of the blurred baseline, relative to the side of the frame."""

BASELINES = ("mean", "black", "white", "blur")


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Integrated gradients: sum_c (x - x0)_c int_0^1 dy/dx_c(x0 + a (x - x0)) da, (N, T, S, S), signed.

    The integral is a Gauss-Legendre sum. A map sums to y(x) - y(x0) up to the error of that sum, which is stored as
    residual. The baseline x0 is the mean color of the normalization (0), black, white, or the frame blurred by a
    Gaussian of a twentieth of its side. Sundararajan et al., arXiv 1703.01365; the sum over the colors of captum's
    IntegratedGradients with `method="gausslegendre"`.
    """

    name = "integrated-gradients"
    needs = Need.POINTS | Need.FORWARD
    convention = "sum_c (x - x0)_c int_0^1 dy/dx_c(x0 + a (x - x0)) da, Gauss-Legendre, x0 the baseline"
    paper = "arXiv:1703.01365"
    signed = True
    complete = True

    nodes: int = setting(20, "Number of points on the path from the baseline.", range=(1, 1000))
    baseline: str = setting("mean", "Frame that the path begins at.", choices=BASELINES)

    @property
    def cost(self) -> float:
        return 3.0 * self.nodes + (self.baseline == "blur")

    def maps(self, ask: Answers) -> Tensor:
        key = (self.name, self.nodes, self.baseline)
        (sums,) = ask.moments(key, lambda: self._points(ask))
        return ((ask.pixels() - baseline_frames(ask, self.baseline)) * sums).sum(2).transpose(0, 1)

    def residuals(self, ask: Answers, maps: Tensor) -> Tensor:
        def start() -> Tensor:
            return baseline_frames(ask, self.baseline)

        # all baselines but this one are colors
        own = self.baseline == "blur"
        logits = ask.forward(start()) if own else ask.forward_once(("baseline", self.baseline), start)
        return sum_residuals(maps, ask.scores(), ask.scores(logits))

    def _points(self, ask: Answers) -> Iterator[tuple[float, Tensor]]:
        start = baseline_frames(ask, self.baseline)
        way = ask.pixels() - start
        for position, weight in zip(*np.polynomial.legendre.leggauss(self.nodes), strict=True):
            yield float(weight) / 2, start + (float(position) + 1) / 2 * way


@dataclass(frozen=True)
class ExpectedGradients(Method):
    """Expected gradients: sum_c mean_k (x - x0_k)_c dy/dx_c(x0_k + a_k (x - x0_k)), (N, T, S, S), signed.

    The baselines x0_k are other images of the data set and the positions a_k uniform in [0, 1], both random for each
    image. A map sums to y(x) - mean_k y(x0_k) but for the error of sampling a_k, which is stored as residual. Erion et
    al., arXiv 1906.10670; the sum over the colors of captum's GradientShap without noise.
    """

    name = "expected-gradients"
    needs = Need.POINTS | Need.FORWARD
    convention = "sum_c mean_k (x - x0_k)_c dy/dx_c(x0_k + a_k (x - x0_k)), x0_k images of the data set, a_k ~ U(0, 1)"
    paper = "arXiv:1906.10670"
    signed = True
    complete = True
    needs_background = True

    samples: int = setting(50, "Number of random points.", range=(1, 10000))
    seed: int = setting(0, "Random seed of images and positions.", range=SEEDS)

    @property
    def cost(self) -> float:
        return 3.0 * self.samples

    def maps(self, ask: Answers) -> Tensor:
        (sums,) = ask.moments((self.name, self.samples, self.seed), lambda: self._points(ask))
        return sums.sum(2).transpose(0, 1)

    def residuals(self, ask: Answers, maps: Tensor) -> Tensor:
        background, batch = ask.background(), len(ask.keys)
        # in batches of N as the network takes them
        padded = np.pad(np.arange(len(background)), (0, -len(background) % batch), mode="edge")
        parts = [
            ask.forward_once(("background", part), lambda images=images: background[images])  # type: ignore[misc]
            for part, images in enumerate(np.split(padded, len(padded) // batch))
        ]
        draws = np.stack([drawn for drawn, _ in self._draws(ask, len(background))])
        return sum_residuals(maps, ask.scores(), ask.scores(torch.cat(parts)[draws].mean(0)))

    def _draws(self, ask: Answers, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Index (N,) of one of `count` images and position (N, 1, 1, 1) on the path, for each of the samples."""
        for k in range(self.samples):
            drawn = [(rng.integers(count), rng.random()) for rng in ask.random(self.name, self.seed, k)]
            images, positions = (np.array(values) for values in zip(*drawn, strict=True))
            yield images, positions[:, None, None, None]

    def _points(self, ask: Answers) -> Iterator[tuple[Tensor, Tensor]]:
        pixels, background = ask.pixels(), ask.background()
        for images, positions in self._draws(ask, len(background)):
            start = background[images]
            way = pixels - start
            yield way / self.samples, start + torch.from_numpy(positions).to(way) * way


def baseline_frames(ask: Answers, kind: str) -> Tensor:
    """The baselines (N, 3, S, S) of one of `BASELINES`, in the normalized frame."""
    pixels = ask.pixels()
    if kind == "blur":
        return blurred(pixels, BLUR * ask.size)
    if kind == "mean":
        return torch.zeros_like(pixels)
    return ask.color(0.0 if kind == "black" else 1.0).expand_as(pixels).contiguous()


def blurred(pixels: Tensor, deviation: float) -> Tensor:
    """Frames (N, 3, S, S) blurred by a Gaussian, whose weights are normalized at the border.

    Args:
        pixels: the frames.
        deviation: standard deviation in pixels.
    """
    positions = torch.arange(pixels.shape[-1], dtype=pixels.dtype, device=pixels.device)
    weights = (-((positions[:, None] - positions) ** 2) / (2 * deviation**2)).exp()
    weights /= weights.sum(1, keepdim=True)
    # frame by frame, so that the rounding does not depend on their number
    return torch.stack([weights @ frame @ weights.t() for frame in pixels])


def sum_residuals(maps: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Sums of maps (N, T, S, S) minus the differences of scores (N, T) that they should be."""
    return (maps.sum((2, 3), dtype=torch.float64) - (start.double() - end)).float()
