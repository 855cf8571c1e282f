"""How fast a run converges, read off its validation curve: area, epochs to a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

EARLY_EPOCHS = 10
THRESHOLD_SHARE = 0.95


def area(curve: Scores, epochs: int = EARLY_EPOCHS) -> float:
    """How fast: the area under a curve over its first epochs by the trapezoidal rule, over their number less one.

    It is in units of the curve, so that a region of practical equivalence means the same as for final scores.

    Args:
        curve: (E,) float64, a score after each epoch, from the first on.
        epochs: how many of them count; all, where there are fewer.

    >>> area(np.array([0.2, 0.4, 0.6]))
    0.4
    """
    early = curve[:epochs]
    return float(early[0]) if len(early) == 1 else float(np.trapezoid(early) / (len(early) - 1))


def epochs_to(curve: Scores, threshold: float) -> int | None:
    """The first epoch, from 1, whose score reaches a threshold; None where none did (right-censored).

    >>> epochs_to(np.array([0.2, 0.6, 0.5]), 0.5), epochs_to(np.array([0.2]), 0.5)
    (2, None)
    """
    there = np.flatnonzero(curve >= threshold)
    return int(there[0]) + 1 if len(there) else None


def censored_median(epochs: Sequence[int | None]) -> float | None:
    """The median of epochs-to-threshold; None where half the runs or more never got there.

    >>> censored_median([3, None, 5]), censored_median([3, None])
    (5.0, None)
    """
    values = sorted(math.inf if epoch is None else float(epoch) for epoch in epochs)
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return middle if math.isfinite(middle) else None


def faster(first: Sequence[int | None], second: Sequence[int | None]) -> tuple[int, int, int]:
    """In how many pairs the first arm reached the threshold earlier, in how many the second, and neither.

    A run that never got there is later than any that did, and level with another that did not.
    """
    pairs = [tuple(math.inf if e is None else e for e in pair) for pair in zip(first, second, strict=True)]
    earlier, later = sum(a < b for a, b in pairs), sum(b < a for a, b in pairs)
    return earlier, later, len(pairs) - earlier - later
