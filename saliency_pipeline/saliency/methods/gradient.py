"""Pixel gradients: how a logit changes with each pixel.

Gradients are with respect to the normalized frame, so their unit is logits per standard deviation of the source
model's normalization, as in captum's Saliency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method

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
class Gradient(Method):
    """Pixel gradient, see `simonyan`."""

    name = "gradient"
    needs = Need.PIXELS
    convention = "max_c |dy/dx_c| of the normalised frame"
    paper = "arXiv:1312.6034"

    @staticmethod
    def reduce(gradients: Tensor) -> Tensor:
        """From gradients (N, 3, S, S) to maps (N, S, S)."""
        return simonyan(gradients)

    def maps(self, ask: Answers) -> Tensor:
        return torch.stack([self.reduce(gradient) for gradient in ask.pixel_gradients()], 1)


@dataclass(frozen=True)
class GradientSmilkov(Gradient):
    """Pixel gradient, see `smilkov`."""

    name = "gradient-smilkov"
    convention = "sum_c |dy/dx_c| of the normalised frame"
    paper = "arXiv:1706.03825"

    @staticmethod
    def reduce(gradients: Tensor) -> Tensor:
        return smilkov(gradients)
