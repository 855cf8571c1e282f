"""Robustness: how much maps change with frames that look the same, and how well they predict changes of the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saliency_pipeline.assessment.inquiry import Floats, ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.metric import Column, Cost, Metric, Values
from saliency_pipeline.figures.pictures import Pixels
from saliency_pipeline.saliency.engine.random_numbers import generator
from saliency_pipeline.settings import SEEDS, check_settings, setting

LEVELS = 255


def explained(ask: Inquiry) -> Floats | None:
    """Maps (B, h, w) of the frames as they are, computed like those of changed frames; None if the method cannot.

    Stored maps are rounded, and were perhaps computed with another precision, which would count as a change.
    """
    return ask.once("explained", lambda: ask.explain(ask.batch.frames))


@dataclass(frozen=True)
class MaxSensitivity(Metric):
    """Max-sensitivity: max_k ||E(x + d_k) - E(x)|| / ||E(x)||, >= 0, lower is better.

    E is the map at its own resolution, for the same class always, and the norm the Frobenius norm. The noise d_k is
    uniform, independent for each color of each pixel, in whole levels of the uint8 frame from -l to l, with l the
    radius times 255 rounded: 5 levels by default. Values beyond black or white are clipped. Noise depends on the
    image's key and is the same for all methods. Yeh et al. 2019, arXiv 1901.09392; captum's `sensitivity_max` has a
    radius of 0.02 in normalized units, which is about one level. Maps that explain no class have it as well; those that
    ignore the image have 0. A map of zeros has 0 if those of all noisy frames are, and no value otherwise.
    """

    name = "max-sensitivity"
    columns = (Column("max-sensitivity", "Max-sensitivity", higher=False, high=None),)
    cost = Cost.EXPLANATIONS
    definition = "max over noisy frames x + d of ||E(x + d) - E(x)|| / ||E(x)||, d uniform in [-r, r]"
    paper = "Yeh et al. 2019, arXiv:1901.09392"

    samples: int = setting(10, "Number of noisy frames.", range=(1, 1000))
    radius: float = setting(0.02, "Largest noise, as a share of the 255 levels of a color.", range=(0.004, 1.0))
    seed: int = setting(0, "Random seed.", range=SEEDS)

    def __post_init__(self) -> None:
        check_settings(self)

    def values(self, ask: Inquiry) -> Values:
        clean = explained(ask)
        if clean is None:
            return {self.name: np.full(len(ask), np.nan)}
        largest = np.zeros(len(ask))
        for sample in range(self.samples):
            noisy = ask.explain(self._noisy(ask.batch, sample))
            assert noisy is not None
            largest = np.maximum(largest, _norms(noisy.astype(np.float64) - clean))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = largest / _norms(clean.astype(np.float64))
        return {self.name: np.where(largest == 0, 0.0, np.where(np.isfinite(ratio), ratio, np.nan))}

    def _noisy(self, batch: ImageBatch, sample: int) -> Pixels:
        level = round(self.radius * LEVELS)
        frames = np.empty_like(batch.frames)
        for frame, key, noisy in zip(batch.frames, batch.keys, frames, strict=True):
            noise = generator(key, self.name, self.seed, sample).integers(
                -level, level, frame.shape, np.int16, endpoint=True
            )
            noisy[:] = np.clip(frame + noise, 0, LEVELS)
        return frames


@dataclass(frozen=True)
class Infidelity(Metric):
    """Infidelity: mean_k (b sum of E in square k - (p(x) - p(x without square k)))^2, in [0, 1], lower is better.

    A square without its content has the color that normalization maps to 0. p is the softmax of the explained class, as
    in all metrics, and b, for each image and method, the factor that makes the mean smallest: the normalized form of
    captum's `infidelity`, with which the scale of maps does not matter, nor does the sign of a whole map. Squares are
    random, the same for all methods. A sum is the product I . E of the paper for maps that attribute the difference
    from that color to pixels, as integrated gradients do: their multipliers times the perturbation. Yeh et al. 2019,
    arXiv 1901.09392, with the removal of squares. Only signed maps with a value for each pixel have it.
    """

    name = "infidelity"
    columns = (Column("infidelity", "Infidelity", higher=False),)
    cost = Cost.SCORES
    signed_only = True
    optional = True
    definition = "mean over random squares of (b sum of the map - (p(x) - p(x without it)))^2, b the best factor"
    paper = "Yeh et al. 2019, arXiv:1901.09392"

    samples: int = setting(50, "Number of squares.", range=(1, 10_000))
    side: float = setting(0.25, "Side of a square, relative to the frame's.", range=(0.01, 1.0))
    seed: int = setting(0, "Random seed.", range=SEEDS)

    def __post_init__(self) -> None:
        check_settings(self)

    def values(self, ask: Inquiry) -> Values:
        size = ask.batch.size
        if not ask.signed or ask.maps.shape[1:] != (size, size):
            return {self.name: np.full(len(ask), np.nan)}
        corners = self._corners(ask.batch)
        key = (self.name, self.samples, self.side, self.seed)
        drops = ask.batch.once(key, lambda: self._drops(ask.batch, corners))
        sums = _sums(ask.maps, corners, self._pixels(size))
        power, product = (sums**2).sum(1), (sums * drops).sum(1)
        factor = np.divide(product, power, out=np.ones_like(power), where=power > 0)
        return {self.name: ((factor[:, None] * sums - drops) ** 2).mean(1)}

    def _pixels(self, size: int) -> int:
        return max(1, round(self.side * size))

    def _corners(self, batch: ImageBatch) -> npt.NDArray[np.int64]:
        """Row and column (B, samples, 2) of the first pixel of each square."""
        last = batch.size - self._pixels(batch.size)
        sources = (generator(key, self.name, self.seed) for key in batch.keys)
        return np.stack([source.integers(0, last, (self.samples, 2), endpoint=True) for source in sources])

    def _drops(self, batch: ImageBatch, corners: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """p(x) - p(x without the square), (B, samples)."""
        side = self._pixels(batch.size)
        assert batch.network is not None
        drops = np.empty((len(batch), self.samples))
        for sample in range(self.samples):
            frames = batch.frames.copy()
            for frame, (row, column) in zip(frames, corners[:, sample], strict=True):
                frame[row : row + side, column : column + side] = batch.network.color
            drops[:, sample] = batch.clean() - batch.scores(frames)
        return drops


def _norms(maps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Frobenius norms (B,) of maps (B, h, w)."""
    return np.asarray(np.sqrt((maps**2).sum((1, 2))))


def _sums(maps: Floats, corners: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.float64]:
    """Sums (B, n) of maps (B, S, S) in squares with the given first pixels (B, n, 2)."""
    table = np.zeros((len(maps), maps.shape[1] + 1, maps.shape[2] + 1))
    table[:, 1:, 1:] = maps.astype(np.float64).cumsum(1).cumsum(2)
    image, row, column = np.arange(len(maps))[:, None], corners[..., 0], corners[..., 1]
    upper = table[image, row, column + side] - table[image, row, column]
    return np.asarray(table[image, row + side, column + side] - table[image, row + side, column] - upper)
