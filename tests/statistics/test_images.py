"""Two networks on the same images: closed forms, twins, collapsed intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from saliency_pipeline.statistics.images import mcnemar, paired_bootstrap


@pytest.mark.parametrize("count", [1, 5, 750])
def test_images_that_all_differ_alike_leave_an_interval(count):
    # Wilson 1927, solved for the share that is z standard errors above 0 of N: p - 0 = z sqrt(p (1 - p) / N)
    z = stats.norm.ppf(0.975)
    others = z**2 / (count + z**2)
    assert others == pytest.approx(z * np.sqrt(others * (1 - others) / count))
    for first, second in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.25, 0.5)):
        mean, low, high = paired_bootstrap(np.full(count, first), np.full(count, second))
        assert mean == second - first
        assert (mean - low, high - mean) == pytest.approx((others * (1 + mean), others * (1 - mean)))
        assert -1 <= low <= mean <= high <= 1
        assert low < high


def test_mcnemar_counts_what_one_alone_got_right():
    first = np.array([True] * 9 + [False] * 3 + [True] * 8 + [False] * 5)
    second = np.array([False] * 9 + [True] * 3 + [True] * 8 + [False] * 5)
    # two-sided binomial: 9 or more of 12, or 3 or fewer
    p = 2 * sum(math.comb(12, k) for k in range(4)) / 2**12
    assert mcnemar(first, second) == (9, 3, pytest.approx(p))
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_the_bootstrap_resamples_images_with_both_scores():
    random = np.random.default_rng(1)
    first, second = random.random(200) < 0.6, random.random(200) < 0.7
    mean, low, high = paired_bootstrap(first.astype(float), second.astype(float))
    assert mean == pytest.approx(second.mean() - first.mean())
    differences = second.astype(float) - first
    twin = [random.choice(differences, 200).mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.percentile(twin, [2.5, 97.5]), abs=0.012)
    assert paired_bootstrap(first.astype(float), second.astype(float)) == (mean, low, high)
