"""Two networks compared image by image: McNemar's test and a bootstrap over images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from saliency_pipeline.statistics.power import LEVEL
from saliency_pipeline.statistics.shares import wilson

Scores = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]

RESAMPLES = 2000


def mcnemar(first: Right, second: Right) -> tuple[int, int, float]:
    """The exact test of McNemar (1947) for two networks on the same images.

    Args:
        first: (N,) bool, which images the first network classifies correctly.
        second: (N,) bool, the second.

    Returns:
        Images that the first alone classifies correctly, that the second alone does, and the two-sided p.

    >>> mcnemar(np.array([True, False, False, True]), np.array([True, True, True, True]))
    (0, 2, 0.5)
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 0, 0, 1.0
    return only_first, only_second, float(stats.binomtest(only_first, only_first + only_second).pvalue)


def paired_bootstrap(first: Scores, second: Scores, *, seed: int = 0) -> tuple[float, float, float]:
    """The mean difference over images and its 95 % interval, images being resampled with both scores.

    It is about other images of the same kind, for the networks at hand; not about other training runs. Where all
    differences are the same, no resample differs and percentiles collapse to a point; the interval then is that of
    `constant_interval`.

    Args:
        first: (N,) float64, how right the first arm was on each image: 0 or 1, or a share of its runs.
        second: (N,) the second.
        seed: of the resamples.

    Returns:
        Mean, lower and upper end (percentiles).
    """
    differences = second - first
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return mean, *constant_interval(mean, len(differences))
    values, counts = np.unique(differences, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(differences), counts / len(differences), RESAMPLES)
    low, high = np.percentile(draws @ values / len(differences), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return mean, float(low), float(high)


def constant_interval(mean: float, count: int) -> tuple[float, float]:
    """The 95 % interval of the mean difference where all images have the same difference.

    The share of other images whose difference is another one has the score interval of Wilson for 0 of N, from 0 to
    z² / (N + z²); the interval of the mean lets that share differ by as much as scores can.

    Args:
        mean: of the differences, in [-1, 1].
        count: number of images.
    """
    others = float(wilson(0, count)[1])
    return mean - others * (1 + mean), mean + others * (1 - mean)
