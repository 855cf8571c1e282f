"""Tests, intervals and verdicts: closed forms, twins, published formulas, and the edges."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.contrast import Contrast, evaluate, verdict
from saliency_pipeline.statistics.images import mcnemar, paired_bootstrap
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import detectable, pairs_needed, standard_error
from saliency_pipeline.statistics.speed import area, censored_median, faster

A = np.array([0.60, 0.62, 0.58, 0.61, 0.63, 0.59, 0.64, 0.60])
B = np.array([0.63, 0.64, 0.62, 0.62, 0.66, 0.60, 0.65, 0.64])
scores = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@pytest.mark.parametrize(
    ("first", "second", "ratio", "message"),
    [
        (A, B[:-1], 0.25, "are no pairs"),
        (A[:1], B[:1], 0.25, "1 pair: a difference has no spread"),
        (A, np.where(B > 0.65, np.nan, B), 0.25, "not finite"),
        (A, B, -0.1, "a number from 0 on"),
        (A, B, math.inf, "a number from 0 on"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, ratio, message):
    with pytest.raises(SalpipeError, match=message):
        evaluate(first, second, ratio)


def test_nothing_shared_is_the_ordinary_paired_t_test():
    found, known = evaluate(A, B, 0.0), stats.ttest_rel(B, A)
    interval = known.confidence_interval(0.95)
    assert (found.t, found.p) == pytest.approx((known.statistic, known.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_the_corrected_test_is_the_formula_of_the_paper():
    differences, ratio = B - A, 0.25
    found = evaluate(A, B, ratio)
    # Nadeau & Bengio 2003, equation 9 with sigma^2 (1/J + n2/n1)
    t = differences.mean() / math.sqrt((1 / 8 + ratio) * differences.var(ddof=1))
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 7))
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    # the interval's end is where the test would just not be significant
    assert 2 * stats.t.sf(found.mean / (found.mean - found.low) * stats.t.ppf(0.975, 7), 7) == pytest.approx(found.p)


def test_the_posterior_is_what_draws_from_it_say():
    found = evaluate(A, B, 0.25)
    error = standard_error(found.sd, 8, 0.25)
    draws = found.mean + error * np.random.default_rng(0).standard_t(7, 400_000)
    shares = [(draws < -0.01).mean(), (abs(draws) <= 0.01).mean(), (draws > 0.01).mean()]
    assert (found.worse, found.same, found.better) == pytest.approx(shares, abs=3e-3)
    assert found.worse + found.same + found.better == pytest.approx(1)


@given(scores, st.floats(0, 1))
def test_an_arm_against_itself_differs_by_nothing(values, ratio):
    own = np.array(values)
    found = evaluate(own, own.copy(), ratio)
    assert (found.mean, found.sd, found.low, found.high, found.t, found.p) == (0, 0, 0, 0, 0, 1)
    assert (found.worse, found.same, found.better, found.detectable) == (0, 1, 0, 0)
    expected = "no difference" if len(values) >= 6 else "underpowered"
    assert verdict(found, found.p) == expected


@given(scores, st.randoms(use_true_random=False))
def test_exchanged_arms_exchange_signs(values, random):
    first, second = np.array(values), np.array(random.sample(values, len(values)))
    one, other = evaluate(first, second, 0.25), evaluate(second, first, 0.25)
    assert one.mean == pytest.approx(-other.mean)
    assert one.low == pytest.approx(-other.high)
    assert one.p == pytest.approx(other.p)
    assert one.worse == pytest.approx(other.better)


def test_differences_that_are_all_the_same_are_certain():
    found = evaluate(np.zeros(6), np.full(6, 0.1), 0.25)
    assert (found.sd, found.t, found.p, found.better) == (0, math.inf, 0, 1)
    assert found.low == found.high == pytest.approx(0.1)


@pytest.mark.parametrize("pairs", [2, 6, 20])
@pytest.mark.parametrize("mean", [0.0, 0.1])
def test_differences_that_are_all_the_same_are_no_surer_than_a_step_of_the_score(pairs, mean):
    step = 1 / 750
    found = evaluate(np.zeros(pairs), np.full(pairs, mean), 0.25, step=step)
    # twice the rounding of a score to steps, uniform with variance step² / 12
    error = math.sqrt(2 * step**2 / 12 * (1 / pairs + 0.25))
    assert (found.mean, found.sd) == pytest.approx((mean, 0.0))
    assert found.high - found.mean == found.mean - found.low == pytest.approx(stats.t.ppf(0.975, pairs - 1) * error)
    assert 0 < found.p <= 1
    assert (found.p == 1) == (mean == 0)
    assert found.p == pytest.approx(2 * stats.t.sf(mean / error, pairs - 1))
    assert found.detectable > 0
    if pairs >= 6:
        assert verdict(found, found.p) == ("better" if mean else "no difference")


def test_a_step_changes_nothing_where_differences_vary():
    assert evaluate(A, B, 0.25, step=0.5) == evaluate(A, B, 0.25)


@pytest.mark.parametrize("count", [1, 5, 750])
def test_images_that_all_differ_alike_leave_an_interval(count):
    # with no image of N otherwise, the share that may be has a probability of 2.5 % to be missed
    others = stats.beta.ppf(0.975, 1, count)
    for first, second in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.25, 0.5)):
        mean, low, high = paired_bootstrap(np.full(count, first), np.full(count, second))
        assert mean == second - first
        assert (mean - low, high - mean) == pytest.approx((others * (1 + mean), others * (1 - mean)))
        assert -1 <= low <= mean <= high <= 1
        assert low < high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises_and_keeps_the_order(p):
    adjusted = holm(p)
    assert all(own <= raised <= 1 for own, raised in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert adjusted[order[0]] == min(1, p[order[0]] * len(p))
    if len(p) == 1:
        assert adjusted == p


def test_mcnemar_counts_what_one_alone_got_right():
    first = np.array([True] * 9 + [False] * 3 + [True] * 8 + [False] * 5)
    second = np.array([False] * 9 + [True] * 3 + [True] * 8 + [False] * 5)
    # two-sided binomial: 9 or more of 12, or 3 or fewer
    p = 2 * sum(math.comb(12, k) for k in range(4)) / 2**12
    assert mcnemar(first, second) == (9, 3, pytest.approx(p))
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_the_bootstrap_is_that_of_images_drawn_again_with_their_pairs():
    random = np.random.default_rng(1)
    first, second = random.random(200) < 0.6, random.random(200) < 0.7
    mean, low, high = paired_bootstrap(first.astype(float), second.astype(float))
    assert mean == pytest.approx(second.mean() - first.mean())
    differences = second.astype(float) - first
    twin = [random.choice(differences, 200).mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.percentile(twin, [2.5, 97.5]), abs=0.012)
    assert paired_bootstrap(first.astype(float), second.astype(float)) == (mean, low, high)


def test_the_area_is_the_mean_height_of_the_curve():
    curve = np.array([0.1, 0.3, 0.5, 0.7] + [0.9] * 10)
    assert area(curve, 4) == pytest.approx(0.4)
    assert area(curve) == pytest.approx((0.2 + 0.4 + 0.6 + 0.8 + 5 * 0.9) / 9)
    assert area(np.full(20, 0.25)) == pytest.approx(0.25)
    assert area(np.array([0.6])) == 0.6


def test_runs_that_never_get_there_count_as_later_than_any_that_did():
    assert censored_median([1, 2, None]) == 2
    assert censored_median([4, None, None]) is None
    assert censored_median([2, 3]) == 2.5
    assert faster([3, None, 5, None], [4, 7, 5, None]) == (1, 1, 2)


@pytest.mark.parametrize(("sd", "ratio", "effect"), [(0.01, 0.25, 0.02), (0.02, 0.05, 0.02), (0.005, 0.25, 0.01)])
def test_so_many_pairs_suffice_and_one_fewer_does_not(sd, ratio, effect):
    pairs = pairs_needed(sd, ratio, effect)

    def power(count):
        error = standard_error(sd, count, ratio)
        critical = stats.t.ppf(0.975, count - 1)
        return stats.nct.sf(critical, count - 1, effect / error)

    assert power(pairs) >= 0.8
    assert pairs == 6 or power(pairs - 1) < 0.8
    assert detectable(sd, pairs, ratio) <= effect
    assert pairs == 6 or detectable(sd, pairs - 1, ratio) > effect


def test_power_is_what_simulated_comparisons_find():
    random, pairs, sd = np.random.default_rng(2), 12, 0.015
    effect = detectable(sd, pairs, 0.0)
    differences = effect + sd * random.standard_normal((4000, pairs))
    assert (stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.025)


def test_images_that_all_folds_share_set_a_floor_that_pairs_do_not_lower():
    assert pairs_needed(0.03, 0.25, 0.01) is None
    assert detectable(0.03, 10_000, 0.25) > 0.01
    assert pairs_needed(0.0, 0.25, 0.01) == 6


def test_the_verdict_says_the_strongest_thing_that_holds():
    told = evaluate(np.zeros(10), np.full(10, 0.03) + np.linspace(-0.01, 0.01, 10), 0.25)
    assert verdict(told, 0.01) == "better"
    assert verdict(dataclasses.replace(told, mean=-0.03), 0.01) == "worse"
    assert verdict(told, 0.05) == "undecided"
    assert verdict(dataclasses.replace(told, same=0.95), 0.01) == "equivalent"
    assert verdict(dataclasses.replace(told, pairs=5), 0.001) == "underpowered"
    assert verdict(Contrast(6, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 6), 1.0) == "no difference"
