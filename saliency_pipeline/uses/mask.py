"""`mask`: what the map leaves out is dimmed, blurred or replaced by the mean color."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_pipeline.settings import setting
from saliency_pipeline.uses.use import Use

if TYPE_CHECKING:
    from torch import Tensor

BLUR = 1 / 20
"""Standard deviation of the blur, relative to the side of the frame."""


@dataclass(frozen=True)
class Mask(Use):
    """Mask: image * w + fill * (1 - w), w = floor + (1 - floor) * map.

    A pixel that the map marks stays as it is, one that it leaves out keeps the share `floor` of itself. Where a map is
    1 everywhere the image is unchanged to the bit.
    """

    name = "mask"
    formula = "image*w + fill*(1 - w), w = floor + (1 - floor)*map"
    paper = ""
    at_test = True

    fill: str = setting(
        "mean", "Replacement: the mean color, black, or the blurred image.", choices=("mean", "black", "blur")
    )
    floor: float = setting(0.2, "Share of a pixel that stays where the map is 0.", range=(0.0, 1.0))

    def changed(self, images: Tensor, maps: Tensor, mean: Sequence[float]) -> Tensor:
        import torch

        pixels = images.float()
        weights = self.floor + (1 - self.floor) * maps.clamp(0, 1)
        mixed = torch.lerp(self._filling(pixels, mean), pixels, weights.expand_as(pixels))
        mixed = mixed.round_().clamp_(0, 255).byte()
        return mixed.contiguous(memory_format=torch.channels_last)

    def _filling(self, pixels: Tensor, mean: Sequence[float]) -> Tensor:
        import torch
        from torchvision.transforms.v2.functional import gaussian_blur_image

        if self.fill == "blur":
            deviation = BLUR * pixels.shape[-1]
            blurred: Tensor = gaussian_blur_image(pixels, [2 * round(3 * deviation) + 1], [deviation])
            return blurred
        color = torch.zeros(3) if self.fill == "black" else 255 * torch.tensor(mean)
        return color.view(1, 3, 1, 1).expand_as(pixels)
