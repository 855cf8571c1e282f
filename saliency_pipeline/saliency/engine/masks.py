"""Masks: shares of each pixel that stay, stored small and enlarged for a few passes at a time; scores of masked frames.

Memory does not grow with the number of masks. A mask always has the same place in its chunk, and chunks contain masks
of one frame only, so that a score depends neither on the other frames nor on how many there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CHUNK = 16
"""Least number of masks per chunk, which is a multiple of the network's batch size."""

COLORS = 3


class Masks(ABC):
    """K masks in [0, 1] of frames with S pixels per side: the share of each pixel that stays."""

    @abstractmethod
    def __len__(self) -> int:
        """K."""

    @abstractmethod
    def enlarged(self, index: Tensor) -> Tensor:
        """Some of the masks: (M, S, S) float32, or (M, S, 3 S) of `interleaved` masks, for indices (M,) below K."""

    @abstractmethod
    def interleaved(self) -> Masks:
        """The same masks with each value once per color, in the order of a frame's memory: RGB RGB ..."""

    @abstractmethod
    def to(self, device: torch.device) -> Masks:
        """The same masks on another device."""


@dataclass(frozen=True)
class GridMasks(Masks):
    """Enlarged grids, rows_k grid_k columns_k^T, or 1 minus that.

    Attributes:
        grids: (K, a, b), float32 or bool.
        rows: (U, S, a) float32, matrices that enlarge a grid's columns; all masks use the first without `places`.
        columns: (V, S, b) float32, matrices that enlarge a grid's rows.
        places: (K, 2) int64, each mask's index into `rows` and `columns`; None if there is one matrix of each.
        removed: whether grids contain the share that is replaced instead of the one that stays.
    """

    grids: Tensor
    rows: Tensor
    columns: Tensor
    places: Tensor | None = None
    removed: bool = False

    def __len__(self) -> int:
        return len(self.grids)

    def enlarged(self, index: Tensor) -> Tensor:
        """See `Masks`."""
        rows, columns = self.rows, self.columns
        if self.places is not None:
            chosen = self.places[index]
            rows, columns = rows[chosen[:, 0]], columns[chosen[:, 1]]
        values = rows @ (self.grids[index].to(rows.dtype) @ columns.transpose(1, 2))
        return values.neg_().add_(1) if self.removed else values

    def interleaved(self) -> GridMasks:
        """See `Masks`."""
        return replace(self, columns=self.columns.repeat_interleave(COLORS, 1))

    def to(self, device: torch.device) -> GridMasks:
        """See `Masks`."""
        places = None if self.places is None else self.places.to(device)
        return replace(
            self,
            grids=self.grids.to(device),
            rows=self.rows.to(device),
            columns=self.columns.to(device),
            places=places,
        )


@dataclass(frozen=True)
class WindowMasks(GridMasks):
    """Masks that each replace one square window, row by row, and a last one that replaces nothing: P^2 + 1 masks.

    Attributes:
        starts: first row, or column, of each of the P windows along a side.
        side: of the windows in pixels.
    """

    starts: tuple[int, ...] = ()
    side: int = 0

    @classmethod
    def of(cls, starts: Sequence[int], side: int, size: int) -> WindowMasks:
        """The masks of a frame with `size` pixels per side."""
        inside = torch.zeros(len(starts), size, 1)
        for window, start in zip(inside, starts, strict=True):
            window[start : start + side] = 1
        windows = torch.arange(len(starts))
        # the window of the last mask is not removed
        grids = torch.ones(len(starts) ** 2 + 1, 1, 1)
        grids[-1] = 0
        places = torch.cartesian_prod(windows, windows)
        return cls(grids, inside, inside, torch.cat([places, places[-1:]]), True, tuple(starts), side)


@dataclass(frozen=True)
class SegmentMasks(Masks):
    """Masks that are constant on each segment of a frame.

    Attributes:
        shares: (K, J) float32, the share of each of J segments that stays.
        segments: (S, S) int64, the segment of each pixel.
    """

    shares: Tensor
    segments: Tensor

    def __len__(self) -> int:
        return len(self.shares)

    def enlarged(self, index: Tensor) -> Tensor:
        """See `Masks`."""
        values = self.shares[index].index_select(1, self.segments.flatten())
        return values.view(len(index), *self.segments.shape)

    def interleaved(self) -> SegmentMasks:
        """See `Masks`."""
        return replace(self, segments=self.segments.repeat_interleave(COLORS, 1))

    def to(self, device: torch.device) -> SegmentMasks:
        """See `Masks`."""
        return SegmentMasks(self.shares.to(device), self.segments.to(device))


