"""Probability that a run of one arm scores higher than its paired run of the other: P(A > B).

Bouthillier et al. (Accounting for variance in machine learning benchmarks, MLSys 2021) recommend it beside the mean
difference: a difference may be significant and still be small against the variation between runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.power import ALPHA
from saliency_pipeline.statistics.shares import wilson
from saliency_pipeline.statistics.signs import sign_test

Scores = npt.NDArray[np.float64]

GAMMA = 0.75
NOT_SIGNIFICANT, SIGNIFICANT, MEANINGFUL = "not significant", "significant", "significant and meaningful"

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Superiority:
    """Probability that the second arm scores higher in a pair of runs.

    Attributes:
        probability: share of such pairs, in [0, 1]; a tie counts one half.
        low: lower end of the 95 % interval of that probability.
        high: its upper end.
        word: `not significant`, `significant` or `significant and meaningful`.
    """

    probability: float
    low: float
    high: float
    word: str


def superiority(first: Scores, second: Scores, *, gamma: float = GAMMA, seed: int = 0) -> Superiority:
    """Estimate P(second > first) with its 95 % interval, and classify it.

    The interval is the percentile bootstrap over pairs, as in the paper (section 4 and appendix C). If all outcomes
    are equal, that collapses to a point, and the interval is Wilson's score interval (JASA 22, 1927).

    The paper's rule: not significant if low <= 0.5; significant and meaningful if low > 0.5 and high > gamma; with
    high <= gamma the advantage is significant but too small to matter. The percentile interval is too narrow with few
    pairs (7 pairs under the null: "significant" in one direction in 6 % instead of 2.5 %), so that `significant` here
    also requires an exact sign test of the pairs without ties at a two-sided 5 %, which takes six pairs or more. The
    rule assumes independent pairs. Those of one cross-validation share training images: use it with the corrected
    t test, not instead of it.

    Args:
        first: (J,) float64, scores of the reference arm; higher is better.
        second: (J,) float64, scores of the other arm, in the same order of pairs.
        gamma: probability from which an advantage is meaningful; the paper recommends 0.75.
        seed: random seed of the bootstrap.

    Raises:
        SalpipeError: no pair, unequal numbers of scores, a score that is not finite, or a gamma outside [0.5, 1].

    >>> result = superiority(np.zeros(6), np.ones(6))
    >>> f"{result.probability} [{result.low:.2f}, {result.high:.2f}]: {result.word}"
    '1.0 [0.61, 1.00]: significant and meaningful'
    """
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise SalpipeError(
            f"scores of shape {first.shape} and {second.shape}: not pairs; pass one score per arm and pair"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise SalpipeError("scores of a pair: not finite; train the run again with a lower --lr")
    if not 0.5 <= gamma <= 1:
        raise SalpipeError(f"gamma {gamma}: outside [0.5, 1]; use 0.75")
    outcomes = (np.sign(second - first) + 1) / 2
    pairs, probability = len(outcomes), float(outcomes.mean())
    if np.ptp(outcomes) == 0:
        low, high = map(float, wilson(probability * pairs, pairs))
    else:
        shares = [float((outcomes == value).mean()) for value in (0.0, 0.5, 1.0)]
        counts = np.random.default_rng(seed).multinomial(pairs, shares, _RESAMPLES)
        means = (counts[:, 1] / 2 + counts[:, 2]) / pairs
        low, high = (float(end) for end in np.percentile(means, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)]))
    word = NOT_SIGNIFICANT
    if low > 0.5 and sign_test(int((outcomes == 1).sum()), int((outcomes == 0).sum())) < ALPHA:
        word = MEANINGFUL if high > gamma else SIGNIFICANT
    return Superiority(probability, low, high, word)
