"""Power of the corrected t test: the smallest difference that is detected, and the pairs that a difference takes."""

from __future__ import annotations

import math

from scipy import stats

from saliency_pipeline.statistics.sequential import information

LEVEL = 0.95
ALPHA = 0.05
MINIMUM_PAIRS = 6
POWER = 0.8
MOST_PAIRS = 10_000


def resolved(sd: float, step: float) -> float:
    """The standard deviation that counts: at least that of rounding two scores to steps, step / sqrt(6).

    Args:
        sd: observed standard deviation of the differences.
        step: resolution of the score: one over the validation images.

    >>> resolved(0.02, 0.01), round(resolved(0.0, 0.06), 4)
    (0.02, 0.0245)
    """
    return max(sd, step / math.sqrt(6))


def standard_error(sd: float, pairs: int, ratio: float) -> float:
    """Of the mean of differences, corrected for the training images that pairs share (Nadeau & Bengio 2003)."""
    return sd / math.sqrt(information(pairs, ratio))


def error_of_interval(mean: float, low: float, high: float, freedom: int) -> float:
    """The standard error behind a 95 % interval of Student's t.

    An interval that ends at 1 or -1 was cut there, so that its longer side counts.

    >>> round(error_of_interval(0.9, 0.7, 1.0, 9), 4)
    0.0884
    """
    return max(high - mean, mean - low) / float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def detectable(sd: float, pairs: int, ratio: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference that the corrected two-sided test finds with some power.

    Args:
        sd: standard deviation of the differences, in units of the score; see `resolved`.
        pairs: J.
        ratio: validation images over the images that training was sampled from.
        alpha: level that the test really uses: of one of m questions, alpha / m; of a look, that look's level.
        power: probability of finding the difference.
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
    """The fewest pairs, at least `MINIMUM_PAIRS`, with which the corrected test finds a difference with some power.

    More pairs do not help without end: the images that training sets share leave a variance of ratio · sd². None
    where that is too much, or more than 10,000 pairs would be needed. Arguments as those of `detectable`; `effect` is
    in units of the score.
    """
    if sd == 0:
        return MINIMUM_PAIRS

    def enough(pairs: int) -> bool:
        return _power(effect / standard_error(sd, pairs, ratio), pairs, alpha) >= power

    if not enough(MOST_PAIRS):
        return None
    low, high = MINIMUM_PAIRS - 1, MOST_PAIRS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _power(effect: float, pairs: int, alpha: float) -> float:
    """Of the two-sided test, for a true difference in units of the standard error; the far tail is left out."""
    critical = stats.t.isf(alpha / 2, pairs - 1)
    value = float(stats.nct.sf(critical, pairs - 1, effect))
    # scipy's series gives up on effects far beyond the critical value, where the power is 1
    return value if math.isfinite(value) else float(effect > critical)
