"""Shares of a gain: Fieller's interval by hand, its coverage, and denominators that are no gain."""

import numpy as np
import pytest
from scipy import stats

from saliency_pipeline.statistics.contrast import evaluate
from saliency_pipeline.statistics.power import error_of_interval
from saliency_pipeline.statistics.ratio import Estimate, Ratio, ratio_of_gains


def shared(part: np.ndarray, whole: np.ndarray, ratio: float = 0.0) -> Ratio | None:
    """The ratio of the means of paired gains (J,)."""
    contrasts, freedom = [evaluate(np.zeros_like(part), gains, ratio) for gains in (part, whole)], len(part) - 1
    estimates = [Estimate(c.mean, error_of_interval(c.mean, c.low, c.high, freedom)) for c in contrasts]
    covariance = (1 / len(part) + ratio) * float(np.cov(part, whole)[0, 1])
    return ratio_of_gains(estimates[0], estimates[1], covariance, freedom)


def test_the_interval_is_that_of_the_quadratic_equation() -> None:
    part, whole = np.array([0.02, 0.05, 0.03, 0.06]), np.array([0.10, 0.12, 0.08, 0.14])
    result = shared(part, whole)
    assert result is not None
    t, covariance = stats.t.ppf(0.975, 3), np.cov(part, whole) / 4
    roots = np.roots(
        [
            whole.mean() ** 2 - t**2 * covariance[1, 1],
            -2 * (part.mean() * whole.mean() - t**2 * covariance[0, 1]),
            part.mean() ** 2 - t**2 * covariance[0, 0],
        ]
    )
    assert (result.low, result.high) == pytest.approx(sorted(roots))
    assert result.value == pytest.approx(0.04 / 0.11)
    # at either end the test of part - end * whole is just significant
    for end in (result.low, result.high):
        assert stats.ttest_1samp(part - end * whole, 0).pvalue == pytest.approx(0.05)


def test_a_gain_without_error_scales_the_interval_of_the_other() -> None:
    result = ratio_of_gains(Estimate(0.05, 0.01), Estimate(0.1, 0.0), 0.0, 9)
    reach = stats.t.ppf(0.975, 9) * 0.1
    assert result == Ratio(0.5, pytest.approx(0.5 - reach), pytest.approx(0.5 + reach))
    # equal gains in every pair: no larger covariance than that of their errors
    equal = ratio_of_gains(Estimate(0.1, 0.01), Estimate(0.1, 0.01), 1.0, 9)
    assert equal == Ratio(1.0, pytest.approx(1.0), pytest.approx(1.0))


@pytest.mark.parametrize("ratio", [0.0, 0.25])
def test_it_contains_zero_exactly_where_the_gain_s_own_interval_does(ratio: float) -> None:
    random = np.random.default_rng(0)
    for mean in (-0.02, 0.0, 0.01, 0.02, 0.04):
        part, whole = random.normal(mean, 0.02, 8), random.normal(0.2, 0.02, 8)
        result, own = shared(part, whole, ratio), evaluate(np.zeros(8), part, ratio)
        assert result is not None
        assert (result.low <= 0 <= result.high) == (own.low <= 0 <= own.high)


@pytest.mark.parametrize("whole", [(0.01, 0.01), (0.0, 0.01), (0.0, 0.0), (-0.1, 0.01)])
def test_a_share_of_no_gain_is_not_defined(whole: tuple[float, float]) -> None:
    assert ratio_of_gains(Estimate(0.05, 0.01), Estimate(*whole), 0.0, 9) is None


def test_nineteen_of_twenty_intervals_contain_the_true_share() -> None:
    """2,000 draws of ten correlated pairs; four standard errors of the rate are two points."""
    random, covered = np.random.default_rng(1), 0
    for _ in range(2000):
        baseline = random.normal(0, 0.03, 10)
        part, whole = (mean + random.normal(0, 0.03, 10) - baseline for mean in (0.06, 0.2))
        result = shared(part, whole)
        assert result is not None
        covered += result.low <= 0.3 <= result.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)
