"""Maps and images for tests of uses."""

import numpy as np
import torch

SIZE = 64


def marked(*boxes: tuple[int, int, int, int], side: int = SIZE) -> torch.Tensor:
    """Maps (B, 1, side, side) that are 1 in a rectangle each, top, left, height and width, and 0 elsewhere."""
    maps = torch.zeros(len(boxes), 1, side, side)
    for values, (top, left, height, width) in zip(maps[:, 0], boxes, strict=True):
        values[top : top + height, left : left + width] = 1
    return maps


def noise(count: int, side: int = SIZE, seed: int = 0) -> torch.Tensor:
    """Images (B, 3, side, side) uint8 in channels_last strides."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def seeds(count: int, seed: int = 0, epoch: int = 0) -> list[tuple[int, int, int]]:
    return [(seed, epoch, position) for position in range(count)]


def damaged(side: int = SIZE) -> torch.Tensor:
    """Maps that mark no place: constant, zero, negative, and with values that are not finite."""
    maps = torch.stack([torch.full((1, side, side), value) for value in (1.0, 0.0, 0.3, -1.0)] * 2)
    maps[3, 0, 3, 3] = -2
    maps[4, 0, 5, 5] = torch.nan
    maps[5, 0, 5, 5] = torch.inf
    maps[6, 0] = torch.nan
    maps[7, 0, 0, 0] = -torch.inf
    return maps
