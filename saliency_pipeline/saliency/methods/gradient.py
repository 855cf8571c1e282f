"""Pixel gradients: how a logit changes with each pixel. Formulas only.

Gradients are with respect to the normalized frame, so their unit is logits per standard deviation of the source
model's normalization, as in captum's Saliency.
"""

from __future__ import annotations

from torch import Tensor


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
