"""Paired runs of two arms: corrected t test, confidence interval, equivalence, verdict.

Conventions
    A pair is two runs, one per arm, that share the split, the order of the images and all initial weights that both
    have. Differences (J,) float64 are the second arm's scores minus the first's, one per pair; J >= 2.
    Scores are in [0, 1] where a region of practical equivalence is used; 0.01 is a point.
    `ratio` is the number of validation images over the number of images that training was sampled from. Pairs of one
    cross-validation share most of their training images, so that their differences are correlated and their variance
    underestimates the error of the mean. Nadeau & Bengio (Inference for the generalization error,
    Machine Learning 52, 2003) estimate the variance of the mean by (1/J + ratio) s², s² being that of the differences.
    `validate` checks all this; the other functions assume it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.power import ALPHA as ALPHA
from saliency_pipeline.statistics.power import LEVEL, MINIMUM_PAIRS, resolved, standard_error

Scores = npt.NDArray[np.float64]

ROPE = 0.01
_ROUNDING = 1e-12

BETTER, WORSE, EQUIVALENT = "better", "worse", "equivalent"
UNDECIDED, UNDERPOWERED, NO_DIFFERENCE = "undecided", "underpowered", "no difference"


@dataclass(frozen=True)
class Contrast:
    """Statistics of the differences of one score between two arms.

    Attributes:
        pairs: J.
        mean: mean of the differences.
        sd: sample standard deviation of the differences.
        low: lower end of the 95 % confidence interval of the mean.
        high: upper end of the interval.
        t: corrected statistic with J - 1 degrees of freedom; finite.
        p: two-sided p of the test of no difference; 0 only where the floating-point number underflows.
        worse: posterior probability that the difference is below minus the region of practical equivalence.
        same: posterior probability that it is within the region.
        better: posterior probability that it is above.
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


def validate(first: Scores, second: Scores, ratio: float) -> None:
    """Check scores and ratio.

    Raises:
        SalpipeError: different numbers of scores, fewer than two pairs, a score that is not finite, or an invalid
            ratio.
    """
    if first.ndim != 1 or first.shape != second.shape:
        raise SalpipeError(f"scores of shape {first.shape} and {second.shape}: not pairs; pass one score per arm")
    if len(first) < 2:
        raise SalpipeError(f"{len(first)} pair: too few to estimate a variance; compare two pairs of runs or more")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise SalpipeError("a score is not finite; train the run again with a lower --lr")
    if not (math.isfinite(ratio) and ratio >= 0):
        raise SalpipeError(f"ratio of validation to training images {ratio}: use a number from 0")


def evaluate(first: Scores, second: Scores, ratio: float, *, rope: float = ROPE, step: float = 0.0) -> Contrast:
    """Compute the statistics of the paired differences of one score.

    Accuracies have a resolution of one image. The standard deviation used is at least that of rounding two scores to
    it, step / sqrt(6) (`power.resolved`); `sd` is the observed one. Where the observed one is not larger, as with
    equal differences, the data show a common sign and no spread: the standard error is then at least the one that
    gives the p of the exact two-sided sign test for J equal signs, 2 · 0.5^J, so that p, interval and posterior agree.

    Args:
        first: (J,) float64, scores of the reference arm.
        second: (J,) float64, scores of the other arm, in the same order of pairs.
        ratio: validation images over the images that training was sampled from.
        rope: half width of the region of practical equivalence, in units of the score.
        step: resolution of the score: one over the number of validation images.

    Raises:
        SalpipeError: see `validate`.

    >>> contrast = evaluate(np.zeros(10), np.full(10, 0.02) + np.linspace(-0.01, 0.01, 10), 0.25)
    >>> f"{contrast.mean:.3f} [{contrast.low:.3f}, {contrast.high:.3f}], p = {contrast.p:.3f}"
    '0.020 [0.011, 0.029], p = 0.001'
    >>> round(evaluate(np.zeros(6), np.full(6, 0.1), 0.25).p, 6)
    0.03125
    """
    validate(first, second, ratio)
    differences = second - first
    pairs, mean, sd = len(differences), float(differences.mean()), float(differences.std(ddof=1))
    # equal differences differ by rounding only
    if sd <= _ROUNDING * max(1.0, abs(mean)):
        sd, mean = 0.0, mean if abs(mean) > _ROUNDING else 0.0
    counted = resolved(sd, step)
    error = standard_error(counted, pairs, ratio)
    if sd <= resolved(0.0, step):
        error = max(error, _sign_test_error(mean, pairs))
    t, p = corrected_t(mean, error, pairs)
    reach = float(special.stdtrit(pairs - 1, (1 + LEVEL) / 2)) * error
    worse, same, better = posterior(mean, error, pairs, rope)
    return Contrast(pairs, mean, sd, mean - reach, mean + reach, t, p, worse, same, better)


def _sign_test_error(mean: float, pairs: int) -> float:
    """Return the standard error with which Student's t has the p of J equal signs."""
    t = float(-special.stdtrit(pairs - 1, 0.5**pairs))
    # scipy returns minus infinity for a probability that underflows
    return abs(mean) / t if t > 0 else 0.0


def corrected_t(mean: float, error: float, pairs: int) -> tuple[float, float]:
    """Return Student's t and its two-sided p; (0, 1) for an error of 0, which implies a mean of 0."""
    if error == 0:
        return 0.0, 1.0
    t = mean / error
    return t, float(2 * special.stdtr(pairs - 1, -abs(t)))


def posterior(mean: float, error: float, pairs: int, rope: float = ROPE) -> tuple[float, float, float]:
    """Return the probabilities that the true difference is below, within and above the region of equivalence.

    The posterior of the Bayesian correlated t test (Corani & Benavoli, A Bayesian approach for comparing
    cross-validated algorithms on multiple data sets, Machine Learning 100, 2015): Student's t centered at the mean,
    with the corrected standard error as scale.
    """
    if error == 0:
        return float(mean < -rope), float(-rope <= mean <= rope), float(mean > rope)
    worse = float(special.stdtr(pairs - 1, (-rope - mean) / error))
    better = float(special.stdtr(pairs - 1, (mean - rope) / error))
    return worse, max(0.0, 1 - worse - better), better


def verdict(contrast: Contrast, p: float, *, level: float = ALPHA, minimum: int = MINIMUM_PAIRS) -> str:
    """Return the verdict on a contrast.

    `better` or `worse` if p is below the level; `equivalent` if the true difference is within the region of practical
    equivalence with 95 % probability, whatever p is; `no difference` if all differences are 0; else `undecided`. With
    too few pairs: `underpowered`.

    Args:
        contrast: statistics of the differences.
        p: p of the test, adjusted for the other tests of its family.
        level: significance level; with planned looks, that of the look (`sequential.levels`).
        minimum: minimum number of pairs for a verdict.
    """
    if contrast.pairs < minimum:
        return UNDERPOWERED
    if contrast.mean == 0 and contrast.sd == 0:
        return NO_DIFFERENCE
    if contrast.same >= LEVEL:
        return EQUIVALENT
    if p < level:
        return BETTER if contrast.mean > 0 else WORSE
    return UNDECIDED
