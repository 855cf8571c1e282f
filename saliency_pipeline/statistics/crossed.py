"""Crossed design, images x seeds: interval and test of a mean difference that treat both as random.

With the shards' own split all repeats share their validation images. Repeats alone are then no evidence on other images
of the same kind, images alone nothing about other training runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.images import constant_interval
from saliency_pipeline.statistics.power import LEVEL


@dataclass(frozen=True)
class Crossed:
    """The mean difference over seeds and images.

    Attributes:
        seeds: J, pairs of runs.
        images: N, validation images that all runs share.
        mean: of the differences, second minus first, in [-1, 1].
        low: lower end of its 95 % interval.
        high: its upper end.
        p: two-sided p of the test of no difference.
    """

    seeds: int
    images: int
    mean: float
    low: float
    high: float
    p: float


def crossed(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> Crossed:
    """Compute the mean difference with an interval and a p value that treat seeds and images as random.

    The variance of the mean is that of the pigeonhole bootstrap, which resamples seeds (rows) and images (columns)
    independently (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007). It has a closed form, so that
    nothing is resampled and no seed is needed: with row means r, column means c and grand mean m of the differences d,

        var(r) / J * (1 - 1/N)  +  var(c) / N * (1 - 1/J)  +  mean((d - m)^2) / (J N)

    where var divides by J - 1 and N - 1 (the bootstrap itself divides by J and N, too little for few seeds). The
    interaction of image and run is counted three times, which is conservative. With few seeds the quantiles of a
    bootstrap are too narrow as well; interval and p use Student's t with J - 1 degrees of freedom instead.

    If all differences are equal, the interval is that of `images.paired_bootstrap`, and p is that of an exact sign
    test over the seeds, 2 * 0.5^J, or 1 for a mean of 0.

    Args:
        first: (J, N) bool or float in [0, 1], correctness of the reference arm, one row per seed.
        second: (J, N) correctness of the other arm; rows are pairs, columns the same images.

    Raises:
        SalpipeError: not two matrices of one shape, fewer than two seeds or images, or a value outside [0, 1].

    >>> result = crossed(np.zeros((6, 40)), np.tile([0, 0, 0, 1], (6, 10)))
    >>> f"{result.mean:.2f} [{result.low:.2f}, {result.high:.2f}], p = {result.p:.3f}"
    '0.25 [0.07, 0.43], p = 0.015'
    """
    if first.ndim != 2 or first.shape != second.shape or min(first.shape) < 2:
        raise SalpipeError(
            f"correctness of shape {first.shape} and {second.shape}: not two matrices of seeds x images; "
            "pass two seeds and two images or more"
        )
    before, after = first.astype(np.float64), second.astype(np.float64)
    # NaN fails both comparisons
    if not all(((values >= 0) & (values <= 1)).all() for values in (before, after)):
        raise SalpipeError("correctness: outside [0, 1]; pass 0, 1 or shares")
    differences = after - before
    seeds, images = differences.shape
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        p = 1.0 if mean == 0 else min(1.0, 2 * 0.5**seeds)
        return Crossed(seeds, images, mean, *constant_interval(mean, images), p)
    error = math.sqrt(variance(differences))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, seeds - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, seeds - 1))
    return Crossed(seeds, images, mean, max(-1.0, mean - reach), min(1.0, mean + reach), p)


def variance(differences: npt.NDArray[np.float64]) -> float:
    """Return the variance of the mean of (J, N) differences over seeds and images; see `crossed`."""
    seeds, images = differences.shape
    of_seeds = float(differences.mean(axis=1).var(ddof=1)) / seeds * (1 - 1 / images)
    of_images = float(differences.mean(axis=0).var(ddof=1)) / images * (1 - 1 / seeds)
    return float(of_seeds + of_images + differences.var() / (seeds * images))
