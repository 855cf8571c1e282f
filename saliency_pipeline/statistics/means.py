"""Means over images with bootstrap intervals, of many quantities that share the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saliency_pipeline.statistics.images import RESAMPLES, constant_interval
from saliency_pipeline.statistics.power import LEVEL

Values = npt.NDArray[np.float64]

LARGE = 2000
"""Number of images above which intervals are the mean ± 1.96 standard errors, which the bootstrap's then equal."""

_Z = 1.959963984540054
_BLOCK = 100


@dataclass(frozen=True)
class Means:
    """Means of K quantities over the images that have a value.

    Attributes:
        mean: (K,) float64; NaN for a quantity without values.
        low: (K,) float64, lower end of the 95 % interval; NaN where there is none.
        high: (K,) float64, its upper end.
        error: (K,) float64, standard error of the mean; NaN for fewer than two values.
        count: (K,) int64, number of images with a value.
    """

    mean: Values
    low: Values
    high: Values
    error: Values
    count: npt.NDArray[np.int64]


def means_of_images(
    values: Values, lowest: float | None = None, highest: float | None = None, *, seed: int = 0
) -> Means:
    """Compute the mean of each quantity and its 95 % interval, by resampling images.

    All quantities are computed from the same resamples of the images that have any value (percentile bootstrap); in
    each, a quantity's mean is over the images that have a value of it. Where all values of a quantity are equal, as of
    a single image, percentiles collapse to a point: the interval is that of `images.constant_interval` if the smallest
    and greatest possible values are known, else there is none. With more than `LARGE` images it is the normal one.

    Args:
        values: (N, K) float64, NaN where an image has no value.
        lowest: smallest possible value, or None.
        highest: greatest possible value, or None.
        seed: random seed of the resamples.

    >>> result = means_of_images(np.array([[0.0, 1.0], [1.0, np.nan], [1.0, np.nan]]), 0.0, 1.0)
    >>> result.mean.round(3).tolist(), result.count.tolist(), result.low.round(3).tolist()
    ([0.667, 1.0], [3, 1], [0.0, 0.207])
    """
    values = values[~np.isnan(values).all(1)]
    present = ~np.isnan(values)
    count = present.sum(0)
    filled = np.where(present, values, 0.0)
    mean = np.where(count > 0, filled.sum(0) / np.maximum(count, 1), np.nan)
    squares = np.where(present, (values - mean) ** 2, 0.0).sum(0)
    error = np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1) / np.maximum(count, 1)), np.nan)
    smallest = np.where(present, values, np.inf).min(0, initial=np.inf)
    varies = (count > 1) & (np.where(present, values, -np.inf).max(0, initial=-np.inf) > smallest)
    low, high = np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    if lowest is not None and highest is not None:
        for column in np.flatnonzero((count > 0) & ~varies):
            low[column], high[column] = constant_interval(float(mean[column]), int(count[column]), lowest, highest)
    # the mean of equal values is rounded, and so is its error
    mean = np.where((count > 0) & ~varies, smallest, mean)
    error = np.where((count > 1) & ~varies, 0.0, error)
    if len(values) > LARGE:
        low = np.where(varies, np.maximum(mean - _Z * error, -np.inf if lowest is None else lowest), low)
        high = np.where(varies, np.minimum(mean + _Z * error, np.inf if highest is None else highest), high)
    elif varies.any():
        means = _resampled(filled[:, varies], present[:, varies].astype(np.float64), seed)
        low[varies], high[varies] = np.nanpercentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0)
    return Means(mean, low, high, error, count)


def _resampled(filled: Values, present: Values, seed: int) -> Values:
    """Return the means (RESAMPLES, K) of resamples of the images; NaN where no image of a resample has a value."""
    random, images = np.random.default_rng(seed), len(filled)
    means = np.empty((RESAMPLES, filled.shape[1]))
    for start in range(0, RESAMPLES, _BLOCK):
        chosen = random.integers(0, images, (_BLOCK, images)) + images * np.arange(_BLOCK)[:, None]
        times = np.bincount(chosen.ravel(), minlength=_BLOCK * images).reshape(_BLOCK, images).astype(np.float64)
        counts = times @ present
        means[start : start + _BLOCK] = np.where(counts > 0, times @ filled / np.maximum(counts, 1), np.nan)
    return means
