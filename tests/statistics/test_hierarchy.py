"""Several data sets: closed forms, a slow twin, shrinkage, and how often the verdict errs."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.hierarchy import Estimate, hierarchy, t_test, verdict
from tests.statistics.nulls import hierarchy_errs, share

means = st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=5)


def of(*values, error=0.004, freedom=9):
    return [Estimate(value, error, freedom) for value in values]


def test_data_sets_that_differ_more_than_their_errors_are_students_t():
    values = np.array([0.02, 0.05, -0.01, 0.03])
    posterior = hierarchy(of(*values, error=1e-4), rope=0.01)
    scale = values.std(ddof=1) / 2
    low, high = values.mean() + scale * stats.t.ppf([0.025, 0.975], 3)
    assert (posterior.low, posterior.high) == pytest.approx((low, high), abs=6e-4)
    assert posterior.positive == pytest.approx(stats.t.sf(-values.mean() / scale, 3), abs=2e-3)
    # nothing is left to shrink
    assert posterior.shrunken == pytest.approx(values, abs=1e-4)


def test_the_posterior_is_that_of_a_slow_twin():
    estimates = [Estimate(0.01, 0.004, 5), Estimate(0.03, 0.006, 9), Estimate(0.02, 0.003, 9)]
    errors = np.array([each.error for each in estimates])

    def likelihood(each: Estimate, centers: np.ndarray, tau: float) -> np.ndarray:
        """Numerical convolution of Student's t and the normal distribution, one value per center."""
        steps = np.linspace(-7, 7, 281)
        true = centers[:, None] + tau * steps
        density = stats.t.pdf((each.mean - true) / each.error, each.freedom) / each.error
        return integrate.trapezoid(density * stats.norm.pdf(steps), steps, axis=1)

    taus = np.geomspace(2e-5, 1.0, 60)
    grid = np.concatenate([np.linspace(-0.3, -0.05, 30), np.linspace(-0.048, 0.088, 100), np.linspace(0.09, 0.34, 30)])
    priors = np.sqrt(((taus[:, None] / (taus[:, None] ** 2 + errors**2)) ** 2).sum(axis=1))
    values = [
        prior * tau * np.prod([likelihood(each, grid, tau) for each in estimates], axis=0)
        for prior, tau in zip(priors, taus, strict=True)
    ]
    weights = integrate.trapezoid(np.array(values), np.log(taus), axis=0)
    cumulated = integrate.cumulative_trapezoid(weights, grid, initial=0)
    cumulated /= cumulated[-1]
    posterior = hierarchy(estimates, rope=0.01)
    assert (posterior.low, posterior.median, posterior.high) == pytest.approx(
        np.interp([0.025, 0.5, 0.975], cumulated, grid), abs=4e-4
    )
    assert posterior.positive == pytest.approx(1 - np.interp(0, grid, cumulated), abs=2e-3)
    assert posterior.overall.above == pytest.approx(1 - np.interp(0.01, grid, cumulated), abs=3e-3)


@settings(max_examples=10)
@given(means, st.floats(0.001, 0.02), st.integers(1, 20))
def test_exchanged_arms_exchange_signs(values, error, freedom):
    one = hierarchy(of(*values, error=error, freedom=freedom), rope=0.01)
    other = hierarchy(of(*(-value for value in values), error=error, freedom=freedom), rope=0.01)
    assert one.median == pytest.approx(-other.median, abs=1e-9)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert one.overall.below == pytest.approx(other.overall.above, abs=1e-9)
    assert one.low <= one.median <= one.high
    for chances in (one.overall, one.next):
        assert chances.below + chances.within + chances.above == pytest.approx(1)
        assert min(chances.below, chances.within, chances.above) >= 0


@settings(max_examples=25)
@given(means, st.floats(1e-3, 1e3))
def test_the_unit_does_not_matter(values, factor):
    one = hierarchy(of(*values), rope=0.01)
    other = hierarchy(of(*(factor * value for value in values), error=factor * 0.004), rope=factor * 0.01)
    ends = (factor * one.low, factor * one.median, factor * one.high)
    assert (other.low, other.median, other.high) == pytest.approx(ends)
    assert other.positive == pytest.approx(one.positive)
    assert other.next.above == pytest.approx(one.next.above)


def test_estimates_are_shrunken_towards_the_others_and_the_least_certain_the_most():
    estimates = [Estimate(0.00, 0.003, 9), Estimate(0.04, 0.02, 9), Estimate(0.00, 0.003, 9), Estimate(0.04, 0.003, 9)]
    posterior = hierarchy(estimates, rope=0.01)
    assert 0 < posterior.shrunken[0] < posterior.median < posterior.shrunken[1] < posterior.shrunken[3] < 0.04


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((0.025, 0.025), "too few data sets"),
        ((0.025, 0.02, 0.03), "better"),
        ((-0.025, -0.02, -0.03), "worse"),
        ((0.025, 0.00, 0.06), "undecided"),
        ((0.001, 0.0, -0.001, 0.0, 0.001), "equivalent"),
        # certain, and too small to matter
        ((0.005, 0.0051, 0.0049, 0.005, 0.005), "equivalent"),
    ],
)
def test_the_verdict_in_a_word(values, word):
    assert verdict(hierarchy(of(*values, error=0.002), rope=0.01)) == word


def test_agreement_of_three_noisy_data_sets_is_no_general_verdict():
    # each within 2.5 of its own errors: one by one undecided or barely better
    assert verdict(hierarchy(of(0.01, 0.01, 0.01, error=0.004), rope=0.01)) == "undecided"


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=8))
def test_the_t_test_over_data_sets_is_scipys(values):
    if np.ptp(values) > 1e-3:
        assert t_test(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    same = [values[0]] * len(values)
    assert t_test(same) == (1.0 if values[0] == 0 else 0.0)


def test_a_verdict_takes_the_posterior_and_the_t_test():
    posterior = hierarchy(of(0.025, 0.02, 0.03, error=0.002), rope=0.01)
    assert verdict(posterior) == "better"
    assert verdict(dataclasses.replace(posterior, p=0.05)) == "undecided"
    assert verdict(dataclasses.replace(posterior, positive=0.97)) == "undecided"
    assert verdict(dataclasses.replace(posterior, positive=0.02)) == "worse"


def test_one_large_data_set_does_not_carry_the_others():
    estimates = [Estimate(0.03, 0.0005, 50), Estimate(0.0, 0.01, 9), Estimate(-0.02, 0.01, 9)]
    assert verdict(hierarchy(estimates, rope=0.01)) == "undecided"


@pytest.mark.parametrize(
    ("estimates", "rope", "message"),
    [
        (of(0.1), 0.01, "1 data set: too few"),
        (of(0.1, 0.1, error=0.0), 0.01, "not a finite mean"),
        (of(0.1, np.nan), 0.01, "not a finite mean"),
        (of(0.1, 0.1, freedom=0), 0.01, "1 degree of freedom"),
        (of(0.1, 0.1), -0.01, "rope -0.01"),
    ],
)
def test_other_estimates_are_refused(estimates, rope, message):
    with pytest.raises(SalpipeError, match=message):
        hierarchy(estimates, rope=rope)


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_it_errs_in_five_percent_or_less_over_three_data_sets(spread):
    # 2,000 nulls under more conditions: benchmarks/bench_datasets.py
    assert share(400, hierarchy_errs(3, spread, 0.005, 9)) <= 0.07
