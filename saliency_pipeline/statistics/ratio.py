"""Ratio of two mean differences with Fieller's interval: the share of one gain that another one reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from saliency_pipeline.statistics.power import LEVEL


@dataclass(frozen=True)
class Estimate:
    """A mean difference and its standard error, both in units of the score."""

    mean: float
    error: float


@dataclass(frozen=True)
class Ratio:
    """A ratio with the ends of its 95 % interval; 1 where both gains are equal."""

    value: float
    low: float
    high: float


def ratio_of_gains(part: Estimate, whole: Estimate, covariance: float, freedom: int) -> Ratio | None:
    """Compute part / whole with Fieller's 95 % interval; None unless `whole` is positive beyond its own interval.

    Fieller (Some problems in interval estimation, JRSS B 16, 1954): a ratio r belongs to the interval if Student's t
    test does not reject that part - r * whole has a mean of 0. It uses the errors of the tests of both gains as they
    are, corrected for training images that pairs share, so that it contains 0 where the interval of `part` does. A
    bootstrap over pairs has no such correction, and too few pairs for its quantiles.

    Where the interval of `whole` contains 0 the set of these ratios is not bounded: any share of nothing is possible.

    Args:
        part: gain in the numerator.
        whole: gain in the denominator, over the same pairs and compared with the same arm.
        covariance: of both means; a larger one than their errors permit is reduced.
        freedom: degrees of freedom of the errors.

    >>> ratio = ratio_of_gains(Estimate(0.05, 0.01), Estimate(0.1, 0.01), 0.00005, 9)
    >>> f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    '0.50 [0.30, 0.70]'
    """
    quantile = float(special.stdtrit(freedom, (1 + LEVEL) / 2))
    square = quantile * quantile
    a = whole.mean**2 - square * whole.error**2
    if whole.mean <= 0 or a <= 0:
        return None
    largest = part.error * whole.error
    covariance = min(largest, max(-largest, covariance))
    b = part.mean * whole.mean - square * covariance
    c = part.mean**2 - square * part.error**2
    root = math.sqrt(max(0.0, b * b - a * c))
    return Ratio(part.mean / whole.mean, (b - root) / a, (b + root) / a)
