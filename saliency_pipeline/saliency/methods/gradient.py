"""Pixel gradients: how a logit changes with each pixel. Formulas only.

Gradients are with respect to the normalized frame, so their unit is logits per standard deviation of the source
model's normalization, as in captum's Saliency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method


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
    """Gradient with respect to the pixels."""

    name = "gradient"
    needs = Need.PIXELS
    convention = "max_c |dy/dx_c| of the normalised frame"
    paper = "arXiv:1312.6034"

    closed_form: ClassVar[None] = None
    explain = staticmethod(simonyan)


@dataclass(frozen=True)
class GradientSmilkov(Gradient):
    """The same, summed over the color channels."""

    name = "gradient-smilkov"
    convention = "sum_c |dy/dx_c| of the normalised frame"
    paper = "arXiv:1706.03825"

    explain = staticmethod(smilkov)
