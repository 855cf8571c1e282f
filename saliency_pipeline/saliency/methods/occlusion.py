"""Occlusion and random masks: how the score changes if parts of the frame are replaced by the mean color.

The masks are the same for all images. They are made once per process and enlarged for a few passes at a time. A masked
frame is m x + (1 - m) c, with the mean color c of the source model's normalization, both in whole numbers from 0 to
255, as the network's frames are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saliency_pipeline.errors import OptionError
from saliency_pipeline.saliency.engine.masks import GridMasks, WindowMasks, bilinear, nearest, weighted_masks
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.random_numbers import generator
from saliency_pipeline.saliency.methods.method import Grids, Method, Setup
from saliency_pipeline.settings import SEEDS, setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

SHARED = "masks"
"""Key of the random numbers of masks that all images share."""

SCORES = ("logit", "probability")


@dataclass(frozen=True)
class Occlusion(Method):
    """Occlusion: the loss of the score where a window is replaced by the mean color, (N, T, S, S), signed.

    A pixel's value is the mean of y(x) - y(x without window) over the windows that contain it (Zeiler and Fergus,
    arXiv 1311.2901). Windows start every `stride` pixels, and the last ones end at the border, also if the stride does
    not fit. captum's Occlusion is the same with a baseline of 0, where the stride fits.
    """

    name = "occlusion"
    needs = Need.FORWARD
    convention = (
        "mean over the windows that contain a pixel of the score minus that with the window in the mean color; "
        "the last windows end at the border"
    )
    paper = "arXiv:1311.2901"
    signed = True

    window: int = setting(32, "Side of the window in pixels.", range=(1, 4096))
    stride: int = setting(16, "Distance of the windows in pixels.", range=(1, 4096))
    score: str = setting("logit", "Score of the class.", choices=SCORES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride > self.window:
            raise OptionError(
                f"--stride {self.stride}: it leaves gaps between windows of {self.window} pixels; "
                f"set stride to at most {self.window}"
            )

    @property
    def cost(self) -> float:
        return self.passes(Setup())

    def passes(self, setup: Setup) -> float:
        return float(len(self._masks(setup.size)))

    def maps(self, ask: Answers) -> Tensor:
        masks = self._masks(ask.size)
        scores, count = ask.masked(masks, mean_color(ask), self.score), len(masks.starts)
        drops = (scores[:, -1:] - scores[:, :-1]).transpose(1, 2).reshape(*scores.shape[::2], count, count)
        rows = masks.rows[:, :, 0].to(drops)
        # frame by frame, so that the rounding does not depend on their number
        sums = torch.stack([rows.t() @ own @ rows for own in drops])
        covered = rows.sum(0)
        return sums / (covered[:, None] * covered)

    def _masks(self, size: int) -> WindowMasks:
        side = min(self.window, size)
        starts = list(range(0, size - side + 1, self.stride))
        if starts[-1] < size - side:
            starts.append(size - side)
        return WindowMasks.of(starts, side, size)


@dataclass(frozen=True)
class Rise(Method):
    """RISE: sum_k s(m_k x) m_k / (K p), the mean score of random masks that keep a pixel, (N, T, S, S).

    Each mask is a grid of independent cells that are 1 with probability p, enlarged bilinearly to a grid with one more
    cell and shifted by a random number of pixels (Petsiuk et al., arXiv 1806.07421). The score s is the
    softmax, as in the paper. Masked pixels have the mean color. The Monte Carlo standard error is stored per map.

    All values contain the mean score of all masks. `debiased` subtracts that from each score, so that maps are signed,
    and their errors smaller: what remains is the covariance of score and mask, divided by p.
    """

    name = "rise"
    needs = Need.FORWARD
    convention = (
        "sum_k s(m_k x + (1 - m_k) mean color) m_k / (K p), random grids enlarged bilinearly and shifted; if debiased, "
        "the mean over k is subtracted from s"
    )
    paper = "arXiv:1806.07421"
    sampled = True

    masks: int = setting(1000, "Number of random masks.", range=(2, 100_000))
    cells: int = setting(7, "Cells per side of a mask.", range=(1, 64))
    p: float = setting(0.5, "Probability that a cell stays.", range=(0.01, 0.99))
    score: str = setting("probability", "Score of the class.", choices=SCORES)
    debiased: bool = setting(False, "Subtract the mean score of all masks, which is part of all values otherwise.")
    seed: int = setting(0, "Random seed of the masks.", range=SEEDS)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "signed", self.debiased)

    @property
    def cost(self) -> float:
        return float(self.masks)

    def maps(self, ask: Answers) -> Tensor:
        scores = self._scores(ask)
        return (self._sums(ask, scores, 1) / (self.masks * self.p)).float()

    def standard_errors(self, ask: Answers, maps: Tensor) -> Tensor:
        # of the terms s m / p, whose mean a pixel's value is
        squares = self._sums(ask, self._scores(ask), 2) / (self.masks * self.p**2)
        variance = (squares - maps.double().square()).clamp_min(0) / (self.masks - 1)
        spread = maps.amax((2, 3)) - maps.amin((2, 3))
        return (variance.mean((2, 3)).sqrt() / spread).float()

    def _scores(self, ask: Answers) -> Tensor:
        """(N, T, K), the same for the maps and their errors."""
        masks = random_masks(self.masks, self.cells, self.p, self.seed, ask.size)
        key = (self.name, self.masks, self.cells, self.p, self.seed, self.score)
        scores = ask.once(key, lambda: ask.masked(masks, mean_color(ask), self.score).transpose(1, 2).contiguous())
        # frame by frame, so that the rounding does not depend on their number
        return torch.stack([own - own.mean(1, keepdim=True) for own in scores]) if self.debiased else scores

    def _sums(self, ask: Answers, scores: Tensor, power: int) -> Tensor:
        masks = random_masks(self.masks, self.cells, self.p, self.seed, ask.size).to(scores.device)
        return weighted_masks(masks, scores**power, power)


@dataclass(frozen=True)
class Hsic(Method):
    """HSIC: dependence of the score on each cell of a grid, (N, T, grid, grid), >= 0.

    The Hilbert-Schmidt independence criterion tr(K H L H) / (n - 1)^2 between whether a cell is masked and the score,
    over n masks in which each cell is masked in half (Novello et al., arXiv 2206.06219). K_ab is 1/2 where masks a and
    b agree on the cell and -1/2 elsewhere, L_ab = exp(-(y_a - y_b)^2 / (2 w^2)), w the median distance of two scores,
    and H centers. A map is not signed: a cell that speaks against the class counts as much as one that speaks for it.
    """

    name = "hsic"
    needs = Need.FORWARD
    convention = (
        "tr(K H L H) / (n - 1)^2 of each cell, K = 1/2 or -1/2 where two masks agree or not, L a Gaussian kernel of "
        "the scores whose width is their median distance, H centers; masked cells have the mean color"
    )
    paper = "arXiv:2206.06219"

    grid: int = setting(8, "Cells per side of the map.", range=(1, 32))
    samples: int = setting(500, "Number of random masks.", range=(2, 20_000))
    score: str = setting("logit", "Score of the class.", choices=SCORES)
    seed: int = setting(0, "Random seed of the masks.", range=SEEDS)

    @property
    def cost(self) -> float:
        return float(self.samples)

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        return self.grid, self.grid

    def maps(self, ask: Answers) -> Tensor:
        masks = balanced_masks(self.samples, self.grid, self.seed, ask.size)
        scores = ask.masked(masks, mean_color(ask), self.score).double()
        signs = 2 * masks.grids.to(scores).flatten(1) - 1
        maps = torch.stack([torch.stack([hsic(signs, own) for own in each.t()]) for each in scores])
        return maps.float().view(*maps.shape[:2], self.grid, self.grid)


def mean_color(ask: Answers) -> Tensor:
    """The mean color of the normalization, RGB in whole numbers from 0 to 255, as (3,) float32."""
    return torch.tensor(ask.color_of_zero(), dtype=torch.float32)


@lru_cache(maxsize=4)
def random_masks(count: int, cells: int, p: float, seed: int, size: int) -> GridMasks:
    """Masks of RISE, of random numbers that depend on the seed alone: the first of many are those of few.

    Args:
        count: number of masks.
        cells: cells per side.
        p: probability that a cell stays.
        seed: random seed.
        size: S, side of the frame in pixels.
    """
    rng = generator(SHARED, "rise", seed)
    cell = -(-size // cells)
    grids, places = np.empty((count, cells, cells), np.bool_), np.empty((count, 2), np.int64)
    # one after the other, whatever their number, and little memory for many
    for mask, place in zip(grids, places, strict=True):
        numbers = rng.random(cells * cells + 2)
        place[:] = numbers[:2] * cell
        mask[:] = (numbers[2:] < p).reshape(cells, cells)
    # one matrix per shift
    shifted = bilinear((cells + 1) * cell, cells).unfold(0, size, 1)[:cell].transpose(1, 2)
    return GridMasks(torch.from_numpy(grids), shifted, shifted, torch.from_numpy(places))


@lru_cache(maxsize=4)
def balanced_masks(count: int, cells: int, seed: int, size: int) -> GridMasks:
    """Masks of HSIC: grids whose cells each stay in half of the masks, independently of one another.

    That is a Latin hypercube sample of the unit cube rounded to 0 and 1. Arguments are those of `random_masks`.
    """
    rng = generator(SHARED, "hsic", seed)
    half = np.tile(np.arange(count) % 2 == 1, (cells * cells, 1))
    grids = torch.from_numpy(rng.permuted(half, axis=1).T.copy()).view(count, cells, cells)
    matrix = nearest(size, cells)[None]
    return GridMasks(grids, matrix, matrix)


def hsic(signs: Tensor, scores: Tensor, rows: int = 500) -> Tensor:
    """HSIC of J cells and a score: (J,) >= 0.

    Args:
        signs: (n, J) float64, 1 where a cell stays in a mask and -1 where it is masked.
        scores: (n,) float64.
        rows: rows of the scores' kernel at a time. The median distance is that of the first 1000 scores.
    """
    count, centered = len(scores), signs - signs.mean(0)
    width = torch.pdist(scores[:1000, None]).median()
    # scores that are all equal depend on nothing
    scaled = scores / torch.where(width > 0, width, 1.0)
    parts = []
    for start in range(0, count, rows):
        kernel = (-(scaled[start : start + rows, None] - scaled).square() / 2).exp()
        parts.append(((kernel @ centered) * centered[start : start + rows]).sum(0))
    return torch.stack(parts).sum(0).clamp_min(0) / (2 * (count - 1) ** 2)
