"""How fast a run converges, read off its validation curve: area, restricted time to a level, epochs to a threshold.

A higher area means "higher early", not "faster": a constant 3 points at every epoch raise it.
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
# scores are shares of images, levels products of them: equal up to rounding is reached
_ROUNDING = 1e-9


def carried(curve: Scores, epochs: int) -> Scores:
    """A curve (E,) that was stopped early, with its last value carried forward to `epochs`; a longer one stays.

    >>> carried(np.array([0.2, 0.5]), 4).tolist()
    [0.2, 0.5, 0.5, 0.5]
    """
    return np.pad(curve, (0, max(0, epochs - len(curve))), mode="edge")


def area(curve: Scores, epochs: int = EARLY_EPOCHS) -> float:
    """How high early: the area under a curve over its first epochs by the trapezoidal rule, over their number less one.

    It is in units of the curve, so that a region of practical equivalence means the same as for final scores.

    Args:
        curve: (E,) float64, a score after each epoch, from the first on.
        epochs: how many of them count; all, where there are fewer.

    >>> area(np.array([0.2, 0.4, 0.6]))
    0.4
    """
    early = curve[:epochs]
    return float(early[0]) if len(early) == 1 else float(np.trapezoid(early) / (len(early) - 1))


def own_level(curves: Sequence[Scores]) -> float:
    """95 % of the mean final accuracy of some runs, such as all of an arm or a single one.

    >>> own_level([np.array([0.2, 0.7]), np.array([0.3, 0.9])])
    0.76
    """
    return THRESHOLD_SHARE * float(np.mean([curve[-1] for curve in curves]))


def restricted_time(curve: Scores, level: float, epochs: int) -> float:
    """Epochs until a curve first reaches a level, interpolated linearly between epochs; at most `epochs`.

    The restricted mean of right-censored times (Royston & Parmar, BMC Medical Research Methodology 13, 2013): a run
    that does not get there within `epochs` counts with `epochs`. Epoch 1 is the first value; a curve that is there
    then has time 1.

    Args:
        curve: (E,) float64, a score after each epoch; one that was stopped early keeps its last value.
        level: in units of the curve.
        epochs: the budget.

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
    """Differences in time to a run's own level, in epochs, per pair; negative where the second arm is faster.

    A run's level is 95 % of its own final accuracy. That alone is not blind to a constant shift: with 3 points more at
    every epoch the level rises by 2.85, and a slow approach gets there a little earlier. So each pair has a second
    reading, in which the second run's level is as many points below its own final accuracy as the first's is below
    its. A constant shift changes no time in that reading, a constant factor none in the first. Nor are they blind to
    a decline: a run that falls at the end, as by over-fitting, lowers its own level, and was there earlier. In the
    third reading the levels are 95 % of the runs' own highest accuracies. The differences returned are those of the
    reading that is least favorable to a difference: whose mean is nearest to zero, or, where means have opposite
    signs, the mixture of the two farthest apart whose mean is zero.

    Args:
        first: (J,) curves (E,) of the arm that is compared with.
        second: (J,) curves of the arm in question, pair by pair.
        epochs: the budget, to which curves that were stopped early are carried forward.

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
    """Of one pair the times of first and second run, three times: to 95 % of its own final accuracy, to as many points
    below it, and to 95 % of its own highest accuracy.
    """
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
