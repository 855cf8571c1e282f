"""ROAD: the score of the class as removed pixels are imputed from their neighbors, and the solver of the imputation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from saliency_pipeline.assessment.inquiry import ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.metric import Column, Cost, Curve, Metric, Values
from saliency_pipeline.figures.pictures import Pixels
from saliency_pipeline.saliency.engine.random_numbers import generator
from saliency_pipeline.settings import SEEDS, check_settings, setting

Floats = npt.NDArray[np.float32]

NOISE = 0.01 * 255
"""Standard deviation, in gray levels, of the noise that imputed pixels have."""

_COARSER = 5
_AXES = "Share of pixels removed", "Softmax of the explained class"


@dataclass(frozen=True)
class Road(Metric):
    """Half the gap between p_c, the softmax of the explained class, as the least and the most salient are removed.

    ROAD = mean over the levels of (p_LeRF - p_MoRF) / 2, in [-1/2, 1/2], where the frame without a share of its pixels,
    the least or the most relevant first, is imputed (`imputed`): each missing pixel is the mean of its neighbors,
    weighted 1/6 at an edge and 1/12 at a corner, and then gets Gaussian noise of 0.01 in units of [0, 1], so that the
    network does not see the smooth shape of the hole. The noise of an image is the same for all levels and methods.
    Frames are rounded to whole gray levels, which changed p by 0.002 on average (EfficientNet-Lite0, half removed).

    The half is pytorch-grad-cam's (`ROADCombined`, with softmax as its target); the paper reports the accuracy of the
    prediction by level. pytorch-grad-cam imputes the normalized input, which is the same, but adds noise of 0.01 there.
    The number of removed pixels is exact, also where values of the map are equal (`Inquiry.order`). Large smooth holes
    are easier to see than scattered ones: blurry maps score higher (arXiv:2304.13836).

    Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022, arXiv:2202.00449.
    """

    name: ClassVar[str] = "road"
    columns: ClassVar[tuple[Column, ...]] = (Column("road", "ROAD", higher=True, low=-0.5, high=0.5),)
    curves: ClassVar[tuple[Curve, ...]] = (
        Curve("road-morf", "ROAD, most relevant first", *_AXES),
        Curve("road-lerf", "ROAD, least relevant first", *_AXES),
    )
    cost: ClassVar[Cost] = Cost.SCORES
    definition: ClassVar[str] = (
        "Mean over shares of removed and imputed pixels of half the difference between the softmax of the explained "
        "class without the least and without the most salient pixels: mean (p_LeRF - p_MoRF) / 2"
    )
    paper: ClassVar[str] = "Rong et al. 2022, arXiv:2202.00449"

    levels: int = setting(9, "Number of shares of removed pixels; 9 are 10 %, 20 %, ..., 90 %.", range=(1, 99))
    seed: int = setting(0, "Random seed of the noise.", range=SEEDS)

    def __post_init__(self) -> None:
        check_settings(self)

    def points(self, curve: str) -> npt.NDArray[np.float64]:
        """Shares (levels,) of removed pixels."""
        if curve not in (own.name for own in self.curves):
            raise KeyError(curve)
        return np.arange(1, self.levels + 1) / (self.levels + 1)

    def values(self, ask: Inquiry) -> Values:
        noise = ask.batch.once(("road", self.seed), lambda: _noise(ask.batch, self.seed))
        count = ask.batch.size**2
        removed = [min(round(count * share), count - 1) for share in self.points("road-morf")]
        spans = [slice(0, n) for n in removed] + [slice(count - n, count) for n in removed]
        scores = []
        # few at a time, so that the solver stays within the processor's cache
        for part in (spans[start : start + 9] for start in range(0, len(spans), 9)):
            frames = np.empty((len(part), *ask.batch.frames.shape), np.uint8)
            for image in range(len(ask)):
                missing = np.zeros((len(part), count), np.bool_)
                for row, span in zip(missing, part, strict=True):
                    row[ask.order[image, span]] = True
                grid = missing.reshape(-1, ask.batch.size, ask.batch.size)
                frames[:, image] = _noisy(ask.batch.frames[image], grid, noise[image])
            scores += [ask.batch.scores(own) for own in frames]
        morf, lerf = np.stack(scores[: self.levels], 1), np.stack(scores[self.levels :], 1)
        return {"road": (lerf - morf).mean(1) / 2, "road-morf": morf, "road-lerf": lerf}


def imputed(frame: npt.ArrayLike, missing: npt.NDArray[np.bool_], tolerance: float = 1.0) -> torch.Tensor:
    """Replace missing pixels by the weighted means of their eight neighbors, of which some may be missing themselves.

    The linear system, sum_j w_ij (x_i - x_j) = 0 for each missing pixel i with neighbors j inside the frame, is
    symmetric and positive definite, and solved without a matrix by conjugate gradients, preconditioned by a multigrid
    V-cycle, for all levels and colors at once. It ends when no pixel has changed by more than the tolerance in an
    iteration. Each reduces the error to about a quarter: on photographs of 224 pixels no pixel was off by more than 0.2
    gray levels, by 0.01 on average, where the noise has a standard deviation of 2.55.

    Args:
        frame: (S, S, 3), 0 to 255.
        missing: (L, S, S), in each of which at least one pixel is not missing.
        tolerance: in gray levels.

    Returns:
        (L, S, S, 3) float32.
    """
    levels, side = len(missing), missing.shape[1]
    margin = -side % 2**_COARSER
    shape = side, side, levels, 3

    def channels(each: torch.Tensor) -> torch.Tensor:
        # one channel per level and color, last in memory, without which convolutions take many times as long
        flat = each.float().expand(shape).reshape(side, side, -1)
        return pad(flat, (0, 0, 0, margin, 0, margin))[None].permute(0, 3, 1, 2)

    values = channels(torch.as_tensor(np.asarray(frame, np.float32))[:, :, None])
    missed = channels(torch.from_numpy(missing).permute(1, 2, 0)[..., None])
    solved = _solve(values, _grids(missed, channels(torch.ones(1))), tolerance)
    return solved[0, :, :side, :side].permute(1, 2, 0).reshape(shape).permute(2, 0, 1, 3)


class _Grid(NamedTuple):
    """One grid of the multigrid, each (1, C, h, w).

    Attributes:
        missing: 1 for unknown pixels, else 0.
        diagonal: 12 times the sum of the weights of a pixel's neighbors inside the frame.
        inverse: 1 / diagonal for unknown pixels, else 0.
    """

    missing: torch.Tensor
    diagonal: torch.Tensor
    inverse: torch.Tensor


def _neighbors(x: torch.Tensor) -> torch.Tensor:
    """12 times the weighted sum of each pixel's neighbors."""
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 1.0]], dtype=x.dtype)
    return conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])


