"""Pixel gradients: how a logit changes with each pixel of the frame, once or averaged over noisy copies of it.

Gradients are with respect to the normalized frame, so their unit is logits per standard deviation of the source
model's normalization, as in captum's Saliency.
"""

from __future__ import annotations

from abc import abstractmethod
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


def simonyan(gradients: Tensor) -> Tensor:
    """Largest absolute gradient over the color channels, max_c |g_c| (Simonyan et al., arXiv 1312.6034, section 3.1).

    Args:
        gradients: (N, 3, S, S), gradient of each image's logit with respect to its normalized frame.

    Returns:
        (N, S, S), >= 0.
    """
    return gradients.abs().amax(1)


def smilkov(gradients: Tensor) -> Tensor:
    """Sum of absolute gradients over the color channels, sum_c |g_c| (Smilkov et al., arXiv 1706.03825).

    Args:
        gradients: (N, 3, S, S), gradient of each image's logit with respect to its normalized frame.

    Returns:
        (N, S, S), >= 0. The paper shows it clipped at the 99th percentile; stored values are not clipped.
    """
    return gradients.abs().sum(1)


@dataclass(frozen=True)
class PixelGradient(Method):
    """A method that needs the gradient at the frame itself."""

    needs = Need.PIXELS

    @property
    def cost(self) -> float:
        return 3.0

    @abstractmethod
    def formula(self, pixels: Tensor, gradients: Tensor) -> Tensor:
        """Maps (N, S, S) from the normalized frames and the gradients of one score, both (N, 3, S, S)."""

    def maps(self, ask: Answers) -> Tensor:
        return torch.stack([self.formula(ask.pixels(), gradients) for gradients in ask.pixel_gradients()], 1)


@dataclass(frozen=True)
class Gradient(PixelGradient):
    """Gradient of the logit, its largest absolute value over the colors: max_c |dy/dx_c|, (N, T, S, S), >= 0."""

    name = "gradient"
    convention = "max_c |dy/dx_c| of the normalised frame"
    paper = "arXiv:1312.6034"

    def formula(self, pixels: Tensor, gradients: Tensor) -> Tensor:
        return simonyan(gradients)


@dataclass(frozen=True)
class GradientSmilkov(PixelGradient):
    """Gradient of the logit, sum of its absolute values over the colors: sum_c |dy/dx_c|, (N, T, S, S), >= 0."""

    name = "gradient-smilkov"
    convention = "sum_c |dy/dx_c| of the normalised frame"
    paper = "arXiv:1706.03825"

    def formula(self, pixels: Tensor, gradients: Tensor) -> Tensor:
        return smilkov(gradients)


@dataclass(frozen=True)
class InputXGradient(PixelGradient):
    """Input times gradient: sum_c x_c dy/dx_c of the normalized frame x, (N, T, S, S), signed.

    It is 0 wherever a pixel has the mean color of the source model's normalization. Shrikumar et al.,
    arXiv 1605.01713; the sum over the colors of captum's InputXGradient.
    """

    name = "input-x-gradient"
    convention = "sum_c x_c dy/dx_c of the normalized frame x"
    paper = "arXiv:1605.01713"
    equals = "integrated-gradients with baseline=mean, where the network is piecewise linear without biases"
    signed = True

    def formula(self, pixels: Tensor, gradients: Tensor) -> Tensor:
        return (pixels * gradients).sum(1)


@dataclass(frozen=True)
class SmoothGrad(Method):
    """A statistic of the gradients at noisy copies of the frame: max_c |stat_k dy/dx_c(x + e_k)|, (N, T, S, S), >= 0.

    The noise is normal, independent for each number of the normalized frame, with standard deviation
    noise (max x - min x). The statistic is that of the signed gradients: their mean (SmoothGrad, Smilkov et al.,
    arXiv 1706.03825), their mean square (SquareGrad, Hooker et al., arXiv 1806.10758), or their variance (VarGrad,
    Adebayo et al., arXiv 1810.03307). The variance is divided by the number of samples, as captum's; where rounding
    makes it negative it is 0.
    """

    name = "smoothgrad"
    needs = Need.POINTS
    convention = "max_c |stat_k dy/dx_c(x + e_k)|, e_k normal with deviation noise (max x - min x), x normalized"
    paper = "arXiv:1706.03825"
    equals = "gradient, with noise=0 and stat=mean"

    samples: int = setting(25, "Number of noisy copies of each frame.", range=(1, 10000))
    noise: float = setting(0.15, "Standard deviation of the noise, relative to the frame's range.", range=(0, 10))
    stat: str = setting("mean", "Statistic of the gradients.", choices=("mean", "square", "var"))
    seed: int = setting(0, "Random seed of the noise.", range=SEEDS)

    @property
    def cost(self) -> float:
        return 3.0 * self.samples

    def maps(self, ask: Answers) -> Tensor:
        key = (self.name, self.samples, self.noise, self.seed)
        # squares also for the mean: all statistics share the passes, and squares cost next to nothing
        first, second = (total / self.samples for total in ask.moments(key, lambda: self._points(ask), square=True))
        if self.stat == "mean":
            values = first
        elif self.stat == "square":
            values = second
        else:
            values = (second - first.square()).clamp_min(0)
        return values.abs().amax(2).transpose(0, 1)

    def _points(self, ask: Answers) -> Iterator[tuple[float, Tensor]]:
        pixels = ask.pixels()
        deviation = self.noise * (pixels.amax((1, 2, 3), keepdim=True) - pixels.amin((1, 2, 3), keepdim=True))
        for k in range(self.samples):
            generators = ask.random(self.name, self.seed, k)
            noise = np.stack([rng.standard_normal(pixels.shape[1:], np.float32) for rng in generators])
            yield 1.0, pixels + deviation * torch.from_numpy(noise).to(pixels.device)
