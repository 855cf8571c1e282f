"""Power of the corrected t test: smallest detectable difference, and number of pairs needed."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy import stats

from saliency_pipeline.statistics.sequential import information

LEVEL = 0.95
ALPHA = 0.05
MINIMUM_PAIRS = 6
POWER = 0.8
MOST_PAIRS = 10_000


def resolved(sd: float, step: float) -> float:
    """Return the standard deviation to use: the observed one, at least step / sqrt(6), that of rounding two scores.

    Args:
        sd: observed standard deviation of the differences.
        step: resolution of the score: one over the number of validation images.

    >>> resolved(0.02, 0.01), round(resolved(0.0, 0.06), 4)
    (0.02, 0.0245)
    """
    return max(sd, step / math.sqrt(6))


def standard_error(sd: float, pairs: int, ratio: float) -> float:
    """Return the standard error of the mean, corrected for training images that pairs share (Nadeau & Bengio 2003)."""
    return sd / math.sqrt(information(pairs, ratio))


def error_of_interval(mean: float, low: float, high: float, freedom: int) -> float:
    """Return the standard error that a 95 % interval of Student's t was computed from.

    An interval that ends at 1 or -1 was clipped there, so that its longer side is used.

    >>> round(error_of_interval(0.9, 0.7, 1.0, 9), 4)
    0.0884
    """
    return max(high - mean, mean - low) / float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def detectable(sd: float, pairs: int, ratio: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest true difference that the corrected two-sided test detects with a given power.

    Args:
        sd: standard deviation of the differences, in units of the score; see `resolved`.
        pairs: J.
        ratio: validation images over the images that training was sampled from.
        alpha: level of the test: alpha / m for one of m questions, the look's level for a look.
        power: probability of detecting the difference.
    """
    if sd == 0:
        return 0.0
    error, low, high = standard_error(sd, pairs, ratio), 0.0, 1.0
    while _power(high, pairs, alpha) < power:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, pairs, alpha) >= power else (middle, high)
    return high * error


def pairs_needed(sd: float, ratio: float, effect: float, *, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Return the fewest pairs, at least `MINIMUM_PAIRS`, with which the corrected test detects a difference `effect`.

    None if more than 10,000 would be needed, or no number is enough: the images that training sets share leave a
    variance of ratio · sd², however many pairs there are. Other arguments as of `detectable`.
    """
    if sd == 0:
        return MINIMUM_PAIRS

    def enough(pairs: int) -> bool:
        return _power(effect / standard_error(sd, pairs, ratio), pairs, alpha) >= power

    if not enough(MOST_PAIRS):
        return None
    return bisect_left(range(MOST_PAIRS), True, lo=MINIMUM_PAIRS, key=enough)


def _power(effect: float, pairs: int, alpha: float) -> float:
    """Return the power for a true difference in units of the standard error; the far tail is neglected."""
    critical = stats.t.isf(alpha / 2, pairs - 1)
    value = float(stats.nct.sf(critical, pairs - 1, effect))
    # scipy's series fails for effects far beyond the critical value, where the power is 1
    return value if math.isfinite(value) else float(effect > critical)
