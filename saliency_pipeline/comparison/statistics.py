"""What paired runs of two arms allow one to say: tests, intervals, equivalence, power, and the verdict in a word.

Conventions
    A pair is two runs, one of each arm, that share the split, the order of the images and every first weight that both
    have. Differences (J,) float64 are those of a score of the second arm minus the first's, one a pair; J >= 2.
    Scores are shares in [0, 1] where a region of practical equivalence is spoken of: 0.01 is a point.
    `ratio` is the number of validation images over the number of images training was drawn from. Pairs of one
    cross-validation share most of their training images, so that their differences are correlated; their variance
    alone says too little of how far the mean may be off. Nadeau & Bengio (Inference for the generalization error,
    Machine Learning 52, 2003) put the mean's variance at (1/J + ratio) s², s² being that of the differences.
    `validate` refuses anything else; the functions take it for granted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from saliency_pipeline.errors import SalpipeError

Scores = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]

LEVEL, ALPHA = 0.95, 0.05
ROPE = 0.01
MINIMUM_PAIRS = 6
EARLY_EPOCHS = 10
THRESHOLD_SHARE = 0.95
POWER = 0.8
RESAMPLES = 2000
MOST_PAIRS = 10_000

BETTER, WORSE, EQUIVALENT, UNDECIDED, UNDERPOWERED, NO_DIFFERENCE = (
    "better",
    "worse",
    "equivalent",
    "undecided",
    "underpowered",
    "no difference",
)


@dataclass(frozen=True)
class Contrast:
    """What the differences of one score between two arms come to.

    Attributes:
        pairs: J.
        mean: of the differences.
        sd: standard deviation of the differences, of a sample.
        low: lower end of the 95 % confidence interval of the mean.
        high: its upper end.
        t: the corrected statistic, with J - 1 degrees of freedom.
        p: of a difference this large or larger, either way, if there were none.
        worse: posterior probability that the difference is below minus the region of practical equivalence.
        same: that it is within the region.
        better: that it is above.
        detectable: the smallest true difference that so many pairs find four times out of five.
        pairs_needed: pairs that would find a difference as large as the region's half width four times out of five;
            None where no number up to 10,000 does.
    """

    pairs: int
    mean: float
    sd: float
    low: float
    high: float
    t: float
    p: float
    worse: float
    same: float
    better: float
    detectable: float
    pairs_needed: int | None


def validate(first: Scores, second: Scores, ratio: float) -> None:
    """Refuse what cannot be compared.

    Raises:
        SalpipeError: not as many scores of one arm as of the other, fewer than two pairs, a score that is not finite,
            or a ratio that is none.
    """
    if first.ndim != 1 or first.shape != second.shape:
        raise SalpipeError(f"scores of shape {first.shape} and {second.shape} are no pairs; give one of each arm")
    if len(first) < 2:
        raise SalpipeError(f"{len(first)} pair: a difference has no spread; compare two pairs of runs or more")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise SalpipeError("a score is not finite; train the run again with a lower --lr")
    if not (math.isfinite(ratio) and ratio >= 0):
        raise SalpipeError(f"{ratio}: the ratio of validation to training images is a number from 0 on")


def evaluate(first: Scores, second: Scores, ratio: float, *, rope: float = ROPE, step: float = 0.0) -> Contrast:
    """Everything about the differences of one score between two arms.

    Accuracies come in steps of one image. Differences that are all the same do not show that nothing varies, only that
    it varies by less than a step; everything but `sd` then counts the standard deviation of rounding two scores, which
    is step / sqrt(6).

    Args:
        first: (J,) float64, scores of the arm that is compared with.
        second: (J,) float64, scores of the arm in question, pair by pair.
        ratio: validation images over the images that training was drawn from.
        rope: half width of the region of practical equivalence, in units of the score.
        step: the least that the score can change by: one over the validation images.

    Raises:
        SalpipeError: see `validate`.

    >>> found = evaluate(np.zeros(10), np.full(10, 0.02) + np.linspace(-0.01, 0.01, 10), 0.25)
    >>> f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}], p = {found.p:.3f}"
    '0.020 [0.011, 0.029], p = 0.001'
    """
    validate(first, second, ratio)
    differences = second - first
    pairs, mean, sd = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    # equal differences differ by rounding alone
    if sd <= 1e-12 * max(1.0, abs(mean)):
        sd = 0.0
    counted = sd or step / math.sqrt(6)
    error = standard_error(counted, pairs, ratio)
    t, p = corrected_t(mean, error, pairs)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, pairs - 1)) * error
    worse, same, better = posterior(mean, error, pairs, rope)
    return Contrast(
        pairs,
        mean,
        sd,
        mean - reach,
        mean + reach,
        t,
        p,
        worse,
        same,
        better,
        detectable(counted, pairs, ratio),
        pairs_needed(counted, ratio, rope),
    )


def standard_error(sd: float, pairs: int, ratio: float) -> float:
    """Of the mean of differences, corrected for the training images that pairs share (Nadeau & Bengio 2003)."""
    return sd * math.sqrt(1 / pairs + ratio)


def corrected_t(mean: float, error: float, pairs: int) -> tuple[float, float]:
    """Student's t and its two-sided p; where nothing varies, p is 1 for a mean of 0 and 0 for any other."""
    if error == 0:
        return (0.0, 1.0) if mean == 0 else (math.copysign(math.inf, mean), 0.0)
    t = mean / error
    return t, float(2 * stats.t.sf(abs(t), pairs - 1))


