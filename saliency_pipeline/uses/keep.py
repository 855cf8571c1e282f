"""`keep`: random crops and random erasing that never destroy what the map marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_pipeline.settings import setting
from saliency_pipeline.uses.places import Box, marks_place, mass_share
from saliency_pipeline.uses.use import ERASED, Limits, Seeds, Use, random_numbers

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST, RATIO = 0.02, (0.3, 3.3)
"""Least area of an erased rectangle relative to the frame, and bounds of its width over its height, as in the paper of
random erasing (Zhong et al., arXiv 1708.04896)."""

_TRIES = 10


@dataclass(frozen=True)
class Keep(Use):
    """Keep: augmentation that never destroys what the map marks (KeepAugment, Gong et al., arXiv 2011.11778).

    A random crop (`--augment crop`) holds at least `share` of the map's mass, and a rectangle that is replaced by the
    mean color at most 1 - `share` of what is left of it. Both are sampled ten times at most; if none fits, the image
    is shown whole, or nothing is erased. A constant map marks no place: its images get the same crops and erased
    rectangles without restriction, so that `--maps uniform` is plain augmentation.
    """

    name = "keep"
    formula = "random crops with map mass >= share, random erasing with map mass <= 1 - share"
    paper = "arXiv:2011.11778"
    at_test = False
    maps_in_batches = False

    share: float = setting(0.8, "Least share of the map's sum that is kept.", range=(0.0, 1.0))
    crop: float = setting(
        0.3, "Least area of a random crop, relative to the frame's (--augment crop).", range=(0.01, 1.0)
    )
    erase: float = setting(0.3, "Greatest area that is erased, relative to the frame's.", range=(0.02, 1.0))
    p: float = setting(0.5, "Probability of erasing.", range=(0.0, 1.0))

    def limits(self, maps: Tensor) -> Limits:
        marked = marks_place(maps).tolist()

        def allowed(index: int, box: Box) -> bool:
            return not marked[index] or mass_share(maps[index, 0], box) >= self.share

        return Limits(self.crop, allowed)

    def finish(self, images: Tensor, maps: Tensor | None, mean: Sequence[float], seeds: Seeds) -> Tensor:
        import torch

        assert maps is not None
        images = images.clone(memory_format=torch.channels_last)
        color = (255 * torch.tensor(mean)).round().byte().view(3, 1, 1)
        marked = marks_place(maps).tolist()
        for image, values, place, seed in zip(images, maps[:, 0], marked, seeds, strict=True):
            for box in self._rectangles(images.shape[-1], seed):
                if not place or mass_share(values, box) <= 1 - self.share:
                    top, left, height, width = box
                    image[:, top : top + height, left : left + width] = color
                    break
        return images

    def _rectangles(self, side: int, seed: Sequence[int]) -> list[Box]:
        """Rectangles to erase, of which the first that fits is taken; none if the image is not erased."""
        random = random_numbers(seed, ERASED)
        if random.random() >= self.p:
            return []
        boxes = []
        for area, shape, down, right in random.random((_TRIES, 4)).tolist():
            pixels = side * side * (SMALLEST + area * (self.erase - SMALLEST))
            proportion = RATIO[0] * (RATIO[1] / RATIO[0]) ** shape
            height, width = round(math.sqrt(pixels / proportion)), round(math.sqrt(pixels * proportion))
            if 0 < height <= side and 0 < width <= side:
                boxes.append((int(down * (side - height + 1)), int(right * (side - width + 1)), height, width))
        return boxes
