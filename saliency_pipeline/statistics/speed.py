"""Convergence of validation curves: area, restricted time to a level, epochs to a threshold.

A higher area means "higher early", not "faster": 3 points more at every epoch raise it.
Speed is the time to 95 % of a run's own final accuracy (`time_differences`). Epochs to a threshold that all arms share
are descriptive: the arm that ends higher passes it earlier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

EARLY_EPOCHS = 10
THRESHOLD_SHARE = 0.95
# a level counts as reached if the score equals it up to rounding
_ROUNDING = 1e-9


def carried(curve: Scores, epochs: int) -> Scores:
    """Carry the last value of a curve (E,) forward to `epochs`; a longer curve is returned unchanged.

    >>> carried(np.array([0.2, 0.5]), 4).tolist()
    [0.2, 0.5, 0.5, 0.5]
    """
    return np.pad(curve, (0, max(0, epochs - len(curve))), mode="edge")


def area(curve: Scores, epochs: int = EARLY_EPOCHS) -> float:
    """Return the area under the first epochs of a curve (trapezoidal rule) per epoch.

    It is in units of the curve, so that a region of practical equivalence means the same as for final scores.

    Args:
        curve: (E,) float64, the score after each epoch.
        epochs: number of epochs to use; all if there are fewer.

    >>> area(np.array([0.2, 0.4, 0.6]))
    0.4
    """
    early = curve[:epochs]
    return float(early[0]) if len(early) == 1 else float(np.trapezoid(early) / (len(early) - 1))


def own_level(curves: Sequence[Scores]) -> float:
    """Return 95 % of the mean final accuracy of some runs, such as all of an arm or a single one.

    >>> own_level([np.array([0.2, 0.7]), np.array([0.3, 0.9])])
    0.76
    """
    return THRESHOLD_SHARE * float(np.mean([curve[-1] for curve in curves]))


def restricted_time(curve: Scores, level: float, epochs: int) -> float:
    """Return the epochs until a curve first reaches a level, linearly interpolated, at most `epochs`.

    For the restricted mean of right-censored times (Royston & Parmar, BMC Medical Research Methodology 13, 2013): a
    run that does not reach the level within `epochs` counts with `epochs`. Epoch 1 is the first value; a curve that
    starts at the level has time 1.

    Args:
        curve: (E,) float64, the score after each epoch; a curve that was stopped early keeps its last value.
        level: level in units of the curve.
        epochs: number of epochs of the budget.

    >>> restricted_time(np.array([0.2, 0.4, 0.6]), 0.5, 3), restricted_time(np.array([0.2, 0.4]), 0.5, 10)
    (2.5, 10.0)
    """
    reached = np.flatnonzero(curve[:epochs] >= level - _ROUNDING)
    if not len(reached):
        return float(epochs)
    last = int(reached[0])
    if last == 0:
        return 1.0
    before, after = float(curve[last - 1]), float(curve[last])
    return last + min(1.0, (level - before) / (after - before))


def time_differences(first: Sequence[Scores], second: Sequence[Scores], epochs: int) -> Scores:
    """Return the differences in time to a run's own level, in epochs, per pair; negative if the second arm is faster.

    A run's level is 95 % of its own final accuracy. Alone, this is sensitive to a constant shift: with 3 points more at
    every epoch the level rises by 2.85, and a slow approach reaches it a little earlier. In a second reading the
    second run's level is therefore as many points below its own final accuracy as the first's is below its own. A
    constant shift changes no time in that reading, a constant factor none in the first. Both are sensitive to a
    decline: a run that falls at the end, as by over-fitting, lowers its own level and reached it earlier. In a third
    reading the levels are 95 % of the runs' own highest accuracies. The differences returned are those of the reading
    whose mean is nearest to zero or, if means have opposite signs, the mixture with mean zero of the two farthest
    apart.

    Args:
        first: (J,) curves (E,) of the reference arm.
        second: (J,) curves of the other arm, in the same order of pairs.
        epochs: number of epochs of the budget, to which curves that were stopped early are carried forward.

    Returns:
        (J,) float64.
    """
    times = np.array([_times(one, other, epochs) for one, other in zip(first, second, strict=True)])
    readings = sorted(times[:, 1::2].T - times[:, ::2].T, key=lambda reading: float(reading.mean()))
    nearest = min(readings, key=lambda reading: abs(float(reading.mean())))
    lowest, highest = readings[0], readings[-1]
    low, high = float(lowest.mean()), float(highest.mean())
    if low < 0 < high and nearest.any():
        return np.asarray(lowest - low / (high - low) * (highest - lowest), np.float64)
    return np.asarray(nearest, np.float64)


def _times(first: Scores, second: Scores, epochs: int) -> tuple[float, ...]:
    """Return the times of first and second run of a pair, in each of the three readings of `time_differences`."""
    first, second = carried(first, epochs), carried(second, epochs)
    level, end = own_level([first]), float(second[-1])
    own = restricted_time(first, level, epochs)
    return (
        own,
        restricted_time(second, own_level([second]), epochs),
        own,
        restricted_time(second, end - (float(first[-1]) - level), epochs),
        *(restricted_time(curve, THRESHOLD_SHARE * float(curve.max()), epochs) for curve in (first, second)),
    )


def epochs_to(curve: Scores, threshold: float) -> int | None:
    """Return the first epoch, from 1, whose score reaches a threshold; None if none does (right-censored).

    >>> epochs_to(np.array([0.2, 0.6, 0.5]), 0.5), epochs_to(np.array([0.2]), 0.5)
    (2, None)
    """
    reached = np.flatnonzero(curve >= threshold)
    return int(reached[0]) + 1 if len(reached) else None


def censored_median(epochs: Sequence[int | None]) -> float | None:
    """Return the median number of epochs to a threshold; None if half the runs or more never reached it.

    >>> censored_median([3, None, 5]), censored_median([3, None])
    (5.0, None)
    """
    values = sorted(math.inf if epoch is None else float(epoch) for epoch in epochs)
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return middle if math.isfinite(middle) else None


def faster(first: Sequence[int | None], second: Sequence[int | None]) -> tuple[int, int, int]:
    """Return the numbers of pairs in which the first arm reached the threshold earlier, the second did, and neither.

    A run that never reached it is later than any run that did, and ties with others that did not.
    """
    pairs = [tuple(math.inf if e is None else e for e in pair) for pair in zip(first, second, strict=True)]
    earlier, later = sum(a < b for a, b in pairs), sum(b < a for a, b in pairs)
    return earlier, later, len(pairs) - earlier - later
