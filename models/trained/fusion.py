"""Fusion modules, which combine the features of the RGB branch and of the saliency branch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.trained.choices import FUSIONS


class MultiplySkip(nn.Module):
    """rgb * sal + alpha * rgb: element-wise product with a skip connection, the fusion of the article.

    After Figueroa Flores et al., arXiv 1808.00262, and Wang & Xu 2020. Computed as rgb * (sal + alpha), which
    reads memory once less; where sal is 0 and alpha 1 the result is rgb to the bit.

    Args:
        alpha: weight of the skip connection.
        learned: whether it is trained, starting from `alpha`.
    """

    def __init__(self, alpha: float = 1.0, *, learned: bool = False) -> None:
        super().__init__()
        self.alpha: float | nn.Parameter = nn.Parameter(torch.tensor(float(alpha))) if learned else float(alpha)

    def forward(self, rgb: Tensor, sal: Tensor) -> Tensor:
        """Features (N, C, h, w) and saliency (N, C, h, w) in [0, 1] to features (N, C, h, w)."""
        return rgb * (sal + self.alpha)


class ZeroConv(nn.Conv2d):
    """A 1x1 convolution whose weights and biases are initialized to 0, regardless of the network's initialization.

    The zero convolution of ControlNet (Zhang et al., arXiv 2302.05543).
    """

    def reset_parameters(self) -> None:
        """Set weights and biases to 0."""
        nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class Neutral(nn.Module):
    """rgb * (1 + tanh(zero(sal))) with a zero convolution: at the start the result is rgb to the bit.

    A two-branch network then starts exactly as its backbone, in training and in eval mode, so that later differences
    are learned.
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
    """A 1x1 convolution of both to C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, rgb: Tensor, sal: Tensor) -> Tensor:
        """Features (N, C, h, w) and saliency (N, C, h, w) in [0, 1] to features (N, C, h, w)."""
        mixed: Tensor = self.mix(torch.cat([rgb, sal], 1))
        return mixed


def make_fusion(name: str, channels: int, alpha: float, learn_alpha: bool) -> nn.Module:
    """The module of a name of `FUSIONS`, for features of `channels` channels.

    Raises:
        SalpipeError: the fusion does not exist.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "multiply-skip": lambda: MultiplySkip(alpha, learned=learn_alpha),
        "neutral": lambda: Neutral(channels),
        "multiply": Multiply,
        "add": Add,
        "concat": lambda: Concat(channels),
    }
    if name in makers:
        return makers[name]()
    raise SalpipeError(f"--fusion {name}: unknown; choose from {', '.join(FUSIONS)}")