def bilinear(size: int, cells: int) -> Tensor:
    """The matrix (size, cells) float32 that enlarges bilinearly, with half-pixel centers and clamped at the border.

    It is `interpolate(mode="bilinear", align_corners=False)` of one dimension.

    >>> bilinear(4, 2).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    position = ((torch.arange(size, dtype=torch.float64) + 0.5) * cells / size - 0.5).clamp(0, cells - 1)
    distance = (position[:, None] - torch.arange(cells, dtype=torch.float64)).abs()
    return (1 - distance).clamp_min(0).float()


def nearest(size: int, cells: int) -> Tensor:
    """The matrix (size, cells) float32 that repeats each cell: pixel i is in cell floor((i + 0.5) cells / size).

    >>> nearest(3, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    cell = ((torch.arange(size, dtype=torch.float64) + 0.5) * cells / size).long()
    return torch.nn.functional.one_hot(cell, cells).float()


def chunks(total: int, batch: int) -> Iterator[tuple[int, int]]:
    """First mask and number of masks of each chunk, whole batches of passes even in the last one."""
    step = batch * -(-CHUNK // batch)
    for start in range(0, total, step):
        yield start, min(step, batch * -(-(total - start) // batch))


def masked_scores(
    frames: Tensor,
    masks: Masks | Sequence[Masks],
    fill: Tensor,
    score_of: Callable[[int, Tensor], Tensor],
    batch: int,
) -> Tensor:
    """Scores (N, K, T) of frames that are partly replaced.

    A frame x with mask m is m x + (1 - m) fill, rounded to whole numbers, half up.

    Args:
        frames: (N, S, S, 3) uint8.
        masks: K masks that all frames share, or K masks for each of them.
        fill: RGB in [0, 255], broadcast to (N, S, S, 3) float32, on the device of the frames.
        score_of: the index n of a frame and masked frames (M, S, S, 3) uint8 to T scores of each, (M, T).
        batch: M is a multiple of it.
    """
    count, size, device = len(frames), frames.shape[1], frames.device
    wide = (count, size, COLORS * size)
    # The half makes the conversion, which rounds down, round to nearest.
    base = (fill.expand(frames.shape) + 0.5).reshape(wide)
    change = frames.float().reshape(wide).add_(0.5).sub_(base)
    shared = isinstance(masks, Masks)
    each = [own.to(device).interleaved() for own in ([masks] if isinstance(masks, Masks) else masks)]
    total, parts = len(each[0]), []
    _, largest = next(chunks(total, batch))
    values = torch.empty((largest, size, COLORS * size), device=device)
    mixed = torch.empty((largest, size, COLORS * size), dtype=torch.uint8, device=device)
    for start, masked in chunks(total, batch):
        index = torch.arange(start, start + masked, device=device).clamp_max_(total - 1)
        enlarged = each[0].enlarged(index) if shared else None
        scores = []
        for n in range(count):
            own = each[n].enlarged(index) if enlarged is None else enlarged
            part = mixed[:masked].copy_(torch.addcmul(base[n], change[n], own, out=values[:masked]))
            scores.append(score_of(n, part.view(masked, size, size, COLORS))[: total - start])
        parts.append(torch.stack(scores))
    return torch.cat(parts, 1)


def weighted_masks(masks: Masks, weights: Tensor, power: int = 1, step: int = CHUNK) -> Tensor:
    """sum_k w_k m_k^power for each row of weights (N, T, K): (N, T, S, S) float64, one matrix product per chunk.

    Args:
        masks: K masks that all frames share, on the device of the weights.
        weights: (N, T, K); each frame's product has the same shape, whatever N is.
        power: exponent of the masks.
        step: masks per chunk.
    """
    total = len(masks)
    sums: Tensor | None = None
    for start in range(0, total, step):
        enlarged = masks.enlarged(torch.arange(start, min(start + step, total), device=weights.device))
        flat = (enlarged if power == 1 else enlarged**power).flatten(1)
        part = torch.stack([rows @ flat for rows in weights[:, :, start : start + step]]).double()
        sums = part if sums is None else sums.add_(part)
    assert sums is not None
    return sums.view(*weights.shape[:2], *enlarged.shape[1:])
