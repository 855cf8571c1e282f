"""FullGrad: the gradient of the input and of every bias of the network, which together make up a logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers


@dataclass(frozen=True)
class FullGrad(Method):
    """FullGrad: sum_c psi(x dy/dx)_c + sum_l sum_k up(psi(b_l dy/dz_l))_k, (N, T, S, S), >= 0.

    z_l is the output that a bias b_l is added to, psi the absolute value, scaled to [0, 1] over all channels of an
    image, and up bilinear interpolation to the frame with aligned corners, as in the authors' code. Biases are those of
    the exported network, whose BatchNorm is folded into the convolutions. Those of outputs without a grid, such as the
    last linear layer's, are left out of the map; those of tokens, as in transformers, altogether.

    The residual is not that of the map but of the decomposition before psi, sum x dy/dx + sum_l b_l dy/dz_l - y: 0 if
    the network is made of linear layers, ReLU and pooling; otherwise (ReLU6, SiLU, GELU, attention) it shows how much
    the terms miss. Srinivas and Fleuret, arXiv 1905.00780.
    """

    name = "fullgrad"
    needs = Need.BIASES
    convention = "sum_c psi(x dy/dx)_c + sum_l sum_k up(psi(b_l dy/dz_l))_k, psi = |.| scaled to [0, 1] per image"
    paper = "arXiv:1905.00780"
    complete = True

    @property
    def cost(self) -> float:
        return 3.0

    def maps(self, ask: Answers) -> Tensor:
        return self._decomposition(ask)[0]

    def residuals(self, ask: Answers, maps: Tensor) -> Tensor:
        return self._decomposition(ask)[1]

    def _decomposition(self, ask: Answers) -> tuple[Tensor, Tensor]:
        """The maps (N, T, S, S) and the residuals (N, T), from one pass for both."""
        return ask.once(self.name, lambda: decompose(ask))


def decompose(ask: Answers) -> tuple[Tensor, Tensor]:
    """The maps (N, T, S, S) of FullGrad, and the sums (N, T) of the terms x dy/dx and b dy/dz minus the logits.

    No gradient is kept: memory does not grow with the number of layers.
    """
    pixels = ask.pixels()
    shape = ask.targets().shape
    maps = pixels.new_zeros(*shape, *pixels.shape[2:])
    sums = torch.zeros(shape, dtype=torch.float64, device=pixels.device)

    def visit(t: int, bias: Tensor, gradient: Tensor) -> None:
        if len(gradient) != len(pixels) or gradient.ndim not in (2, 4):
            return  # tokens or windows, whose first dimension is not the frame
        term = gradient * bias
        sums[:, t] += term.flatten(1).sum(1, dtype=torch.float64)
        if gradient.ndim == 4:
            if bias.ndim == 1:
                term = term.permute(0, 3, 1, 2)
            # channels are summed first: interpolation is linear
            total = scaled(term).sum(1, keepdim=True)
            maps[:, t] += torch.nn.functional.interpolate(
                total, tuple(pixels.shape[2:]), mode="bilinear", align_corners=True
            )[:, 0]

    scores, gradients = ask.bias_gradients(visit)
    for t, gradient in enumerate(gradients):
        term = gradient * pixels
        sums[:, t] += term.sum((1, 2, 3), dtype=torch.float64)
        maps[:, t] += scaled(term).sum(1)
    return maps, (sums - scores).float()


def scaled(term: Tensor) -> Tensor:
    """Absolute values scaled linearly to [0, 1] over all channels and pixels of each image; constant ones are 0.

    >>> scaled(torch.tensor([[[[1.0, -3.0]], [[2.0, 1.0]]]]))
    tensor([[[[0.0000, 1.0000]],
    <BLANKLINE>
             [[0.5000, 0.0000]]]])
    """
    size = term.abs()
    size = size - size.amin((1, 2, 3), keepdim=True)
    peak = size.amax((1, 2, 3), keepdim=True)
    return size / peak.where(peak > 0, 1)
