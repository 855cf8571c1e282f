"""Power of the corrected t test: the smallest difference that is detected, and the pairs that a difference takes."""

from __future__ import annotations

import math

from scipy import stats

LEVEL = 0.95
MINIMUM_PAIRS = 6
POWER = 0.8
MOST_PAIRS = 10_000


def standard_error(sd: float, pairs: int, ratio: float) -> float:
    """Of the mean of differences, corrected for the training images that pairs share (Nadeau & Bengio 2003)."""
    return sd * math.sqrt(1 / pairs + ratio)


def detectable(sd: float, pairs: int, ratio: float, power: float = POWER) -> float:
    """The smallest true difference that the corrected test finds with some power."""
    if sd == 0:
        return 0.0
    error, low, high = standard_error(sd, pairs, ratio), 0.0, 1.0
    while _power(high, pairs) < power:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, pairs) >= power else (middle, high)
    return high * error


def pairs_needed(sd: float, ratio: float, effect: float, power: float = POWER) -> int | None:
    """The fewest pairs, at least `MINIMUM_PAIRS`, with which the corrected test finds a difference with some power.

    More pairs do not help without end: the images that training sets share leave a variance of ratio · sd². None
    where that is too much, or more than 10,000 pairs would be needed.
    """
    if sd == 0:
        return MINIMUM_PAIRS

    def enough(pairs: int) -> bool:
        return _power(effect / standard_error(sd, pairs, ratio), pairs) >= power

    if not enough(MOST_PAIRS):
        return None
    low, high = MINIMUM_PAIRS - 1, MOST_PAIRS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _power(effect: float, pairs: int) -> float:
    """Of the two-sided test at 5 %, for a true difference in units of the standard error; the far tail is left out."""
    critical = stats.t.ppf((1 + LEVEL) / 2, pairs - 1)
    found = float(stats.nct.sf(critical, pairs - 1, effect))
    # scipy's series gives up on effects far beyond the critical value, where the power is 1
    return found if math.isfinite(found) else float(effect > critical)
