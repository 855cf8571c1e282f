"""Augmentation of image-map pairs and their cut to a region and size; color changes the image alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.config import AUGMENTATIONS
from saliency_pipeline.uses.use import Limits

# attempts at a crop that lies inside the frame, as in torchvision
_TRIES = 10


@dataclass(frozen=True)
class _Choices:
    """The random choices for one pair.

    Attributes:
        crop: top, left, height and width in pixels.
        flip: True to flip horizontally.
        color: factors of brightness, contrast and saturation.
    """

    crop: tuple[int, int, int, int]
    flip: bool
    color: tuple[float, float, float]


def augment(
    images: Tensor,
    maps: Tensor | None,
    names: tuple[str, ...],
    seeds: Sequence[Sequence[int]],
    *,
    size: int | None = None,
    regions: Tensor | None = None,
    limits: Limits | None = None,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    strength: float = 0.3,
) -> tuple[Tensor, Tensor | None]:
    """Augment pairs; image and map go through the same geometric call as one tensor, so that they stay aligned.

    - `crop`: a random part of the frame, resized bilinearly to the whole (Szegedy et al., "Going deeper with
      convolutions", 2015; with gentler bounds).
    - `flip`: horizontal flip of half of the pairs.
    - `color`: brightness, contrast and saturation of the image, in this order, each scaled by a factor.

    The choices for a pair depend on its own numbers in `seeds` alone: not on the batch, on the other names, or on
    torch's generator, so that a thread can augment while another trains with dropout.

    Args:
        images: (B, 3, S, S) uint8 RGB.
        maps: (B, 1, S, S) float32, any range, or None.
        names: some of `AUGMENTATIONS`.
        seeds: for each pair the non-negative numbers that seed its choices, such as (seed, epoch, position).
        size: side T of the results in pixels; None for S.
        regions: (B, 4) int64, top, left, height and width of the part of each pair that replaces the whole frame; it is
            cut and resized in one step with the crop.
        limits: which crops are allowed, within the whole frame; a pair of which no sampled crop is allowed stays whole.
        scale: bounds of the crop's share of the frame's area, in (0, 1]; those of `limits` replace them.
        ratio: bounds of the crop's width over its height.
        strength: each color factor lies in [1 - strength, 1 + strength].

    Returns:
        Images (B, 3, T, T) uint8 in channels_last strides, and maps (B, 1, T, T) float32, or None without maps.

    Raises:
        SalpipeError: an unknown augmentation.
    """
    if unknown := [name for name in names if name not in AUGMENTATIONS]:
        raise SalpipeError(f"augmentation '{unknown[0]}' is unknown; use some of {', '.join(AUGMENTATIONS)}")
    count, _, height, width = images.shape
    side = size or height
    if limits is not None:
        scale = limits.smallest, 1.0
    if not names and regions is None and side == height:
        return images, maps
    frames = torch.empty(count, side, side, 3, dtype=torch.uint8)
    new_maps = None if maps is None else torch.empty(count, 1, side, side)
    pair = torch.empty(3 if maps is None else 4, height, width)
    for i in range(count):
        top, left, tall, wide = (0, 0, height, width) if regions is None else regions[i].tolist()
        allowed = None if limits is None else partial(limits.allowed, i)
        choices = _choose(seeds[i], tall, wide, scale, ratio, strength, allowed)
        if "crop" in names:
            down, right, tall, wide = choices.crop
            top, left = top + down, left + right
        pair[:3] = images[i]
        pair[:3] /= 255
        if maps is not None:
            pair[3:] = maps[i]
        changed = pair
        if "crop" in names or (top, left, tall, wide) != (0, 0, side, side):
            # anti-aliasing changes no value of a crop that is not larger than the result
            smaller = tall > side or wide > side
            changed = functional.resized_crop(changed, top, left, tall, wide, [side, side], antialias=smaller)
        if "flip" in names and choices.flip:
            changed = functional.horizontal_flip(changed)
        rgb = changed[:3]
        if "color" in names:
            rgb = functional.adjust_brightness(rgb, choices.color[0])
            rgb = functional.adjust_contrast(rgb, choices.color[1])
            rgb = functional.adjust_saturation(rgb, choices.color[2])
        torch.stack((rgb * 255).round_().to(torch.uint8).unbind(), -1, out=frames[i])
        if new_maps is not None:
            new_maps[i] = changed[3:]
    return frames.permute(0, 3, 1, 2), new_maps


def _choose(
    seed: Sequence[int],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    strength: float,
    allowed: Callable[[tuple[int, int, int, int]], bool] | None,
) -> _Choices:
    """All choices for a pair, so that one augmentation more does not change the others."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([int(number) for number in seed])))
    numbers = random.random(4 + 4 * _TRIES)
    flip, *color = numbers[:4].tolist()
    crop = 0, 0, height, width
    for area, shape, down, right in numbers[4:].reshape(_TRIES, 4).tolist():
        pixels = height * width * (scale[0] + area * (scale[1] - scale[0]))
        proportion = math.exp(math.log(ratio[0]) + shape * math.log(ratio[1] / ratio[0]))
        tall, wide = round(math.sqrt(pixels / proportion)), round(math.sqrt(pixels * proportion))
        if 0 < tall <= height and 0 < wide <= width:
            place = int(down * (height - tall + 1)), int(right * (width - wide + 1)), tall, wide
            if allowed is None or allowed(place):
                crop = place
                break
    brightness, contrast, saturation = (1 + strength * (2 * number - 1) for number in color)
    return _Choices(crop, flip < 0.5, (brightness, contrast, saturation))
