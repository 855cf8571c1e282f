"""How the features of the RGB branch and of the saliency branch become one: a small vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.trained.choices import FUSIONS


class MultiplySkip(nn.Module):
    """rgb * sal + alpha * rgb: element-wise product with a skip connection, the fusion of the article.

    After Figueroa Flores et al., arXiv 1808.00262, and Wang & Xu 2020. Computed as rgb * (sal + alpha), one pass over
    memory less; where sal is 0 and alpha 1 the result is rgb to the bit.

    Args:
        alpha: weight of the skip connection.
        learned: whether it is trained, beginning with `alpha`.
    """

    def __init__(self, alpha: float = 1.0, *, learned: bool = False) -> None:
        super().__init__()
        self.alpha: float | nn.Parameter = nn.Parameter(torch.tensor(float(alpha))) if learned else float(alpha)

    def forward(self, rgb: Tensor, sal: Tensor) -> Tensor:
        """Features (N, C, h, w) and saliency (N, C, h, w) in [0, 1] to features (N, C, h, w)."""
        return rgb * (sal + self.alpha)


class ZeroConv(nn.Conv2d):
    """A 1x1 convolution whose weights and biases are 0 at first, whatever initialization the network gets.

    The zero convolution of ControlNet (Zhang et al., arXiv 2302.05543).
    """

    def reset_parameters(self) -> None:
        """Set weights and biases to 0."""
        nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class Neutral(nn.Module):
    """rgb * (1 + tanh(zero(sal))) with a zero convolution: at the start the result is rgb to the bit.

    A two-branch network then starts exactly where its backbone starts, in training and in eval mode, so that what
    differs later was learned.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.zero = ZeroConv(channels, channels, 1)

    def forward(self, rgb: Tensor, sal: Tensor) -> Tensor:
        """Features (N, C, h, w) and saliency (N, C, h, w) in [0, 1] to features (N, C, h, w)."""
        return rgb * (1 + torch.tanh(self.zero(sal)))


class Multiply(nn.Module):
    """rgb * sal."""

    def forward(self, rgb: Tensor, sal: Tensor) -> Tensor:
        """Features (N, C, h, w) and saliency (N, C, h, w) in [0, 1] to features (N, C, h, w)."""
        return rgb * sal


class Add(nn.Module):
    """rgb + sal."""

    def forward(self, rgb: Tensor, sal: Tensor) -> Tensor:
        """Features (N, C, h, w) and saliency (N, C, h, w) in [0, 1] to features (N, C, h, w)."""
        return rgb + sal


class Concat(nn.Module):
    """A 1x1 convolution of both, back to C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, rgb: Tensor, sal: Tensor) -> Tensor:
        """Features (N, C, h, w) and saliency (N, C, h, w) in [0, 1] to features (N, C, h, w)."""
        mixed: Tensor = self.mix(torch.cat([rgb, sal], 1))
        return mixed


def make_fusion(name: str, channels: int, alpha: float, learn_alpha: bool) -> nn.Module:
    """The module of a name of `FUSIONS`, for features of so many channels.

    Raises:
        SalpipeError: no such fusion.
    """
    match name:
        case "multiply-skip":
            return MultiplySkip(alpha, learned=learn_alpha)
        case "neutral":
            return Neutral(channels)
        case "multiply":
            return Multiply()
        case "add":
            return Add()
        case "concat":
            return Concat(channels)
    raise SalpipeError(f"--fusion {name}: unknown; choose from {', '.join(FUSIONS)}")
