"""Probability of superiority: the paper's rule, ties, collapsed bootstraps, and how often it errs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics.superiority import superiority

scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12)


def outcomes(won: int, lost: int, tied: int = 0):
    second = np.array([1.0] * won + [0.0] * lost + [0.5] * tied)
    return superiority(np.full(len(second), 0.5), second)


def test_a_tie_counts_one_half():
    assert outcomes(2, 1, 1).probability == 2.5 / 4
    assert outcomes(0, 0, 5).probability == 0.5


@pytest.mark.parametrize("pairs", [1, 6, 25])
@pytest.mark.parametrize("won", [True, False])
def test_pairs_that_all_went_one_way_have_wilsons_interval(pairs, won):
    result = outcomes(pairs if won else 0, 0 if won else pairs)
    interval = stats.binomtest(pairs if won else 0, pairs).proportion_ci(0.95, method="wilson")
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.low < result.high


def test_the_interval_is_the_percentile_bootstrap():
    # nine of twelve: the bootstrap distribution is binomial
    result = outcomes(9, 3)
    low, high = stats.binom.ppf([0.025, 0.975], 12, 0.75) / 12
    assert (result.low, result.high) == pytest.approx((low, high), abs=1 / 24)


@pytest.mark.parametrize(
    ("won", "lost", "word"),
    [
        (5, 0, "not significant"),  # an exact sign test of five pairs has no p below 6 %
        (6, 0, "significant and meaningful"),
        (6, 1, "not significant"),  # low is above 0.5, the sign test has p = 0.125
        (0, 25, "not significant"),
        (13, 12, "not significant"),
        (600, 400, "significant"),  # high is below 0.75
        (800, 200, "significant and meaningful"),
    ],
)
def test_the_word_follows_the_papers_rule(won, lost, word):
    result = outcomes(won, lost)
    assert result.word == word
    if word == "significant":
        assert result.low > 0.5 >= result.high - 0.25
    if word == "significant and meaningful":
        assert result.low > 0.5
        assert result.high > 0.75


@pytest.mark.parametrize("pairs", [4, 6, 7, 10])
def test_significant_errs_in_less_than_2_5_percent_of_independent_pairs(pairs):
    wrong = (
        sum(
            outcomes(sum(way), pairs - sum(way)).word != "not significant"
            for way in itertools.product((0, 1), repeat=pairs)
        )
        if pairs <= 7
        else sum(
            stats.binom.pmf(won, pairs, 0.5) * 2**pairs
            for won in range(pairs + 1)
            if outcomes(won, pairs - won).word != "not significant"
        )
    )
    assert wrong / 2**pairs <= 0.025


@given(scores)
def test_exchanged_arms_exchange_probabilities(values):
    first, second = np.array(values).T
    one, other = superiority(first, second), superiority(second, first)
    assert one.probability == pytest.approx(1 - other.probability)
    assert 0 <= one.low <= one.probability <= one.high <= 1
    # of one resampling each: the ends agree but for chance
    assert one.low == pytest.approx(1 - other.high, abs=0.51 / len(values))


def test_the_same_seed_gives_the_same_interval():
    random = np.random.default_rng(0)
    first, second = random.random((2, 20))
    assert superiority(first, second, seed=3) == superiority(first, second, seed=3)


@pytest.mark.parametrize(
    ("first", "second", "gamma", "message"),
    [
        ([0.1], [0.1, 0.2], 0.75, "not pairs"),
        ([], [], 0.75, "not pairs"),
        ([0.1], [np.nan], 0.75, "not finite"),
        ([0.1], [0.2], 0.3, r"gamma 0.3: outside \[0.5, 1\]"),
    ],
)
def test_other_scores_are_refused(first, second, gamma, message):
    with pytest.raises(SalpipeError, match=message):
        superiority(np.array(first), np.array(second), gamma=gamma)