def _grids(missing: torch.Tensor, inside: torch.Tensor) -> list[_Grid]:
    """The grid itself and coarser ones, in which a pixel is unknown if all pixels that it covers are."""
    grids = []
    for depth in range(_COARSER + 1):
        if depth:
            values = avg_pool2d(inside - missing, 2)
            inside = (avg_pool2d(inside, 2) > 0).to(inside.dtype)
            missing = inside * (values == 0)
        diagonal = _neighbors(inside)
        grids.append(_Grid(missing, diagonal, missing / diagonal.clamp(min=1.0)))
    return grids


def _solve(values: torch.Tensor, grids: list[_Grid], tolerance: float) -> torch.Tensor:
    missing, diagonal = grids[0].missing, grids[0].diagonal
    present = (diagonal > 0).to(values.dtype) - missing
    mean = (values * present).sum((2, 3), keepdim=True) / present.sum((2, 3), keepdim=True)
    x = torch.lerp(values, mean, missing)
    residual = _image(x, grids[0])
    direction, before = torch.zeros_like(x), torch.ones_like(mean)
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(100):
        preconditioned = _v_cycle(residual, grids)
        product = (residual * preconditioned).sum((2, 3), keepdim=True)
        direction = direction.mul_(product / before.clamp(min=tiny)).add_(preconditioned)
        change = _image(direction, grids[0])
        length = product / (direction * change).sum((2, 3), keepdim=True).neg_().clamp(min=tiny)
        residual.addcmul_(change, length)
        step = direction * length
        x += step
        before = product
        if step.abs_().max() <= tolerance:
            break
    return x


def _image(x: torch.Tensor, grid: _Grid) -> torch.Tensor:
    """The negative of the system's matrix times x, at unknown pixels."""
    return _neighbors(x).addcmul_(grid.diagonal, x, value=-1).mul_(grid.missing)


def _v_cycle(residual: torch.Tensor, grids: list[_Grid]) -> torch.Tensor:
    """An approximate solution for a residual, 0 at present pixels: Jacobi sweeps on each grid, symmetric as a whole."""
    grid, coarser = grids[0], grids[1:]
    x = _sweeps(grid.inverse * residual, residual, grid.inverse, 1 if coarser else 12)
    if not coarser:
        return x
    coarse = _v_cycle(avg_pool2d(_image(x, grid).add_(residual), 2, divisor_override=1), coarser)
    x.addcmul_(grid.missing, interpolate(coarse, scale_factor=2.0, mode="nearest"))
    return _sweeps(x, residual, grid.inverse, 2)


def _sweeps(x: torch.Tensor, residual: torch.Tensor, inverse: torch.Tensor, count: int) -> torch.Tensor:
    for _ in range(count):
        x = _neighbors(x).add_(residual).mul_(inverse)
    return x


def _noise(batch: ImageBatch, seed: int) -> Floats:
    """Standard normal (B, S, S, 3) float32."""
    shape = batch.frames.shape[1:]
    return np.stack([generator(key, "road", seed).standard_normal(shape, np.float32) for key in batch.keys])


def _noisy(frame: Pixels, missing: npt.NDArray[np.bool_], noise: Floats) -> Pixels:
    """One frame (S, S, 3), imputed with noise and rounded to whole gray levels: (L, S, S, 3) uint8."""
    values = imputed(frame, missing)
    values.addcmul_(torch.from_numpy(missing)[..., None].float(), torch.from_numpy(NOISE * noise))
    return np.asarray(values.round_().clamp_(0, 255).byte().numpy())
