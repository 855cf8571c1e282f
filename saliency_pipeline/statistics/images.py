"""Two networks on the same images: McNemar's test and a paired bootstrap over images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saliency_pipeline.statistics.power import LEVEL
from saliency_pipeline.statistics.shares import wilson
from saliency_pipeline.statistics.signs import sign_test

Scores = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]

RESAMPLES = 2000


def mcnemar(first: Right, second: Right) -> tuple[int, int, float]:
    """Apply McNemar's exact test (1947) to two networks on the same images.

    Args:
        first: (N,) bool, True for images that the first network classifies correctly.
        second: (N,) bool, likewise for the second.

    Returns:
        Number of images that only the first classifies correctly, that only the second does, and the two-sided p.

    >>> mcnemar(np.array([True, False, False, True]), np.array([True, True, True, True]))
    (0, 2, 0.5)
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return only_first, only_second, sign_test(only_first, only_second)


def paired_bootstrap(first: Scores, second: Scores, *, seed: int = 0) -> tuple[float, float, float]:
    """Compute the mean difference over images and its 95 % interval, by resampling images with both scores.

    The interval is about other images of the same kind with these networks, not about other training runs. If all
    differences are equal, percentiles collapse to a point, and the interval is that of `constant_interval`.

    Args:
        first: (N,) float64, correctness of the first arm per image: 0 or 1, or a share of its runs.
        second: (N,) float64, likewise for the second.
        seed: random seed of the resamples.

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


def constant_interval(mean: float, count: int, lowest: float = -1.0, highest: float = 1.0) -> tuple[float, float]:
    """Return the 95 % interval of the mean if all `count` images have the same value, such as the same difference.

    The share of images with another value has Wilson's score interval for 0 of N, from 0 to z² / (N + z²); the
    interval of the mean lets that share be as far away as values can: differences of scores in [0, 1] by default.

    Args:
        mean: the value.
        count: number of images, at least 1.
        lowest: smallest possible value.
        highest: greatest possible value.
    """
    others = float(wilson(0, count)[1])
    return mean - others * (mean - lowest), mean + others * (highest - mean)
