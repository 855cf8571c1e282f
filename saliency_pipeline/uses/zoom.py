"""`zoom`: the network sees the part of the frame that the map marks, enlarged to the frame's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_pipeline.errors import OptionError
from saliency_pipeline.settings import setting
from saliency_pipeline.uses.use import Seeds, Use

if TYPE_CHECKING:
    from torch import Tensor

CELLS = 56
"""Maps are searched on a grid of at most this many cells per side."""

_ROUNDING = 1e-5


@dataclass(frozen=True)
class Zoom(Use):
    """Zoom: crop to where the map's mass is (after RA-CNN, Fu et al., CVPR 2017, and WS-DAN, arXiv 1901.09891).

    The region is the smallest square that holds a share of the map's mass, or the square around the cells of at least
    `threshold` times its maximum; `margin` times its side is added on each side. It lies within the frame. A constant
    map marks no place: the region is the whole frame.
    """

    name = "zoom"
    formula = "the smallest square with `mass` of the map's sum, or around map >= threshold * max, and a margin"
    paper = "arXiv:1901.09891"
    at_test = True

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
        from torch.nn.functional import adaptive_avg_pool2d

        side = maps.shape[-1]
        cells = adaptive_avg_pool2d(maps, min(side, CELLS))[:, 0].double()
        flat = cells.flatten(1)
        constant = flat.amax(1) - flat.amin(1) <= _ROUNDING * flat.abs().amax(1)
        squares = _holding(cells, self.mass) if self.threshold is None else _around(cells, self.threshold)
        regions = self._enlarged(squares, side)
        whole = torch.tensor([0, 0, side, side])
        if self.views == 2 and seeds is not None:
            constant = constant | torch.tensor([_shown_whole(seed) for seed in seeds])
        return torch.where(constant[:, None], whole, regions)

    def _enlarged(self, squares: Tensor, side: int) -> Tensor:
        """Regions (B, 4) in pixels from squares (B, 3) of center down, center right and side in [0, 1]."""
        import torch

        sides = ((1 + 2 * self.margin) * squares[:, 2]).clamp(self.smallest, 1.0)
        pixels = (sides * side).round().clamp(1, side).long()
        corner = (squares[:, :2] * side - pixels[:, None] / 2).round().long()
        corner = torch.minimum(corner.clamp_min(0), side - pixels[:, None])
        return torch.cat([corner, pixels[:, None], pixels[:, None]], 1)


def _holding(cells: Tensor, mass: float) -> Tensor:
    """The smallest square of cells of each map (B, n, n) with a share of its sum: center and side (B, 3) in [0, 1].

    Of several that of the largest sum, then the first in reading order. The largest sum grows with the side, so the
    side is found by bisection.
    """
    import torch
    from torch.nn.functional import pad

    count, n = len(cells), cells.shape[1]
    cells = cells.clamp_min(0)
    sums = pad(cells, (1, 0, 1, 0)).cumsum(1).cumsum(2)
    wanted = mass * sums[:, -1, -1] * (1 - 1e-9)
    best = torch.zeros(count, 3, dtype=torch.float64)
    for i in range(count):
        low, high = 1, n
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if bool(_squares(sums[i], middle).max() >= wanted[i]) else (middle + 1, high)
        place = int(_squares(sums[i], low).flatten().argmax())
        top, left = divmod(place, n - low + 1)
        best[i] = torch.tensor([top + low / 2, left + low / 2, low])
    return best / n


def _squares(sums: Tensor, side: int) -> Tensor:
    """Sums of all squares of `side` cells, from the two-dimensional cumulative sum (n + 1, n + 1)."""
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]


def _around(cells: Tensor, threshold: float) -> Tensor:
    """The square around the cells of each map (B, n, n) of at least a share of its maximum; see `_holding`."""
    import torch

    n = cells.shape[1]
    marked = cells >= threshold * cells.amax((1, 2), keepdim=True)
    places = torch.arange(n)
    ends = []
    for axis in (2, 1):
        lines = marked.any(axis)
        first = torch.where(lines, places, n).amin(1)
        last = torch.where(lines, places, -1).amax(1) + 1
        ends.append((first, last))
    (top, bottom), (left, right) = ends
    side = torch.maximum(bottom - top, right - left)
    return torch.stack([(top + bottom) / 2, (left + right) / 2, side], 1).double() / n


def _shown_whole(seed: object) -> bool:
    """One half of the images, by their own numbers."""
    import numpy as np

    state = np.random.SeedSequence([*map(int, seed), 1])  # type: ignore[call-overload]
    return bool(state.generate_state(1)[0] & 1)
