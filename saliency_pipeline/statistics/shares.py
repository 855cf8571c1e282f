"""Wilson's score interval for shares of independent trials, such as accuracies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from saliency_pipeline.statistics.power import LEVEL

Shares = npt.NDArray[np.float64]


def wilson(hits: npt.ArrayLike, counts: npt.ArrayLike, *, level: float = LEVEL) -> tuple[Shares, Shares]:
    """Return the lower and upper ends, float64, of Wilson's score interval (JASA 22, 1927); 0 and 1 for a count of 0.

    Args:
        hits: (n,) or a number, from 0 to the counts; a tie counts one half.
        counts: int (n,) or a number.
        level: confidence level, in (0, 1).

    >>> low, high = wilson([0, 10], [10, 10])
    >>> np.round(low, 3), np.round(high, 3)
    (array([0.   , 0.722]), array([0.278, 1.   ]))
    """
    hits, counts = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    z2 = float(stats.norm.ppf((1 + level) / 2)) ** 2
    center = (hits + z2 / 2) / (counts + z2)
    half = np.sqrt(z2 * (hits * (counts - hits) / np.maximum(counts, 1) + z2 / 4)) / (counts + z2)
    # rounding may put the lower end of 0 of N below 0 or above its share
    share = np.where(counts > 0, hits / np.maximum(counts, 1), 0.5)
    return np.minimum(np.maximum(center - half, 0.0), share), np.maximum(np.minimum(center + half, 1.0), share)
