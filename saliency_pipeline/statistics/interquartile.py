"""Interquartile mean of scores over runs and data sets, with a stratified bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.power import LEVEL

Scores = npt.NDArray[np.float64]

_RESAMPLES = 5000


@dataclass(frozen=True)
class Interquartile:
    """Interquartile mean, in units of the scores, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile(scores: Sequence[Scores], *, seed: int = 0) -> Interquartile:
    """Compute the interquartile mean with its 95 % percentile interval from a stratified bootstrap.

    Agarwal et al. (Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021): all scores of
    all data sets together, without the lowest and the highest quarter (rounded down to whole scores). It is less
    sensitive to a single bad run than the mean, and uses more of the runs than the median. Runs are resampled within
    each data set; a data set with more runs counts more.

    The interval is about other runs on the same data sets, not about other data sets, and is too narrow with few runs:
    it is descriptive, and no verdict depends on it.

    Args:
        scores: (J,) float64 per data set, the scores of an arm's runs, or the paired differences of two arms.
        seed: random seed of the bootstrap.

    Raises:
        SalpipeError: no data set, one without scores, or a score that is not finite.

    >>> interquartile([np.array([0.0, 0.5, 0.5, 0.9])]).value
    0.5
    """
    if not scores or any(each.ndim != 1 or len(each) == 0 for each in scores):
        raise SalpipeError("scores: a data set without runs; pass one array of scores per data set")
    if not all(np.isfinite(each).all() for each in scores):
        raise SalpipeError("scores: not finite; train the run again with a lower --lr")
    random = np.random.default_rng(seed)
    resamples = [each[random.integers(0, len(each), (_RESAMPLES, len(each)))] for each in scores]
    means = interquartile_mean(np.concatenate(resamples, axis=1))
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interquartile(float(interquartile_mean(np.concatenate(scores))), float(low), float(high))


def interquartile_mean(scores: Scores) -> Scores:
    """Return the mean along the last axis without the lowest and highest quarters, rounded down to whole scores."""
    count = scores.shape[-1]
    middle = np.sort(scores, axis=-1)[..., count // 4 : count - count // 4]
    return np.asarray(middle.mean(axis=-1), np.float64)
