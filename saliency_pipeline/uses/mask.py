"""`mask`: what the map leaves out is dimmed, blurred or replaced by the mean color."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_pipeline.settings import setting
from saliency_pipeline.uses.places import marks_place
from saliency_pipeline.uses.use import Use

if TYPE_CHECKING:
    from torch import Tensor

BLURRED = 10
"""Cells per side of the blurred image: means of the cells, interpolated; about a Gaussian of 1/20 of the side."""


@dataclass(frozen=True)
class Mask(Use):
    """Mask: image * w + fill * (1 - w), w = floor + (1 - floor) * map.

    A pixel that the map marks stays as it is, one that it leaves out keeps the share `floor` of itself. A constant map
    marks no place: the image stays as it is, to the bit.
    """

    name = "mask"
    formula = "image*w + fill*(1 - w), w = floor + (1 - floor)*map"
    paper = ""
    at_test = True
    maps_in_batches = False

    fill: str = setting(
        "mean", "Replacement: the mean color, black, or the blurred image.", choices=("mean", "black", "blur")
    )
    floor: float = setting(0.2, "Share of a pixel that stays where the map is 0.", range=(0.0, 1.0))

    def change(self, images: Tensor, maps: Tensor, mean: Sequence[float]) -> Tensor:
        import torch

        weights = (self.floor + (1 - self.floor) * maps.clamp(0, 1)).where(marks_place(maps).view(-1, 1, 1, 1), 1)
        # in the memory layout of the images, without which each operation takes several times as long
        weights = weights.expand_as(images).contiguous(memory_format=torch.channels_last)
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        fill = self._filling(pixels, mean).contiguous(memory_format=torch.channels_last)
        return pixels.sub_(fill).mul_(weights).add_(fill).round_().byte()

    def _filling(self, pixels: Tensor, mean: Sequence[float]) -> Tensor:
        """What replaces pixels (B, 3, F, F) in [0, 255], (B, 3, F, F) or (1, 3, F, F)."""
        import torch
        from torch.nn.functional import interpolate

        if self.fill == "blur":
            cells = interpolate(pixels, size=BLURRED, mode="area")
            return interpolate(cells, size=pixels.shape[-1], mode="bilinear", align_corners=False)
        color = torch.zeros(3) if self.fill == "black" else 255 * torch.tensor(mean)
        return color.view(1, 3, 1, 1).expand(1, *pixels.shape[1:])
