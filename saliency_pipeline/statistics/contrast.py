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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.power import LEVEL, MINIMUM_PAIRS, detectable, pairs_needed, standard_error

Scores = npt.NDArray[np.float64]

ALPHA = 0.05
ROPE = 0.01

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
