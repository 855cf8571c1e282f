"""The corrected test, its interval and the verdict: closed forms, twins, published formulas, and the edges."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.contrast import Contrast, evaluate, verdict
from saliency_pipeline.statistics.power import standard_error

A = np.array([0.60, 0.62, 0.58, 0.61, 0.63, 0.59, 0.64, 0.60])
B = np.array([0.63, 0.64, 0.62, 0.62, 0.66, 0.60, 0.65, 0.64])
scores = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@pytest.mark.parametrize(
    ("first", "second", "ratio", "message"),
    [
        (A, B[:-1], 0.25, "not pairs"),
        (A[:1], B[:1], 0.25, "1 pair: too few"),
        (A, np.where(B > 0.65, np.nan, B), 0.25, "not finite"),
        (A, B, -0.1, "use a number from 0"),
        (A, B, math.inf, "use a number from 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, ratio, message):
    with pytest.raises(SalpipeError, match=message):
        evaluate(first, second, ratio)


def test_nothing_shared_is_the_ordinary_paired_t_test():
    contrast, expected = evaluate(A, B, 0.0), stats.ttest_rel(B, A)
    interval = expected.confidence_interval(0.95)
    assert (contrast.t, contrast.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high))


def test_the_corrected_test_is_the_formula_of_the_paper():
    differences, ratio = B - A, 0.25
    result = evaluate(A, B, ratio)
    # Nadeau & Bengio 2003, equation 9 with sigma^2 (1/J + n2/n1)
    t = differences.mean() / math.sqrt((1 / 8 + ratio) * differences.var(ddof=1))
    assert result.t == pytest.approx(t)
    assert result.p == pytest.approx(2 * stats.t.sf(t, 7))
    assert result.mean - result.low == pytest.approx(result.high - result.mean)
    # the interval ends where the test would just not be significant
    assert 2 * stats.t.sf(result.mean / (result.mean - result.low) * stats.t.ppf(0.975, 7), 7) == pytest.approx(
        result.p
    )


def test_the_posterior_is_what_draws_from_it_say():
    contrast = evaluate(A, B, 0.25)
    error = standard_error(contrast.sd, 8, 0.25)
    draws = contrast.mean + error * np.random.default_rng(0).standard_t(7, 400_000)
    shares = [(draws < -0.01).mean(), (abs(draws) <= 0.01).mean(), (draws > 0.01).mean()]
    assert (contrast.worse, contrast.same, contrast.better) == pytest.approx(shares, abs=3e-3)
    assert contrast.worse + contrast.same + contrast.better == pytest.approx(1)


@given(scores, st.floats(0, 1))
def test_an_arm_against_itself_differs_by_nothing(values, ratio):
    own = np.array(values)
    contrast = evaluate(own, own.copy(), ratio)
    assert (contrast.mean, contrast.sd, contrast.low, contrast.high, contrast.t, contrast.p) == (0, 0, 0, 0, 0, 1)
    assert (contrast.worse, contrast.same, contrast.better) == (0, 1, 0)
    expected = "no difference" if len(values) >= 6 else "underpowered"
    assert verdict(contrast, contrast.p) == expected


@given(scores, st.randoms(use_true_random=False))
def test_exchanged_arms_exchange_signs(values, random):
    first, second = np.array(values), np.array(random.sample(values, len(values)))
    one, other = evaluate(first, second, 0.25), evaluate(second, first, 0.25)
    assert one.mean == pytest.approx(-other.mean)
    assert one.low == pytest.approx(-other.high)
    assert one.p == pytest.approx(other.p)
    assert one.worse == pytest.approx(other.better)


def agree(contrast: Contrast, p: float) -> bool:
    """True if p is that of the test, and the interval and the posterior are those of the same error."""
    t = stats.t.ppf(0.975, contrast.pairs - 1) * contrast.mean / (contrast.mean - contrast.low)
    error = contrast.mean / t
    better = stats.t.sf((0.01 - contrast.mean) / error, contrast.pairs - 1)
    return (
        contrast.p == pytest.approx(p)
        and 2 * stats.t.sf(abs(t), contrast.pairs - 1) == pytest.approx(p)
        and contrast.better == pytest.approx(better)
        and contrast.high - contrast.mean == pytest.approx(contrast.mean - contrast.low)
    )


@pytest.mark.parametrize("mean", [0.1, -0.1])
@pytest.mark.parametrize("step", [0.0, 1e-6, 0.01])
def test_six_equal_differences_have_the_p_of_the_exact_sign_test_and_not_0(mean, step):
    contrast = evaluate(np.zeros(6), np.full(6, mean), 0.25, step=step)
    p = stats.binomtest(6, 6).pvalue
    assert p == 2 * 0.5**6
    assert agree(contrast, p)
    assert (contrast.sd, math.isfinite(contrast.t)) == (0, True)
    assert verdict(contrast, contrast.p) == ("better" if mean > 0 else "worse")
    # five equal signs are not significant, whatever their size
    five = evaluate(np.zeros(5), np.full(5, mean), 0.25, step=step)
    assert five.p == pytest.approx(0.0625)
    assert five.low < 0 < five.high


@pytest.mark.parametrize("pairs", [2, 6, 20, 5000])
@pytest.mark.parametrize("mean", [0.0, 0.001, 0.1])
def test_equal_differences_are_no_more_certain_than_the_resolution_and_the_sign_test(pairs, mean):
    step = 1 / 750
    contrast = evaluate(np.zeros(pairs), np.full(pairs, mean), 0.25, step=step)
    # twice the rounding of a score to steps, uniform with variance step² / 12
    error = math.sqrt(2 * step**2 / 12 * (1 / pairs + 0.25))
    assert (contrast.mean, contrast.sd) == pytest.approx((mean, 0.0))
    assert contrast.high - contrast.mean >= stats.t.ppf(0.975, pairs - 1) * error * (1 - 1e-9)
    if mean:
        assert agree(contrast, max(2 * stats.t.sf(mean / error, pairs - 1), 2 * 0.5**pairs))
    else:
        assert contrast.p == 1
        assert contrast.high - contrast.mean == pytest.approx(stats.t.ppf(0.975, pairs - 1) * error)
        assert verdict(contrast, contrast.p) == ("no difference" if pairs >= 6 else "underpowered")


def test_the_standard_deviation_counted_is_at_least_that_of_rounding():
    coarse, fine = evaluate(A, B, 0.25, step=0.05), evaluate(A, B, 0.25, step=0.01)
    assert fine == evaluate(A, B, 0.25)
    assert coarse.sd == fine.sd < 0.05 / math.sqrt(6)
    # t and interval are those of the resolution, and p is not below 2 / 2^8
    error = standard_error(0.05 / math.sqrt(6), 8, 0.25)
    assert coarse.t == pytest.approx(coarse.mean / error)
    assert agree(coarse, 2 * stats.t.sf(coarse.mean / error, 7))


def test_nearly_equal_differences_are_not_a_proof():
    """Seven of eight pairs differ by 3 images of 750 and one by 4: the spread is below the resolution."""
    differences = np.array([3, 3, 3, 3, 3, 3, 3, 4]) / 750
    contrast = evaluate(np.zeros(8), differences, 0.25, step=1 / 750)
    assert 0 < contrast.sd < 1 / 750 / math.sqrt(6)
    assert agree(contrast, 2 * 0.5**8)


def test_the_verdict_says_the_strongest_thing_that_holds():
    contrast = evaluate(np.zeros(10), np.full(10, 0.03) + np.linspace(-0.01, 0.01, 10), 0.25)
    assert verdict(contrast, 0.01) == "better"
    assert verdict(dataclasses.replace(contrast, mean=-0.03), 0.01) == "worse"
    assert verdict(contrast, 0.05) == "undecided"
    assert verdict(dataclasses.replace(contrast, same=0.95), 0.01) == "equivalent"
    assert verdict(dataclasses.replace(contrast, pairs=5), 0.001) == "underpowered"
    assert verdict(Contrast(6, 0, 0, 0, 0, 0, 1, 0, 1, 0), 1.0) == "no difference"


def test_the_verdict_is_at_the_level_of_the_look():
    contrast = evaluate(np.zeros(10), np.full(10, 0.03) + np.linspace(-0.01, 0.01, 10), 0.25)
    assert verdict(contrast, 0.02, level=0.0105) == "undecided"
    assert verdict(contrast, 0.01, level=0.0105) == "better"
    assert verdict(contrast, 0.01, minimum=11) == "underpowered"
