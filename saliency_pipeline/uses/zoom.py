"""`zoom`: the network sees the part of the frame that the map marks, enlarged to the frame's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_pipeline.errors import OptionError
from saliency_pipeline.settings import setting
from saliency_pipeline.uses.places import marks_place
from saliency_pipeline.uses.use import SHOWN_WHOLE, Seeds, Use, random_numbers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Floats = npt.NDArray[np.float64]

CELLS = 56
"""Maps are searched on a grid of at most this many cells per side."""


@dataclass(frozen=True)
class Zoom(Use):
    """Zoom: crop to where the map's mass is (after RA-CNN, Fu et al., CVPR 2017, and WS-DAN, arXiv 1901.09891).

    The region is the smallest square that holds a share of the map's mass, or the square around the cells of at least
    `threshold` times its maximum; `margin` times its side is added on each side. It lies within the frame. A constant
    map marks no place: the region is the whole frame.

    In training the region is augmented like a whole frame: a random crop lies within it. For exported networks the crop
    is part of pre-processing.
    """

    name = "zoom"
    formula = "the smallest square with `mass` of the map's sum, or around map >= threshold * max, and a margin"
    paper = "arXiv:1901.09891"
    at_test = True
    maps_in_batches = False

    mass: float = setting(0.9, "Share of the map's sum that the square holds.", range=(0.01, 1.0))
    threshold: float | None = setting(
        None, "Square around the values of at least this share of the maximum, instead of mass.", range=(0.01, 1.0)
    )
    margin: float = setting(0.1, "Added on each side, relative to the side of the square.", range=(0.0, 10.0))
    smallest: float = setting(0.2, "Least side of the region, relative to the frame's.", range=(0.01, 1.0))
    views: int = setting(
        1,
        "2: the logits of the whole frame are averaged with those of the region, and half of the training images are "
        "shown whole.",
        choices=(1, 2),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.mass != 0.9:
            raise OptionError(f"--threshold {self.threshold:g}: replaces mass; leave one of them out")

    def regions(self, maps: Tensor, seeds: Seeds | None) -> Tensor:
        import torch
        from torch.nn.functional import avg_pool2d

        side = maps.shape[-1]
        cell = -(-side // CELLS)
        cells = avg_pool2d(maps, cell, ceil_mode=True)[:, 0].double().clamp_min(0).numpy()
        regions = torch.tensor([0, 0, side, side]).repeat(len(maps), 1)
        for i in marks_place(maps).nonzero().flatten().tolist():
            if self.views == 1 or seeds is None or random_numbers(seeds[i], SHOWN_WHOLE).random() < 0.5:
                if self.threshold is None:
                    square = _holding(cells[i], self.mass, side / cell)
                else:
                    square = _around(cells[i], self.threshold)
                regions[i] = torch.tensor(self._enlarged(*square, cell, side))
        return regions

    def _enlarged(self, down: float, right: float, cells: int, cell: int, side: int) -> tuple[int, int, int, int]:
        """The region in pixels around a square of cells, with its center down and right, within the frame."""
        wanted = (1 + 2 * self.margin) * cells * cell
        pixels = max(1, round(min(max(wanted, self.smallest * side), side)))
        top, left = (min(max(round(center * cell - pixels / 2), 0), side - pixels) for center in (down, right))
        return top, left, pixels, pixels


def _holding(cells: Floats, mass: float, side: float) -> tuple[float, float, int]:
    """The smallest square of cells (n, n) that holds a share of their sum: its center down and right, and its side.

    Of several that of the largest sum, then the one nearest to the center of mass: what is longer than wide is in the
    middle. The largest sum grows with the side of the square, so the side is found by bisection. `side` is that of the
    frame in cells: the last row and column may be parts of cells.

    Returns:
        All in cells.
    """
    import numpy as np

    n = len(cells)
    covered = np.minimum(side - np.arange(n), 1)
    masses = cells * covered * covered[:, None]
    sums = np.zeros((n + 1, n + 1))
    sums[1:, 1:] = masses.cumsum(0).cumsum(1)
    wanted = mass * sums[-1, -1] * (1 - 1e-9)
    low, high = 1, n
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _squares(sums, middle).max() >= wanted else (middle + 1, high)
    squares = _squares(sums, low)
    centers = np.argwhere(squares >= squares.max() * (1 - 1e-9)) + low / 2
    middles = np.arange(n) + 0.5
    mean = np.array([masses.sum(1) @ middles, masses.sum(0) @ middles]) / sums[-1, -1]
    down, right = centers[((centers - mean) ** 2).sum(1).argmin()].tolist()
    return down, right, low


def _squares(sums: Floats, side: int) -> Floats:
    """Sums of all squares of `side` cells, from the two-dimensional cumulative sum (n + 1, n + 1)."""
    squares: Floats = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return squares


def _around(cells: Floats, threshold: float) -> tuple[float, float, int]:
    """The square around the cells (n, n) of at least a share of their maximum; see `_holding`."""
    import numpy as np

    down, right = np.nonzero(cells >= threshold * cells.max())
    top, bottom, left, end = int(down.min()), int(down.max()) + 1, int(right.min()), int(right.max()) + 1
    return (top + bottom) / 2, (left + end) / 2, max(bottom - top, end - left)