def posterior(mean: float, error: float, pairs: int, rope: float = ROPE) -> tuple[float, float, float]:
    """Probabilities that the true difference is below, within and above the region of practical equivalence.

    The posterior of the Bayesian correlated t test (Corani & Benavoli, A Bayesian approach for comparing
    cross-validated algorithms on multiple data sets, Machine Learning 100, 2015): Student's t about the mean, with
    the corrected standard error as its scale.
    """
    if error == 0:
        return float(mean < -rope), float(-rope <= mean <= rope), float(mean > rope)
    belief = stats.t(pairs - 1, mean, error)
    worse, better = float(belief.cdf(-rope)), float(belief.sf(rope))
    return worse, max(0.0, 1 - worse - better), better


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted so that testing all of them at 5 % errs once or more in 5 % of the cases (Holm 1979).

    >>> [round(value, 6) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p, np.float64)[order] * factors))
    return [float(value) for value in adjusted]


def verdict(found: Contrast, p: float, *, minimum: int = MINIMUM_PAIRS) -> str:
    """The differences in a word.

    `better` and `worse` where the adjusted test says so; `equivalent` where the true difference is within the region
    of practical equivalence with 95 % probability, whatever the test says; `no difference` where there is none at
    all; `undecided` otherwise; `underpowered` with too few pairs for any of them.

    Args:
        found: the differences.
        p: of the test, adjusted for the others that were made.
        minimum: pairs below which nothing is said.
    """
    if found.pairs < minimum:
        return UNDERPOWERED
    if found.mean == 0 and found.sd == 0:
        return NO_DIFFERENCE
    if found.same >= LEVEL:
        return EQUIVALENT
    if p < ALPHA:
        return BETTER if found.mean > 0 else WORSE
    return UNDECIDED


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


def mcnemar(first: Right, second: Right) -> tuple[int, int, float]:
    """The exact test of McNemar (1947) for two networks on the same images.

    Args:
        first: (N,) bool, which images the first network got right.
        second: (N,) bool, the second.

    Returns:
        Images that the first alone got right, that the second alone did, and the two-sided p.

    >>> mcnemar(np.array([True, False, False, True]), np.array([True, True, True, True]))
    (0, 2, 0.5)
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 0, 0, 1.0
    return only_first, only_second, float(stats.binomtest(only_first, only_first + only_second).pvalue)


def paired_bootstrap(first: Scores, second: Scores, *, seed: int = 0) -> tuple[float, float, float]:
    """The mean difference over images and its 95 % interval, images being drawn again with their pairs.

    It is about other images of the same kind, for the networks at hand; not about other training runs. Where all
    differences are the same no draw differs. The interval then is that of Clopper and Pearson (Biometrika 26, 1934) for
    how many of all images may differ otherwise, none of N having done so, each by as much as can be.

    Args:
        first: (N,) float64, how right the first arm was on each image: 0 or 1, or a share of its runs.
        second: (N,) the second.
        seed: of the draws.

    Returns:
        Mean, lower and upper end (percentiles).
    """
    differences = second - first
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        others = 1 - ((1 - LEVEL) / 2) ** (1 / len(differences))
        return mean, mean - others * (1 + mean), mean + others * (1 - mean)
    values, counts = np.unique(differences, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(differences), counts / len(differences), RESAMPLES)
    low, high = np.percentile(draws @ values / len(differences), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return mean, float(low), float(high)


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
